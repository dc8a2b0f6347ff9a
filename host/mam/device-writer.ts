// The device of a VM, written (paper: the dummy device that hides which node holds what): its memory is written by offset, any page as often as wanted, and
// what was written and flushed is at the nodes. Where, and on how many, is nobody's business.
//
//   const device = await DeviceWriter.create({ name: 'web', bytes, key, intermediates });
//   await device.write(offset, pages);
//   await device.flush();        // what was written until here can be read at the other end, whatever becomes of us
//   await device.close();        // that was all: it stays at the nodes until somebody drops it, or its lease runs out
//
// Pages that were written and not flushed, and pages whose holders all die before `close`, are lost with them: `flush` and `close` then throw FRAME_LOST. A
// second replica guards against that.

import { randomBytes } from 'node:crypto';
import { PAGE_BYTES } from '../../bindings/abi.js';
import type { Compression } from '../../bindings/divider.js';
import { AbdmError } from '../../bindings/errors.js';
import { isSecured, OPEN, type Security } from '../wire/security.js';
import { Framer } from './framer.js';
import { NodeIndex } from './index.js';
import { Scatter } from './scatter.js';
import { migrationSecret } from './secret.js';

/** Which device, and where the nodes are. */
export interface DeviceOptions {
  /** Of the VM; no other one that is at the nodes may have it. */
  name: string;
  /** The VM's secret, 32 bytes: whoever has it can read and make what is on the device. */
  key: Uint8Array;
  /** HOST:PORT of each node, or whoever announces itself. */
  intermediates: readonly string[] | 'announced';
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  security?: Security;
}

/** A device that is made. */
export interface DeviceWriterOptions extends DeviceOptions {
  /** How long the VM's memory is. What is never written reads as zeros. */
  bytes: number;
  /** Copies of each page. Default 1. */
  replicas?: number;
  /** So long it stays after everybody has left. Default 24 h. */
  leaseMs?: number;
  /** Default lz4. */
  compress?: Compression;
}

const LEASE_MS = 24 * 3_600_000;

/** Writes the memory of one VM to the nodes. One call at a time. */
export class DeviceWriter {
  readonly bytes: number;
  readonly #abort: AbortController;
  readonly #index: NodeIndex;
  readonly #scatter: Scatter;
  readonly #framer: Framer;
  /** The run of pages that is in the framer's batch. */
  #base = 0;
  #filled = 0;
  #waiting: (() => void)[];

  private constructor(
    bytes: number,
    abort: AbortController,
    index: NodeIndex,
    scatter: Scatter,
    framer: Framer,
    waiting: (() => void)[],
  ) {
    this.bytes = bytes;
    this.#abort = abort;
    this.#index = index;
    this.#scatter = scatter;
    this.#framer = framer;
    this.#waiting = waiting;
  }

  /**
   * Makes the device at the nodes.
   * @throws {AbdmError} USAGE if an option is wrong or another VM of that name is there, NO_ROOM if there are not enough nodes within ten seconds.
   */
  static async create(options: DeviceWriterOptions): Promise<DeviceWriter> {
    const { name, key, bytes, intermediates, announcements, security = OPEN, replicas = 1 } = options;
    if (!Number.isSafeInteger(bytes) || bytes < 0) throw new AbdmError('USAGE', `a device cannot have ${bytes} bytes`);
    const migration = randomBytes(16).toString('hex');
    const secret = migrationSecret(key, migration);
    const sealed = isSecured(security);
    const abort = new AbortController();
    const waiting: (() => void)[] = [];
    const wake = () => {
      for (const resolve of waiting.splice(0)) resolve();
    };
    const fail = (error: AbdmError) => {
      abort.abort(error);
      wake();
    };
    const index = await NodeIndex.open({
      security,
      ...(intermediates !== 'announced' && { listed: intermediates }),
      ...(announcements && { announcements }),
    });
    let scatter: Scatter | null = null;
    try {
      const pages = Math.ceil(bytes / PAGE_BYTES);
      scatter = await Scatter.open({
        migration,
        security,
        key: secret,
        index,
        manifest: { migration, sealed, replicas, vms: [{ name, bytes, pages, regions: [] }] },
        parked: true,
        leaseMs: options.leaseMs ?? LEASE_MS,
        token: null,
        onStored: () => {},
        // What was written is not here any more.
        onLost: (frames) => fail(lostError(name, frames.length)),
        onError: fail,
      });
      const compress = options.compress ?? 'lz4';
      const framer = await Framer.create({ key: secret, compress, sealed, withMeta: false, onFree: wake });
      await scatter.ready(abort.signal);
      await scatter.begin();
      return new DeviceWriter(bytes, abort, index, scatter, framer, waiting);
    } catch (error) {
      await scatter?.drop();
      scatter?.end();
      index.close();
      throw error;
    }
  }

  /**
   * Writes whole pages: `offset` and the length are multiples of 4,096, but for the end of a VM that has half a page there. Resolves when `bytes` may be
   * overwritten.
   * @throws {AbdmError} OUT_OF_RANGE; NO_ROOM, FRAME_LOST and others if the nodes cannot keep it.
   */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkPages(offset, bytes.byteLength, this.bytes);
    for (let at = 0; at < bytes.byteLength; at += PAGE_BYTES) {
      const pfn = (offset + at) / PAGE_BYTES;
      if (pfn !== this.#base + this.#filled || this.#filled === this.#framer.framePages) await this.#divide(pfn);
      const page = bytes.subarray(at, at + PAGE_BYTES);
      const { bytes: batch } = this.#framer.batch;
      batch.set(page, this.#filled * PAGE_BYTES);
      if (page.byteLength < PAGE_BYTES) {
        batch.fill(0, this.#filled * PAGE_BYTES + page.byteLength, (this.#filled + 1) * PAGE_BYTES);
      }
      this.#filled++;
    }
  }

  /** Resolves when everything that was written is at its nodes, and can be found there. @throws {AbdmError} as `write` does. */
  async flush(): Promise<void> {
    await this.#divide(this.#base);
    await this.#scatter.settle(this.#abort.signal);
  }

  /** That was all: flushes, and leaves it at the nodes for whoever has the key. @throws {AbdmError} as `write` does. */
  async close(): Promise<void> {
    await this.#divide(this.#base);
    await this.#scatter.finish(this.#abort.signal, () => {});
    this.#end();
  }

  /** The nodes forget the device. */
  async drop(): Promise<void> {
    await this.#scatter.drop();
    this.#end();
  }

  /** Sends what is in the batch, and begins another one at page `next`. */
  async #divide(next: number): Promise<void> {
    const { signal } = this.#abort;
    signal.throwIfAborted();
    if (this.#filled > 0) {
      while (!this.#framer.hasRoom) {
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
        signal.throwIfAborted();
      }
      const pages = { vm: 0, base: this.#base, pages: this.#filled };
      for (const frame of this.#framer.divide(pages)) this.#scatter.put(frame);
    }
    this.#base = next;
    this.#filled = 0;
  }

  #end(): void {
    this.#scatter.end();
    this.#index.close();
  }
}

/** @throws {AbdmError} OUT_OF_RANGE unless these are whole pages of a device of `deviceBytes`. */
export function checkPages(offset: number, bytes: number, deviceBytes: number): void {
  const end = offset + bytes;
  const whole = (at: number) => at % PAGE_BYTES === 0;
  if (Number.isSafeInteger(offset) && offset >= 0 && end <= deviceBytes && whole(offset)) {
    if (whole(bytes) || end === deviceBytes) return;
  }
  const text = `bytes ${offset} to ${end} are no whole pages of a device of ${deviceBytes} bytes`;
  throw new AbdmError('OUT_OF_RANGE', `${text}: offset and length must be multiples of ${PAGE_BYTES}`);
}

function lostError(name: string, frames: number): AbdmError {
  const text = `${frames} frames of the device ${name} went with the nodes that had them`;
  return new AbdmError('FRAME_LOST', `${text}; write it again, with more replicas`);
}
