// The merger: frames in, pages out.
//
//   const slot = merger.acquire();            // room for a frame, in the engine's memory
//   receive(..., slot.bytes);                 // fill it: no copy
//   merger.merge(slot, frameBytes, sink);     // checks it, decodes it, and hands its pages to the sink
//   slot.release();
//
// Nothing of a frame reaches the sink before the whole frame was checked and each page's content id recomputed. Knows nothing of sockets, files and
// guests: the sink does.
//
// Duplicates. A duplicate's content is in a frame that was divided earlier, but frames arrive in any order. If it is still to come, the page waits
// in a table, by frame, and is handed out when that frame is merged. If it came before, the sink is asked for it; a sink that no longer has those
// very bytes says so or is found out by the content id, and then the frame is `wanted` once more.
//
// Versions of a page, and what is in place: page-map.ts.

import {
  FRAME_PAGES,
  ID_BYTES,
  KEY_BYTES,
  MAX_FRAME_BYTES,
  MAX_GANG_PAGES,
  MAX_VMS,
  PAGE_BYTES,
  RESULT_PTR,
} from './abi.js';
import { createEngine, type Engine, MemoryPlan } from './engine.js';
import { AbdmError, frameError } from './errors.js';
import { ACTIONS, DELTAS, FRAME_ROOM_BYTES, KINDS, NAMES, PLACES, REFERENCES, sameId } from './merge-result.js';
import { requireInteger } from './options.js';
import { type OnSuperseded, PageMap, type PageMapPlaces } from './page-map.js';
import { rebuildFrame } from './rebuild.js';
import { MAX_SEALED_BYTES } from './sealed.js';
import { Slots } from './slots.js';
import { WaitingPages } from './waiting.js';

/** What a merger is made for: the key, and the images that it will merge. */
export interface MergerOptions {
  /** The migration's secret, 32 bytes, as the divider has it. */
  key: Uint8Array;
  /** Pages of each VM of the gang, at most 2^28 (1 TiB) together: the page map takes 8 bytes for each. */
  vms: readonly { pages: number }[];
  /** Frames that can be held at a time. Default 16. Each takes 514 KiB of memory: the frame, and its pages decoded. */
  slots?: number;
}

/** Where pages go. All calls are made from within `merge`, and must not call the merger; `memory` is the engine's, and the bytes in it stay until the slot's release. */
export interface PageSink {
  /** Pages `pfn` and following of `vm`: `bytes` (a multiple of 4,096) at `memory[offset]`. */
  write(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void;
  /** Pages `pfn` to `pfn + pages - 1` of `vm` are zero. */
  zero(vm: number, pfn: number, pages: number): void;
  /**
   * Puts page `pfn` of `vm`, which was written before, at `memory[offset]` and returns true; or returns false if it is not at hand, or a guest may have
   * written to it since. The merger verifies what it gets.
   */
  read(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean;
}

/** Room for a frame in the engine's memory, and for its seal while it is not opened yet, until `release`. */
export interface FrameSlot {
  readonly bytes: Uint8Array;
  /** Where `bytes` begins in the engine's memory. */
  readonly ptr: number;
  /** Gives the room back. Throws SLOT_STATE if it was given back before. */
  release(): void;
}

/** What a frame brought, in pages. */
export interface MergedFrame {
  readonly id: number;
  readonly vm: number;
  readonly pages: number;
  /** Duplicates that now wait for a frame still to come. */
  readonly waitingPages: number;
  /** The frames that its duplicates wait for: still to come, or to be merged once more. Each once. */
  readonly waitsFor: readonly number[];
}

/** A VM's pages by kind, as they were merged. */
export interface MergerCounts {
  zeroPages: number;
  duplicatePages: number;
  compressedPages: number;
  normalPages: number;
}

interface FramePlace {
  vm: number;
  base: number;
  deltas: Uint16Array | undefined;
}

const NO_FRAMES: readonly number[] = [];
const STALE = 0;
const WRITE = 1;
const ZERO = 2;

/** Merges frames, in whatever order they come, into the images of a gang. One engine and one memory each. */
export class Merger extends PageMap {
  /** By VM. */
  readonly counts: readonly MergerCounts[];
  /** Where a frame's pages are decoded. One place for all slots: it stays in the cache, and once `merge` returns nobody needs it. */
  readonly #decodedPtr: number;
  readonly #slots: Slots;
  readonly #waiting = new WaitingPages();
  /**
   * Frames merged so far, and where their pages went: the content of a duplicate that refers to one of them is not still to come. What of their own pages
   * is wanted, and not in place, waits.
   */
  readonly #merged = new Map<number, FramePlace>();
  readonly #wanted = new Set<number>();

  private constructor(
    engine: Engine,
    vms: readonly { pages: number }[],
    places: PageMapPlaces & { decodedPtr: number },
    slots: Slots,
  ) {
    super(engine, vms, places);
    this.#slots = slots;
    this.#decodedPtr = places.decodedPtr;
    this.counts = vms.map(() => ({ zeroPages: 0, duplicatePages: 0, compressedPages: 0, normalPages: 0 }));
  }

  /** Creates a merger with an engine and a memory of its own. Throws USAGE. */
  static async create({ key, vms, slots = 16 }: MergerOptions): Promise<Merger> {
    if (key.length !== KEY_BYTES) throw new AbdmError('USAGE', `the key has ${key.length} bytes: it needs 32`);
    requireInteger('vms', vms.length, 1, MAX_VMS);
    requireInteger('slots', slots, 1, 4096);
    for (const { pages } of vms) requireInteger('pages', pages, 0, MAX_GANG_PAGES);
    const pages = vms.reduce((sum, vm) => sum + vm.pages, 0);
    requireInteger('pages of all VMs', pages, 0, MAX_GANG_PAGES);

    const plan = new MemoryPlan();
    const wantedPtr = plan.reserve(pages * 8);
    const mergedPtr = plan.reserve(Math.ceil(pages / 8) + 16);
    const pagePtr = plan.reserve(PAGE_BYTES);
    const decodedPtr = plan.reserve(FRAME_PAGES * PAGE_BYTES);
    const slotsPtr = plan.reserve(slots * FRAME_ROOM_BYTES);
    const engine = await createEngine(plan);
    engine.memory.set(key, pagePtr);
    engine.exports.setKey(pagePtr);
    engine.memory.fill(0, pagePtr, pagePtr + KEY_BYTES);
    const places = { wantedPtr, mergedPtr, pagePtr, decodedPtr };
    return new Merger(engine, vms, places, new Slots('frame', slotsPtr, FRAME_ROOM_BYTES, slots));
  }

  /** Slots that `acquire` would still find. */
  get freeSlots(): number {
    return this.#slots.free;
  }

  /** Room for one frame. Throws NO_SLOT if all slots are held. */
  acquire(): FrameSlot {
    const slot = this.#slots.take();
    const bytes = this.engine.memory.subarray(slot.ptr, slot.ptr + MAX_SEALED_BYTES);
    return { bytes, ptr: slot.ptr, release: () => this.#slots.give(slot) };
  }

  /**
   * Merges the frame of `bytes` bytes in the slot. Throws FRAME_MALFORMED, FRAME_CHECKSUM, FRAME_TAG, OUT_OF_RANGE or CONTENT_MISMATCH, and
   * then nothing of the frame was merged; and whatever the sink throws. Merged again, a frame brings only what is not in place.
   */
  merge(slot: FrameSlot, bytes: number, sink: PageSink, onSuperseded?: OnSuperseded): MergedFrame {
    requireInteger('bytes', bytes, 0, MAX_FRAME_BYTES);
    const error = this.engine.exports.merge(slot.ptr, bytes, this.#decodedPtr);
    if (error !== 0) throw frameError(error, `a frame of ${bytes} bytes`);
    const view = this.view;
    const vm = view.getUint32(RESULT_PTR, true);
    const pages = view.getUint32(RESULT_PTR + 4, true);
    const id = view.getFloat64(RESULT_PTR + 8, true);
    const base = view.getFloat64(RESULT_PTR + 16, true);
    if (!this.#merged.has(id)) this.#count(this.counts[vm]!, pages);
    if (onSuperseded) this.saySuperseded(onSuperseded);
    this.#place(vm, base, pages, sink);
    const { waitingPages, waitsFor } = this.#resolve(id, vm, base, pages, sink);
    this.#merged.set(id, { vm, base, deltas: this.#gaps(pages) });
    this.#wanted.delete(id);
    this.#release(id, pages, sink);
    return { id, vm, pages, waitingPages, waitsFor };
  }

  /** Pages wait for what `frame` holds, which has not come yet, or has to come once more. */
  isAwaited(frame: number): boolean {
    return this.#waiting.has(frame, (vm, pfn, announcedBy) => this.engine.exports.mapWaits(vm, pfn, announcedBy) !== 0);
  }

  /** Page `pfn` of `vm` waits for what `frame` holds. */
  isAwaitedBy(vm: number, pfn: number, frame: number): boolean {
    let found = false;
    this.#waiting.each(frame, (otherVm, otherPfn, announcedBy) => {
      if (otherVm === vm && otherPfn === pfn) found ||= this.engine.exports.mapWaits(vm, pfn, announcedBy) !== 0;
    });
    return found;
  }

  /** The pages that wait for what `frame` holds, and the frame that each of them is to come with. `each` must not call the merger. */
  eachAwaiting(frame: number, each: (vm: number, pfn: number, announcedBy: number) => void): void {
    this.#waiting.each(frame, (vm, pfn, announcedBy) => {
      if (this.engine.exports.mapWaits(vm, pfn, announcedBy)) each(vm, pfn, announcedBy);
    });
  }

  /**
   * Merges a frame of which only `meta` is at hand, what stood before its payload, from pages that the sink has kept since it was merged once: by another
   * merger, before a crash. The slot is used for it. Throws as `merge` does; CONTENT_MISMATCH if the sink does not have those very pages: all that it holds, or of a
   * frozen VM those that are wanted of it and not in place.
   */
  restore(slot: FrameSlot, meta: Uint8Array, sink: PageSink): MergedFrame {
    const { memory } = this.engine;
    const has = (vm: number, pfn: number) => pfn < (this.pages[vm] ?? 0);
    const bytes = rebuildFrame(this.engine, slot.ptr, this.pagePtr, meta, {
      read: (vm, pfn, ptr) => has(vm, pfn) && sink.read(vm, pfn, memory, ptr),
      isDone: (vm, pfn, id) =>
        this.isFrozen(vm) && has(vm, pfn) && (this.isMerged(vm, pfn) || this.newest(vm, pfn) > id),
    });
    return this.merge(slot, bytes, sink);
  }

  /** Frames merged so far. */
  get frames(): number {
    return this.#merged.size;
  }

  /** Frames that were merged but must be merged once more, for pages that refer to what they hold. */
  get wanted(): ReadonlySet<number> {
    for (const frame of this.#wanted) if (!this.isAwaited(frame)) this.#wanted.delete(frame);
    return this.#wanted;
  }

  /** Pages that wait for the content of a frame. Those that came in another frame meanwhile are counted until theirs is merged, or asked about. */
  get waitingPages(): number {
    return this.#waiting.pages;
  }

  #count(counts: MergerCounts, pages: number): void {
    const { memory } = this.engine;
    for (let slot = 0; slot < pages; slot++) {
      if (memory[ACTIONS + slot] === STALE) continue;
      const kind = memory[KINDS + slot];
      if (kind === 0) counts.zeroPages++;
      else if (kind === 1) counts.duplicatePages++;
      else if (kind === 2) counts.compressedPages++;
      else counts.normalPages++;
    }
  }

  /** Hands out what the frame itself holds, in runs that follow each other both in the image and in memory. */
  #place(vm: number, base: number, pages: number, sink: PageSink): void {
    const { memory } = this.engine;
    let slot = 0;
    while (slot < pages) {
      const action = memory[ACTIONS + slot]!;
      const delta = this.#delta(slot);
      const ptr = this.#ptr(slot);
      let run = 1;
      if (action === WRITE || action === ZERO) {
        const step = action === WRITE ? PAGE_BYTES : 0;
        while (
          slot + run < pages &&
          memory[ACTIONS + slot + run] === action &&
          this.#delta(slot + run) === delta + run &&
          this.#ptr(slot + run) === ptr + run * step
        ) {
          run++;
        }
        if (action === WRITE) sink.write(vm, base + delta, memory, ptr, run * PAGE_BYTES);
        else sink.zero(vm, base + delta, run);
      }
      slot += run;
    }
  }

  /** Duplicates of content in other frames: from the sink if it came before, otherwise they wait. */
  #resolve(id: number, vm: number, base: number, pages: number, sink: PageSink) {
    const { memory } = this.engine;
    const waitsAlready = this.#merged.has(id);
    let waitingPages = 0;
    let waitsFor = NO_FRAMES as number[];
    for (let slot = 0; slot < pages; slot++) {
      if (memory[ACTIONS + slot]! <= ZERO) continue;
      const reference = this.view.getFloat64(REFERENCES + 8 * slot, true);
      const frame = Math.floor(reference / FRAME_PAGES);
      const from = reference % FRAME_PAGES;
      const pfn = base + this.#delta(slot);
      const name = this.view.getUint32(NAMES + 4 * slot, true);
      const merged = this.#merged.get(frame);
      if (!waitsAlready) {
        if (merged && this.#fromSink(merged, from, name, sink)) {
          this.#settle(vm, pfn, id, this.pagePtr, sink);
          continue;
        }
        if (merged) this.#wanted.add(frame);
        this.#waiting.add(frame, from, vm, pfn, id, memory.subarray(name, name + ID_BYTES));
      }
      if (!merged) waitingPages++;
      if (waitsFor.length === 0) waitsFor = [frame];
      else if (waitsFor.at(-1) !== frame && !waitsFor.includes(frame)) waitsFor.push(frame);
    }
    return { waitingPages, waitsFor };
  }

  #fromSink({ vm, base, deltas }: FramePlace, slot: number, namePtr: number, sink: PageSink): boolean {
    const pfn = base + (deltas ? (deltas[slot] ?? Number.POSITIVE_INFINITY) : slot);
    if (!(pfn < this.pages[vm]!) || !sink.read(vm, pfn, this.engine.memory, this.pagePtr)) return false;
    // hasContent leaves RESULT_PTR alone: the walk over the frame's slots goes on afterwards.
    return this.engine.exports.hasContent(this.pagePtr, namePtr) !== 0;
  }

  /** The frame's page numbers relative to its first; undefined if they follow each other. */
  #gaps(pages: number): Uint16Array | undefined {
    if (this.#delta(pages - 1) === pages - 1) return undefined;
    return Uint16Array.from({ length: pages }, (_, slot) => this.#delta(slot));
  }

  /** Hands out the pages that have waited for this frame. */
  #release(id: number, pages: number, sink: PageSink): void {
    const { memory } = this.engine;
    this.#waiting.take(id, (slot, vm, pfn, announcedBy, name) => {
      const ptr = slot < pages ? this.#ptr(slot) : 0;
      const own = slot < pages ? this.view.getUint32(NAMES + 4 * slot, true) : 0;
      if (ptr === 0 || memory[KINDS + slot]! < 2 || !sameId(memory, own, name)) {
        throw new AbdmError(
          'CONTENT_MISMATCH',
          `page ${pfn} of VM ${vm} refers to slot ${slot} of frame ${id}, which does not hold its content`,
        );
      }
      this.#settle(vm, pfn, announcedBy, ptr, sink);
    });
  }

  #settle(vm: number, pfn: number, id: number, ptr: number, sink: PageSink): void {
    if (this.engine.exports.settle(vm, pfn, id)) sink.write(vm, pfn, this.engine.memory, ptr, PAGE_BYTES);
  }

  #delta(slot: number): number {
    return this.view.getUint32(DELTAS + 4 * slot, true);
  }

  #ptr(slot: number): number {
    return this.view.getUint32(PLACES + 4 * slot, true);
  }
}
