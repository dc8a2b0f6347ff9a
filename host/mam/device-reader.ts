// The device of a VM, read: any page by its offset, from whichever node has it, as often as wanted, also while it is still being written. What it reads
// after a flush at the other end is what was written before it.
//
//   const device = await DeviceReader.open({ name: 'web', key, intermediates });
//   const page = await device.read(offset, 4096);
//   await device.refresh();      // hears of what was written since
//   await device.drop();         // the nodes forget it; or `close`, and it stays
//
//   page --> newest frame that brought it --> a holder --> opened, checked, decoded --> page, or the frame that it is a duplicate of --> page

import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { type FramePage, FrameReader, type ReadFrame } from '../../bindings/frame-reader.js';
import type { FrameSlot } from '../../bindings/merger.js';
import { OPEN } from '../wire/security.js';
import { CatalogReader } from './catalog-reader.js';
import { checkPages, type DeviceOptions } from './device-writer.js';
import { type Holder, Holders } from './holders.js';
import { HEARD_ALL_MS, NodeIndex } from './index.js';
import { lookUp } from './lookup.js';
import { openManifest } from './parked.js';
import { Opener } from './seal.js';
import { migrationSecret } from './secret.js';

/** Decoded frames that are kept, the last ones used: 4 MiB of pages. */
const CACHED_FRAMES = 16;

interface Cached {
  readonly slot: FrameSlot;
  readonly frame: ReadFrame;
}

/** Reads the memory of one VM from the nodes. */
export class DeviceReader {
  readonly bytes: number;
  readonly #options: DeviceOptions;
  readonly #holders: Holders;
  readonly #index: NodeIndex;
  readonly #catalog: CatalogReader;
  readonly #opener: Opener | null;
  readonly #reader: FrameReader;
  readonly #vm: number;
  /** By page, the newest frame that brought it; 0: none did. */
  readonly #newest: Float64Array;
  readonly #places = new Map<number, readonly Holder[]>();
  /** In the order of their last use. */
  readonly #cache = new Map<number, Cached>();
  /** One read at a time: what it has decoded must not be given up under it. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    options: DeviceOptions,
    holders: Holders,
    index: NodeIndex,
    catalog: CatalogReader,
    opener: Opener | null,
    reader: FrameReader,
  ) {
    const { vms } = catalog.manifest!;
    this.#vm = vms.findIndex(({ name }) => name === options.name);
    const { bytes, pages } = vms[this.#vm]!;
    this.bytes = bytes;
    this.#newest = new Float64Array(pages);
    this.#options = options;
    this.#holders = holders;
    this.#index = index;
    this.#catalog = catalog;
    this.#opener = opener;
    this.#reader = reader;
  }

  /**
   * Finds the device by its name, and everything that was flushed until now.
   * @throws {AbdmError} USAGE if no node knows it, or the key is not its key; PEER_UNREACHABLE if it cannot be read now.
   */
  static async open(options: DeviceOptions): Promise<DeviceReader> {
    const { name, key, intermediates, announcements, security = OPEN } = options;
    const index = await NodeIndex.open({
      security,
      ...(intermediates !== 'announced' && { listed: intermediates }),
      ...(announcements && { announcements }),
    });
    let holders: Holders | null = null;
    try {
      if (intermediates === 'announced') await sleep(HEARD_ALL_MS);
      const addresses = index.nodes().map(({ address }) => address);
      const { found, silent } = await lookUp(addresses, name, security);
      const [migration, another] = new Set(found.map((one) => one.migration));
      if (!migration) {
        const text = `no node knows a VM named ${name}${silent.length > 0 ? `; no answer from ${silent.join(', ')}` : ''}`;
        throw new AbdmError(silent.length > 0 ? 'PEER_UNREACHABLE' : 'USAGE', `${text}: check the name, and the nodes`);
      }
      if (another) throw new AbdmError('USAGE', `more than one VM is named ${name}: drop all but one first`);
      holders = new Holders({ migration, security, onChange: () => {} });
      await connectAll(holders, addresses);
      const secret = migrationSecret(key, migration);
      const catalog = await CatalogReader.create(secret);
      const manifest = await openManifest(catalog, holders, [name]);
      const reader = await FrameReader.create(secret, manifest.vms, CACHED_FRAMES);
      const opener = manifest.sealed ? await Opener.create(secret) : null;
      const device = new DeviceReader(options, holders, index, catalog, opener, reader);
      await device.refresh();
      return device;
    } catch (error) {
      holders?.end();
      index.close();
      throw error;
    }
  }

  /** Hears of everything that was flushed until now. @throws {AbdmError} PROTOCOL if what the nodes keep makes no sense. */
  async refresh(): Promise<void> {
    await connectAll(
      this.#holders,
      this.#index.nodes().map(({ address }) => address),
    );
    const up = [...this.#holders].filter(({ state }) => state === 'up');
    await this.#catalog.poll(up, ({ frameId, vm, pages, pfns }, holders) => {
      this.#places.set(
        frameId,
        holders.map((ref) => this.#holders.of(ref)),
      );
      if (vm !== this.#vm) return;
      for (let i = 0; i < pages; i++) {
        const pfn = pfns[i]!;
        this.#newest[pfn] = Math.max(this.#newest[pfn]!, frameId);
      }
    });
  }

  /**
   * Reads whole pages: `offset` and `bytes` are multiples of 4,096, but for the end of a VM that has half a page there.
   * @throws {AbdmError} OUT_OF_RANGE; FRAME_LOST if no node has a page or gives it as it was written.
   */
  read(offset: number, bytes: number): Promise<Uint8Array> {
    const read = this.#turn.then(() => this.#read(offset, bytes));
    this.#turn = read.catch(() => {});
    return read;
  }

  /** The nodes forget the device. */
  async drop(): Promise<void> {
    await this.#holders.drop();
    this.close();
  }

  /** Leaves; the device stays at the nodes as long as its lease lasts. */
  close(): void {
    this.#holders.end();
    this.#index.close();
  }

  async #read(offset: number, bytes: number): Promise<Uint8Array> {
    checkPages(offset, bytes, this.bytes);
    const out = new Uint8Array(bytes);
    for (let at = 0; at < bytes; at += PAGE_BYTES) {
      const pfn = (offset + at) / PAGE_BYTES;
      const id = this.#newest[pfn]!;
      if (id === 0) continue;
      const { frame } = await this.#frame(id);
      const slot = frame.pfns.indexOf(pfn);
      if (slot < 0 || frame.vm !== this.#vm) throw lost(this.#options.name, pfn, `frame ${id} does not hold it`);
      const content = await this.#content(frame.page(slot), pfn);
      if (content) out.set(content.subarray(0, bytes - at), at);
    }
    return out;
  }

  /** A page's bytes; null: zeros. */
  async #content(page: FramePage, pfn: number): Promise<Uint8Array | null> {
    if (page.kind === 'zero') return null;
    if (page.kind === 'bytes') return page.bytes;
    const { frame } = await this.#frame(page.frame);
    const content = page.slot < frame.pfns.length ? frame.page(page.slot) : null;
    if (content?.kind === 'bytes' && Buffer.compare(content.contentId, page.contentId) === 0) return content.bytes;
    throw lost(this.#options.name, pfn, `frame ${page.frame} does not hold what it should`);
  }

  async #frame(id: number): Promise<Cached> {
    const cached = this.#cache.get(id) ?? (await this.#fetch(id));
    this.#cache.delete(id);
    this.#cache.set(id, cached);
    return cached;
  }

  /** From one of its holders; a damaged one from another one. */
  async #fetch(id: number): Promise<Cached> {
    if (this.#reader.freeSlots === 0) {
      const [oldest, { slot }] = this.#cache.entries().next().value!;
      this.#cache.delete(oldest);
      slot.release();
    }
    const slot = this.#reader.acquire();
    const recorded = this.#places.get(id) ?? [];
    // A copy may have been made elsewhere when a holder died.
    const others = [...this.#holders].filter((holder) => !recorded.includes(holder));
    let why = new AbdmError('FRAME_LOST', `no node is known to have frame ${id}`);
    for (const holder of [...recorded, ...others]) {
      try {
        const bytes = await holder.get(id, slot.bytes);
        const opened = this.#opener ? this.#opener.open(id, slot.bytes.subarray(0, bytes)) : bytes;
        const frame = this.#reader.read(slot, opened);
        if (frame.id === id) return { slot, frame };
        why = new AbdmError('FRAME_MALFORMED', `${holder.address} gave frame ${frame.id} for frame ${id}`);
      } catch (cause) {
        why = asAbdmError(cause);
      }
    }
    slot.release();
    throw new AbdmError('FRAME_LOST', `frame ${id} of ${this.#options.name} cannot be had: ${why.message}`, {
      cause: why,
    });
  }
}

/** Connects to all nodes that can be reached, these and those that are known already. */
async function connectAll(holders: Holders, addresses: readonly string[]): Promise<void> {
  await Promise.allSettled(addresses.map((address) => holders.at(address)));
  await Promise.all([...holders].map((holder) => holder.settled()));
}

function lost(name: string, pfn: number, why: string): AbdmError {
  return new AbdmError('FRAME_LOST', `page ${pfn} of ${name} is lost: ${why}`);
}
