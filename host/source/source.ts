// The source: reads images straight into the engine's memory, divides them, and gives each frame to a node; it keeps a frame until that node has
// acknowledged it. It is done when the last frame is, which is the exit, and when the destination knows where all of them lie.
//
// What may go wrong, and what becomes of it:
//   a node refuses a frame, or is gone     the frame goes to another node
//   a node is gone that has frames         aborted: FRAME_LOST; what it had acknowledged is safe nowhere else
//   no node has room                       aborted: NO_ROOM
//   the image cannot be read               aborted: IMAGE
//   the destination is gone, or gives up   aborted
// Aborted means: the nodes are told to forget the frames, the destination is told why, and the VM stays here, as it was.

import { randomBytes } from 'node:crypto';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { KEY_BYTES, PAGE_BYTES } from '../../bindings/abi.js';
import { type Compression, type DividedFrame, Divider } from '../../bindings/divider.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { ImageSource } from '../image/image.js';
import { Mam } from '../mam/mam.js';
import { reasonOf, type Status, type Summary, usage, type VmSummary } from '../summary.js';
import { RateLimit } from '../wire/rate.js';
import type { Security } from '../wire/security.js';
import { SourceControl } from './control.js';

/** What leaves, and where to. */
export interface EjectOptions {
  vms: readonly { name: string; image: ImageSource }[];
  /** HOST:PORT of the destination. */
  to?: string;
  /** Instead of a destination: everything stays at the nodes until somebody claims it, or the lease runs out. */
  park?: { leaseMs: number };
  /** The secret of a parked migration, 32 bytes, never used for another one. */
  vmKey?: Uint8Array;
  /** HOST:PORT of each intermediate, or whoever announces itself; empty: frames go straight to the destination. */
  intermediates: readonly string[] | 'announced';
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  /** Frames go straight to the destination, and nowhere else. */
  direct?: boolean;
  /** Copies of each frame. Default 1. */
  replicas?: number;
  security?: Security;
  /** Default lz4. */
  compress?: Compression;
  /** Bytes of frames a second, at most. */
  rateBytesPerS?: number;
  /** How long the destination may take to answer, in milliseconds. Default 30,000. */
  answerMs?: number;
}

/** Frames' batches that may be on their way at a time: three nodes' windows. */
const SLOTS = 48;
/** How often a frame is sent before the migration is given up. */
const MAX_TRIES = 5;
const ANSWER_MS = 30_000;

/** A migration as its source sees it. Create, then `run` once. The images stay open; they are the caller's. */
export class Ejection {
  readonly #options: EjectOptions;
  readonly #started = performance.now();
  readonly #vms: VmSummary[];
  readonly #totalBytes: number;
  readonly #limit: RateLimit;
  /** Aborts the run: by `cancel`, a lost destination, or a frame that no node takes. */
  readonly #abort = new AbortController();
  #phase: Status['phase'] = 'preparing';
  #doneBytes = 0;
  #frameBytes = 0;
  #exitTimeMs: number | null = null;
  #mam: Mam | null = null;
  #control: SourceControl | null = null;
  /** Frames given to nodes and not acknowledged yet. */
  #outstanding = 0;
  /** Resolved whenever a frame is acknowledged or something ends: what was busy may not be any more. */
  #waiting: (() => void)[] = [];

  constructor(options: EjectOptions) {
    this.#options = options;
    this.#limit = new RateLimit(options.rateBytesPerS);
    this.#totalBytes = options.vms.reduce((sum, { image }) => sum + image.bytes, 0);
    this.#vms = options.vms.map(({ name, image }) => ({
      name,
      imageBytes: image.bytes,
      pages: image.pages,
      zeroPages: 0,
      duplicatePages: 0,
      compressedPages: 0,
      normalPages: 0,
      exitTimeMs: null,
      totalMigrationTimeMs: null,
      downtimeMs: null,
      verified: null,
    }));
  }

  /** How far it has come. */
  status(): Status {
    return {
      phase: this.#phase,
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      wireBytes: this.#frameBytes,
      mergedBytes: this.#control?.mergedBytes ?? null,
      rateBytesPerS: this.#limit.bytesPerS,
      nodes: this.#mam?.shares ?? [],
      reason: reasonOf((this.#abort.signal.reason as AbdmError | undefined) ?? null),
    };
  }

  /** Bytes of frames a second from now on; null: no limit. */
  setRate(bytesPerS: number | null): void {
    this.#limit.set(bytesPerS);
  }

  /** Ends it as aborted, as soon as the batch at hand is done. */
  cancel(reason = 'cancelled'): void {
    this.#fail(new AbdmError('CANCELLED', reason));
  }

  /** Migrates. Never throws for what may happen to a migration: the summary says what did. */
  async run(): Promise<Summary> {
    try {
      await this.#migrate();
      return this.#summary(null);
    } catch (cause) {
      // What broke first is the reason; what follows from it is not.
      const error = this.#abort.signal.aborted ? (this.#abort.signal.reason as AbdmError) : asAbdmError(cause);
      // The destination first: it would find frames missing otherwise, and take that for the reason.
      await this.#control?.fail(error);
      await Promise.race([this.#mam?.drop(), sleep(2_000, undefined, { ref: false })]);
      return this.#summary(error);
    } finally {
      this.#phase = 'done';
      this.#mam?.end();
    }
  }

  async #migrate(): Promise<void> {
    const { to, intermediates, vms, compress = 'lz4' } = this.#options;
    if (to === undefined || intermediates === 'announced') {
      throw new AbdmError('USAGE', 'a migration needs a destination, and nodes by name');
    }
    const direct = intermediates.length === 0;
    const migration = randomBytes(16).toString('hex');
    const key = randomBytes(KEY_BYTES);
    const divider = await Divider.create({ key, slots: SLOTS, compress });
    const control = await SourceControl.connect(to, migration, (error) => this.#fail(error));
    this.#control = control;
    if (!direct) this.#mam = await Mam.connect(intermediates, migration, 'source');
    const ready = control.announce({
      mode: 'stop',
      direct,
      key: key.toString('hex'),
      vms: vms.map(({ name, image: { bytes, pages, regions } }) => ({ name, bytes, pages, regions: [...regions] })),
      nodes: [...intermediates],
      elapsedMs: this.#elapsedMs(),
    });
    await this.#answered(ready, 'say that it is ready');
    this.#mam ??= await Mam.connect([to], migration, 'frames');

    this.#phase = 'dividing';
    for (const [vm, { image }] of vms.entries()) await this.#divideImage(divider, vm, image);
    while (this.#outstanding > 0) await this.#wait();
    this.#abort.signal.throwIfAborted();
    this.#mam.requireHolders();
    this.#exitTimeMs = this.#elapsedMs();
    await this.#answered(control.divided(divider.counts.frames), 'confirm that it knows where the frames are');
    control.end();
  }

  async #divideImage(divider: Divider, vm: number, image: ImageSource): Promise<void> {
    const summary = this.#vms[vm]!;
    const batch = divider.acquire();
    const before = { ...divider.counts };
    for (let pfn = 0; pfn < image.pages; pfn += divider.batchPages) {
      while (divider.freeSlots === 0) await this.#wait();
      await this.#pace();
      const pages = Math.min(divider.batchPages, image.pages - pfn);
      image.read(pfn, pages, batch.bytes, 0);
      for (const frame of divider.divide(batch, { vm, base: pfn, pages })) {
        const node = await this.#choose(frame);
        this.#limit.take(frame.bytes.byteLength);
        void this.#send(frame, node, summary);
      }
      this.#doneBytes += Math.min(pages * PAGE_BYTES, image.bytes - pfn * PAGE_BYTES);
      for (const kind of ['zeroPages', 'duplicatePages', 'compressedPages', 'normalPages'] as const) {
        summary[kind] = divider.counts[kind] - before[kind];
      }
      // Acknowledgements and the destination's word are heard between batches.
      await setImmediate();
    }
    batch.release();
    if (image.pages === 0) summary.exitTimeMs = this.#elapsedMs();
  }

  /** Gives a frame to a node, and to another one if that one fails. */
  async #send(frame: DividedFrame, node: number, summary: VmSummary): Promise<void> {
    this.#outstanding++;
    try {
      for (let tries = 1; !(await this.#put(frame, node, tries)); tries++) node = await this.#choose(frame);
      this.#frameBytes += frame.bytes.byteLength;
      if (this.#options.intermediates.length > 0) this.#control!.record(frame, node);
      summary.exitTimeMs = this.#elapsedMs();
      frame.release();
    } catch (error) {
      this.#fail(asAbdmError(error));
    } finally {
      this.#outstanding--;
      this.#wake();
    }
  }

  /** False if the node did not take it, and another one might. */
  async #put(frame: DividedFrame, node: number, tries: number): Promise<boolean> {
    const mam = this.#mam!;
    try {
      const result = await mam.nodes[node]!.put(frame.id, frame.bytes);
      if (result.stored) return true;
      if (result.code === 'NO_ROOM') mam.markFull(node);
      else if (tries === MAX_TRIES) throw new AbdmError('PEER_ABORTED', `${result.node} refused it: ${result.message}`);
      return false;
    } catch (error) {
      // A frame that was damaged on the way is sent again. Where the only node is gone, nobody else can take it.
      if (tries === MAX_TRIES || mam.nodes.every(({ open }) => !open)) throw error;
      return false;
    }
  }

  async #choose({ vm, base, bytes }: DividedFrame): Promise<number> {
    for (;;) {
      this.#abort.signal.throwIfAborted();
      this.#mam!.requireHolders();
      const node = this.#mam!.choose(vm, base, bytes.byteLength);
      if (node >= 0) return node;
      await this.#wait();
    }
  }

  /** Until a frame is acknowledged. */
  async #wait(): Promise<void> {
    this.#abort.signal.throwIfAborted();
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#abort.signal.throwIfAborted();
  }

  /** Until the rate limit allows another frame. */
  async #pace(): Promise<void> {
    for (let ms = this.#limit.waitMs; ms > 0; ms = this.#limit.waitMs) {
      await sleep(ms);
      this.#abort.signal.throwIfAborted();
    }
    this.#abort.signal.throwIfAborted();
  }

  /** The destination's answer; or why it is not waited for any longer. */
  async #answered(answer: Promise<void>, what: string): Promise<void> {
    const { to, answerMs = ANSWER_MS } = this.#options;
    const { signal } = this.#abort;
    signal.throwIfAborted();
    const given = new AbortController();
    try {
      await Promise.race([
        answer,
        sleep(answerMs, undefined, { signal: AbortSignal.any([signal, given.signal]) }).then(() => {
          throw new AbdmError('PEER_UNREACHABLE', `${to} did not ${what} within ${answerMs} ms`);
        }),
      ]);
    } finally {
      given.abort();
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #fail(error: AbdmError): void {
    if (!this.#abort.signal.aborted) this.#abort.abort(error);
    this.#wake();
  }

  #elapsedMs(): number {
    return performance.now() - this.#started;
  }

  #summary(error: AbdmError | null): Summary {
    return {
      type: 'summary',
      role: 'source',
      outcome: error ? 'aborted' : 'completed',
      reason: reasonOf(error),
      mode: 'stop',
      direct: this.#options.intermediates.length === 0,
      vms: this.#vms,
      exitTimeMs: error ? null : this.#exitTimeMs,
      totalMigrationTimeMs: null,
      wireBytes: { source: (this.#mam?.bytesOut ?? 0) + (this.#control?.bytesOut ?? 0), destination: null },
      nodes: this.#mam?.shares ?? [],
      ...usage(),
    };
  }
}
