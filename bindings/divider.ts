// The divider: pages in, frames out.
//
//   const batch = divider.acquire();          // room for pages, in the engine's memory
//   read(..., batch.bytes);                   // fill it: no copy
//   for (const frame of divider.divide(batch, { vm: 0, base: pfn, pages: 64 })) {
//     socket.write(frame.bytes, ...);         // a view over the engine's memory: no copy
//     ... frame.release();                    // when the bytes are safe elsewhere
//   }
//   batch.release();                          // may be filled again as soon as divide has returned
//
// Knows nothing of sockets and of where pages come from.

import {
  BATCH_PAGES,
  BATCH_PFNS_PTR,
  DEDUP_BUCKET_BYTES,
  DEDUP_WAYS,
  FRAME_PAGES,
  frameBound,
  KEY_BYTES,
  MAX_VMS,
  PAGE_BYTES,
  RESULT_PTR,
} from './abi.js';
import { createEngine, type Engine, MemoryPlan } from './engine.js';
import { AbdmError } from './errors.js';
import { requireInteger } from './options.js';
import { PaysOnLink } from './pays.js';
import { referencesOf } from './references.js';
import { type Slot, Slots } from './slots.js';

/**
 * How pages travel. `none`: as they are. `lz4`: compressed, and what pages of a frame have in common is sent once. `high`: a twelfth smaller and more,
 * divided at a third of the speed and merged as fast. It pays on links that carry less than about 75 MB/s.
 */
export type Compression = 'none' | 'lz4' | 'high';

/** What a divider is made for: the key, and sizes that hold as long as it lives. */
export interface DividerOptions {
  /** The migration's secret, 32 random bytes: keys the content ids and the frames' tags. The merger needs the same. */
  key: Uint8Array;
  /** Batches that can be held at a time. Default 2: one is filled while the other is divided. */
  batches?: number;
  /** Pages in a batch, 1 to 256. Default 64: one frame. */
  batchPages?: number;
  /** Batches whose frames can be held until they are released. Default 32. Each takes about batchPages x 4.1 KiB of memory. */
  slots?: number;
  /** Contents that the deduplication table can remember; beyond that old ones are forgotten. Default 1,310,720 (5 GiB of pages, 32 MiB). */
  dedupEntries?: number;
  /** How pages travel. Default lz4. */
  compress?: Compression;
  /** With `compress: 'lz4'` only: from 1 on, faster and larger as it grows. Default 1. */
  acceleration?: number;
  /**
   * What the link carries, in bytes a second: pages are compressed only while that gets them delivered sooner. Default: always, as on a link that
   * is slower than this core compresses. The engine is warmed up for it, which takes about 20 ms.
   */
  linkBytesPerS?: number;
  /** Without content ids nothing is deduplicated and the merger cannot verify pages, only frames' checksums. Default true. */
  contentIds?: boolean;
}

/** Which pages a batch holds. */
export interface BatchPages {
  /** VM within the gang, 0 to 63. */
  vm: number;
  /** Page number of the first page. */
  base: number;
  pages: number;
  /** Page numbers relative to `base`, ascending, if the pages do not follow each other. */
  deltas?: ArrayLike<number>;
}

/** How a batch is divided where it matters who keeps its frames. */
export interface DivideOptions {
  /** What only frames hold that `setUnfetchable` was told of is not what a page is a duplicate of. */
  fetchableOnly?: boolean;
  /** No page is a duplicate, and no page divided later is one of these. */
  alone?: boolean;
}

/** Room for pages in the engine's memory, until `release`. */
export interface Batch {
  readonly bytes: Uint8Array;
  /** Where `bytes` begins in the engine's memory. */
  readonly ptr: number;
  /** Gives the room back; it may then be acquired again. Throws SLOT_STATE if it was given back before. */
  release(): void;
}

/** A frame in the engine's memory. `bytes` stays as it is until `release`. */
export interface DividedFrame {
  readonly id: number;
  readonly vm: number;
  /** Page number of its first page. */
  readonly base: number;
  readonly pages: number;
  /** Page numbers relative to `base`; undefined if the pages follow each other. */
  readonly deltas: Uint16Array | undefined;
  readonly bytes: Uint8Array;
  /** The other frames that hold the content of its duplicates, by their ids. */
  readonly references: readonly number[];
  /** Gives the frame's bytes back, as soon as they are safe elsewhere. Throws SLOT_STATE if they were given back before. */
  release(): void;
}

/** Pages by kind since the divider was created, and what became of them. */
export interface DividerCounts {
  zeroPages: number;
  duplicatePages: number;
  compressedPages: number;
  normalPages: number;
  frames: number;
  frameBytes: number;
}

const WARM_UP_PAGES = 4096;

/** What `divide` takes for an acceleration. */
const HIGH_RATIO = 0;

/** What `divide` does with content ids (abi.ts). */
const NAMELESS = 0;
const DEDUPLICATED = 1;
const NAMED = 2;
const FETCHABLE = 3;

/** Frames that may be known to be fetchable, 256 GiB of pages in frames of 64: those with higher ids count as unfetchable. */
const FETCHABLE_FRAMES = 2 ** 20;

type FullOptions = Required<Omit<DividerOptions, 'linkBytesPerS'>> & Pick<DividerOptions, 'linkBytesPerS'>;

/** Where in the engine's memory lies what a divider needs. */
interface Places {
  readonly tablePtr: number;
  readonly tableBuckets: number;
  /** A bit a frame. */
  readonly unfetchablePtr: number;
  readonly batchesPtr: number;
  readonly framesPtr: number;
  /** Room for a frame's pages one behind the other; 0 if they are not compressed. */
  readonly windowPtr: number;
}

const COMPRESSIONS: readonly Compression[] = ['none', 'lz4', 'high'];

/** Divides batches of pages into frames: finds zero pages and duplicates, compresses the rest. One engine and one memory each. */
export class Divider {
  readonly counts: DividerCounts = {
    zeroPages: 0,
    duplicatePages: 0,
    compressedPages: 0,
    normalPages: 0,
    frames: 0,
    frameBytes: 0,
  };
  readonly batchPages: number;
  readonly #engine: Engine;
  readonly #view: DataView;
  readonly #compress: Compression;
  readonly #acceleration: number;
  readonly #pays: PaysOnLink | null;
  readonly #naming: number;
  readonly #places: Places;
  readonly #batches: Slots;
  readonly #frames: Slots;
  #nextId = 1;
  /** Waits of `ready`, resolved one a release. */
  readonly #waiting: (() => void)[] = [];

  private constructor(engine: Engine, options: FullOptions, places: Places) {
    this.#engine = engine;
    this.#view = new DataView(engine.memory.buffer);
    this.#compress = options.compress;
    this.#places = places;
    this.#acceleration = options.compress === 'high' ? HIGH_RATIO : options.acceleration;
    this.#pays = options.linkBytesPerS === undefined ? null : new PaysOnLink(options.linkBytesPerS);
    this.#naming = options.contentIds ? DEDUPLICATED : NAMELESS;
    this.batchPages = options.batchPages;
    this.#batches = new Slots('batch', places.batchesPtr, options.batchPages * PAGE_BYTES, options.batches);
    this.#frames = new Slots('frame', places.framesPtr, slotBytes(options.batchPages), options.slots);
    engine.exports.divideInit(places.unfetchablePtr, FETCHABLE_FRAMES);
    engine.exports.dedupInit(places.tablePtr, places.tableBuckets);
  }

  /** Creates a divider with an engine and a memory of its own. Throws USAGE. */
  static async create(options: DividerOptions): Promise<Divider> {
    const full: FullOptions = {
      batches: 2,
      batchPages: FRAME_PAGES,
      slots: 32,
      dedupEntries: 1_310_720,
      compress: 'lz4',
      acceleration: 1,
      contentIds: true,
      ...options,
    };
    if (full.key.length !== KEY_BYTES)
      throw new AbdmError('USAGE', `the key has ${full.key.length} bytes: it needs 32`);
    requireInteger('batches', full.batches, 1, 1024);
    requireInteger('batchPages', full.batchPages, 1, BATCH_PAGES);
    requireInteger('slots', full.slots, 1, 8192);
    requireInteger('dedupEntries', full.dedupEntries, 1, 2 ** 27);
    if (!COMPRESSIONS.includes(full.compress)) {
      throw new AbdmError('USAGE', `compress is ${full.compress}: it must be one of ${COMPRESSIONS.join(', ')}`);
    }
    requireInteger('acceleration', full.acceleration, 1, 65_537);
    if (options.acceleration !== undefined && full.compress !== 'lz4') {
      throw new AbdmError('USAGE', `acceleration is of no use with compress: '${full.compress}'`);
    }
    if (full.linkBytesPerS !== undefined && !(full.linkBytesPerS > 0)) {
      throw new AbdmError('USAGE', `linkBytesPerS is ${full.linkBytesPerS}: it must be above 0`);
    }

    const plan = new MemoryPlan();
    const buckets = 2 ** Math.ceil(Math.log2(full.dedupEntries / DEDUP_WAYS));
    const tableBuckets = full.contentIds ? Math.max(1, buckets) : 1;
    const tablePtr = plan.reserve(tableBuckets * DEDUP_BUCKET_BYTES);
    const unfetchablePtr = plan.reserve(FETCHABLE_FRAMES / 8);
    const batchesPtr = plan.reserve(full.batches * full.batchPages * PAGE_BYTES);
    const framesPtr = plan.reserve(full.slots * slotBytes(full.batchPages));
    const windowPtr = full.compress !== 'none' ? plan.reserve(FRAME_PAGES * PAGE_BYTES) : 0;
    const engine = await createEngine(plan);
    engine.memory.set(full.key, batchesPtr);
    engine.exports.setKey(batchesPtr);
    engine.memory.fill(0, batchesPtr, batchesPtr + KEY_BYTES);
    const places = { tablePtr, tableBuckets, unfetchablePtr, batchesPtr, framesPtr, windowPtr };
    const divider = new Divider(engine, full, places);
    if (full.linkBytesPerS !== undefined) {
      divider.#warmUp();
      divider.forget();
    }
    return divider;
  }

  /**
   * Divides made-up pages until the engine runs as fast as it will: what its first batches take says nothing of what compression costs. About 20 ms.
   */
  #warmUp(): void {
    const batch = this.acquire();
    const slot = this.#frames.take();
    for (let i = 0; i < batch.bytes.length; i++) batch.bytes[i] = ((i * i) >> 7) & (i >> 9);
    this.#writePfns({ vm: 0, base: 0, pages: this.batchPages });
    for (let page = 1; page <= WARM_UP_PAGES; page += this.batchPages) {
      // A number of its own makes each page new: a duplicate would not be compressed.
      for (let i = 0; i < this.batchPages; i++) this.#view.setUint32(batch.ptr + i * PAGE_BYTES, page + i, true);
      this.#callDivide(
        batch,
        { vm: 0, base: 0, pages: this.batchPages },
        this.#nextId,
        slot,
        BATCH_PAGES,
        this.#naming,
      );
    }
    batch.bytes.fill(0);
    this.#frames.give(slot);
    batch.release();
  }

  #callDivide(
    batch: Batch,
    { pages, vm, base }: BatchPages,
    id: number,
    slot: Slot,
    tries: number,
    naming: number,
  ): number {
    return this.#engine.exports.divide(
      batch.ptr,
      pages,
      vm,
      base,
      id,
      slot.ptr,
      this.#frames.bytes,
      this.#acceleration,
      tries,
      naming,
      this.#places.windowPtr,
    );
  }

  /** Room for `batchPages` pages. Throws NO_SLOT if all batches are held. */
  acquire(): Batch {
    const slot = this.#batches.take();
    const bytes = this.#engine.memory.subarray(slot.ptr, slot.ptr + this.batchPages * PAGE_BYTES);
    return { bytes, ptr: slot.ptr, release: () => this.#batches.give(slot) };
  }

  /** Resolves as soon as `divide` finds a slot: the frames of some batch have all been released. */
  async ready(): Promise<void> {
    while (this.#frames.free === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Slots that `divide` would still find. */
  get freeSlots(): number {
    return this.#frames.free;
  }

  /** Divides a batch. Throws NO_SLOT if no slot is free (`ready` tells when), USAGE if the pages are impossible. */
  divide(batch: Batch, pages: BatchPages, options: DivideOptions = {}): DividedFrame[] {
    const tries = this.#compress === 'none' ? 0 : Math.min(this.#pays?.next() ?? BATCH_PAGES, BATCH_PAGES);
    const startedMs = performance.now();
    const { frames, release } = this.#fillSlot(batch, pages, this.#nextId, tries, this.#namingFor(options));
    this.#count(frames, tries, performance.now() - startedMs);
    return Array.from({ length: frames }, (_, i) => {
      const frame = this.#frame(i, this.#nextId++, pages, release);
      this.counts.frameBytes += frame.bytes.length;
      return frame;
    });
  }

  /**
   * Makes frame `id` once more, of the pages that it had, which must not have changed since: for when its bytes were lost. They need not be the same
   * now, since no page in it is a duplicate; but every page has the slot that it had, so that duplicates which refer to it still do. Throws as
   * `divide` does, and counts nothing.
   */
  divideAgain(batch: Batch, pages: BatchPages, id: number): DividedFrame {
    requireInteger('id', id, 1, this.#nextId - 1);
    requireInteger('pages', pages.pages, 1, FRAME_PAGES);
    const tries = this.#compress === 'none' ? 0 : BATCH_PAGES;
    const { frames, release } = this.#fillSlot(batch, pages, id, tries, this.#namingFor({ alone: true }));
    if (frames === 1) return this.#frame(0, id, pages, release);
    for (let i = 0; i < frames; i++) release();
    throw new AbdmError('USAGE', `${pages.pages} pages that lie too far apart to have been one frame`);
  }

  /** Nobody will be able to fetch frame `id`, as soon as it is where it is going: `fetchableOnly` looks past what it holds. */
  setUnfetchable(id: number): void {
    requireInteger('id', id, 1, this.#nextId - 1);
    if (id < FETCHABLE_FRAMES) this.#engine.exports.bitmapSet(this.#places.unfetchablePtr, id);
  }

  /** Nothing that left so far is referred to again. */
  forget(): void {
    this.#engine.exports.dedupClear();
  }

  #namingFor({ fetchableOnly = false, alone = false }: DivideOptions): number {
    if (this.#naming === NAMELESS) return NAMELESS;
    if (alone) return NAMED;
    return fetchableOnly ? FETCHABLE : DEDUPLICATED;
  }

  /** Divides into a slot of its own, which is free again when `release` was called for each of its frames. */
  #fillSlot(batch: Batch, pages: BatchPages, id: number, tries: number, naming: number) {
    this.#writePfns(pages);
    const slot = this.#frames.take();
    const frames = this.#callDivide(batch, pages, id, slot, tries, naming);
    if (frames < 0) {
      this.#frames.give(slot);
      throw new AbdmError(
        'USAGE',
        `${pages.pages} pages with gaps between them may need more frames than a slot holds`,
      );
    }
    let held = frames;
    const release = () => {
      if (--held > 0) return;
      this.#frames.give(slot);
      this.#waiting.shift()?.();
    };
    return { frames, release };
  }

  #writePfns({ vm, base, pages, deltas }: BatchPages): void {
    requireInteger('vm', vm, 0, MAX_VMS - 1);
    requireInteger('base', base, 0, Number.MAX_SAFE_INTEGER - 2 ** 32);
    requireInteger('pages', pages, 1, this.batchPages);
    let previous = -1;
    for (let i = 0; i < pages; i++) {
      const delta = deltas ? deltas[i]! : i;
      if (!(delta > previous && delta < 2 ** 31))
        throw new AbdmError('USAGE', 'deltas must be ascending and below 2^31');
      previous = delta;
      this.#view.setUint32(BATCH_PFNS_PTR + 4 * i, delta, true);
    }
  }

  #count(frames: number, tries: number, ms: number): void {
    const view = this.#view;
    const compressed = view.getUint32(RESULT_PTR + 12, true);
    const normal = view.getUint32(RESULT_PTR + 16, true);
    this.counts.zeroPages += view.getUint32(RESULT_PTR + 4, true);
    this.counts.duplicatePages += view.getUint32(RESULT_PTR + 8, true);
    this.counts.compressedPages += compressed;
    this.counts.normalPages += normal;
    this.counts.frames += frames;
    const sent = compressed + normal;
    this.#pays?.learn(sent, Math.min(tries, sent), view.getUint32(RESULT_PTR + 20, true), ms);
  }

  #frame(index: number, id: number, batch: BatchPages, releaseSlot: () => void): DividedFrame {
    const record = RESULT_PTR + 24 + 16 * index;
    const ptr = this.#view.getUint32(record, true);
    const bytes = this.#view.getUint32(record + 4, true);
    const first = this.#view.getUint32(record + 8, true);
    const pages = this.#view.getUint32(record + 12, true);
    const firstDelta = batch.deltas ? batch.deltas[first]! : first;
    const frame = this.#engine.memory.subarray(ptr, ptr + bytes);
    let released = false;
    return {
      id,
      vm: batch.vm,
      base: batch.base + firstDelta,
      pages,
      deltas: batch.deltas
        ? Uint16Array.from({ length: pages }, (_, i) => batch.deltas![first + i]! - firstDelta)
        : undefined,
      bytes: frame,
      references: referencesOf(frame, id),
      release() {
        if (released) throw new AbdmError('SLOT_STATE', 'this frame was released before');
        released = true;
        releaseSlot();
      },
    };
  }
}

/** A slot holds the frames of a batch, each 16-byte aligned; with gaps between pfns there may be more frames than batchPages / 64. */
function slotBytes(batchPages: number): number {
  const frames = Math.ceil(batchPages / FRAME_PAGES) + 1;
  return batchPages * (frameBound(2) - frameBound(1)) + frames * (frameBound(0) + 16);
}
