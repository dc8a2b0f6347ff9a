// Which version of each page is wanted, and whether it is in place: the engine's page map (assembly/map.ts draws it), as the merger shows it.
//
// Of two frames with the same page the one with the higher id is the later, and stays, in whichever order they come. Whoever knows of frames before they come says
// so with `expect` and `discard`: what is older is then not put in place any more. Once a guest runs on a VM's pages (`freeze`), what is in place is never
// written again.

import { BATCH_PFNS_PTR, FRAME_PAGES, MAX_FRAME_ID, PAGE_BYTES } from './abi.js';
import type { Engine } from './engine.js';
import { AbdmError } from './errors.js';
import { SUPERSEDED, SUPERSEDED_IDS, SUPERSEDED_PAGES } from './merge-result.js';

/** A page that frame `frame` was to bring comes in a later one: it has one page less to bring. Must not call the merger. */
export type OnSuperseded = (frame: number) => void;

/** Where in the engine's memory lies what a page map needs. */
export interface PageMapPlaces {
  /** A u64 a page. */
  readonly wantedPtr: number;
  /** A bit a page. */
  readonly mergedPtr: number;
  /** Room for one page. */
  readonly pagePtr: number;
}

/** What is wanted of a gang's pages, and what is in place. `Merger` is one. */
export abstract class PageMap {
  /** @internal */
  protected readonly engine: Engine;
  /** @internal All of the engine's memory. */
  protected readonly view: DataView;
  /** @internal Room for one page, that belongs to nobody. */
  protected readonly pagePtr: number;
  /** @internal Pages of each VM. */
  protected readonly pages: readonly number[];
  readonly #mergedPtr: number;
  readonly #frozen = new Set<number>();
  /** The first page of each VM in the map. */
  readonly #firsts: readonly number[];

  protected constructor(engine: Engine, vms: readonly { pages: number }[], places: PageMapPlaces) {
    this.engine = engine;
    this.view = new DataView(engine.memory.buffer);
    this.pagePtr = places.pagePtr;
    this.#mergedPtr = places.mergedPtr;
    this.pages = vms.map(({ pages }) => pages);
    let first = 0;
    this.#firsts = this.pages.map((pages) => {
      first += pages;
      return first - pages;
    });
    engine.exports.mapInit(places.wantedPtr, places.mergedPtr);
    for (const [vm, pages] of this.pages.entries()) engine.exports.mapVm(vm, this.#firsts[vm]!, pages);
  }

  /** Every page of every VM is in place: the images are whole, as far as the frames merged so far say. */
  get complete(): boolean {
    return this.pages.every((pages, vm) => this.mergedPages(vm) === pages);
  }

  /** Pages of `vm` whose bytes are in place. */
  mergedPages(vm: number): number {
    const first = this.#firsts[vm]!;
    return this.engine.exports.bitmapCount(this.#mergedPtr, first, first + this.pages[vm]!);
  }

  /** True if the bytes of page `pfn` of `vm` are in place. */
  isMerged(vm: number, pfn: number): boolean {
    return this.engine.exports.bitmapTest(this.#mergedPtr, this.#firsts[vm]! + pfn) !== 0;
  }

  /** The first page of `vm` from `pfn` on whose bytes are not in place, or -1. */
  nextUnmerged(vm: number, pfn = 0): number {
    const first = this.#firsts[vm]!;
    const end = first + this.pages[vm]!;
    const found = this.engine.exports.bitmapNextUnset(this.#mergedPtr, first + pfn, end);
    return found === end ? -1 : found - first;
  }

  /**
   * Frame `id` has the first `pages` of `pfns`. What earlier frames have of them is not wanted any more, and does not count as in place; save where it is in
   * place and frozen. Returns how many of its pages are to come, and in no later frame. Throws OUT_OF_RANGE.
   */
  expect(id: number, vm: number, pfns: ArrayLike<number>, pages: number, onSuperseded: OnSuperseded): number {
    this.#checkVersion(id);
    if (!(pages <= FRAME_PAGES))
      throw new AbdmError('OUT_OF_RANGE', `frame ${id} has ${pages} pages: at most ${FRAME_PAGES} are allowed`);
    for (let i = 0; i < pages; i++) {
      this.#checkRange(vm, pfns[i]!, 1);
      this.view.setUint32(BATCH_PFNS_PTR + 4 * i, pfns[i]!, true);
    }
    const own = this.engine.exports.mapExpect(vm, id, pages);
    this.saySuperseded(onSuperseded);
    return own;
  }

  /**
   * Of the `pages` pages from `first` on those with a bit in `bitmap` (bit i is bit i & 7 of byte i >> 3) come in frames with the id `floor` or a higher one. What is
   * in place and frozen stays. Throws OUT_OF_RANGE.
   */
  discard(
    vm: number,
    first: number,
    pages: number,
    bitmap: Uint8Array,
    floor: number,
    onSuperseded: OnSuperseded,
  ): void {
    this.#checkVersion(floor);
    this.#eachPiece(vm, first, pages, bitmap, SUPERSEDED_PAGES, (from, count) => {
      this.engine.exports.mapDiscard(vm, from, count, this.pagePtr, floor);
      this.saySuperseded(onSuperseded);
    });
  }

  /** A guest runs on the pages of `vm` from now on: those in place are never written again. */
  freeze(vm: number): void {
    this.#checkRange(vm, 0, 0);
    this.engine.exports.mapFreeze(vm);
    this.#frozen.add(vm);
  }

  /** @internal A guest runs on its pages. */
  protected isFrozen(vm: number): boolean {
    return this.#frozen.has(vm);
  }

  /** The pages of `vm` with a bit in `bitmap` are in place from before. Throws OUT_OF_RANGE if the bitmap does not have a bit for each page. */
  adopt(vm: number, bitmap: Uint8Array): void {
    this.#eachPiece(vm, 0, this.pages[vm] ?? 0, bitmap, 8 * PAGE_BYTES, (from, count) =>
      this.engine.exports.mapAdopt(vm, from, count, this.pagePtr),
    );
  }

  /** The frame that is to bring page `pfn` of `vm`, or has: 0 if none is known. */
  newest(vm: number, pfn: number): number {
    this.#checkRange(vm, pfn, 1);
    return this.engine.exports.mapNewest(vm, pfn);
  }

  /** @internal What the last call to the engine said of other frames. */
  protected saySuperseded(onSuperseded: OnSuperseded): void {
    const count = this.view.getUint32(SUPERSEDED, true);
    for (let i = 0; i < count; i++) onSuperseded(this.view.getFloat64(SUPERSEDED_IDS + 8 * i, true));
  }

  /** Puts the bitmap at #pagePtr, piece by piece. */
  #eachPiece(
    vm: number,
    first: number,
    pages: number,
    bitmap: Uint8Array,
    atMost: number,
    each: (from: number, pages: number) => void,
  ): void {
    this.#checkRange(vm, first, pages);
    if (bitmap.byteLength * 8 < pages) {
      throw new AbdmError('OUT_OF_RANGE', `a bitmap of ${bitmap.byteLength} bytes for ${pages} pages`);
    }
    for (let at = 0; at < pages; at += atMost) {
      const count = Math.min(pages - at, atMost);
      this.engine.memory.set(bitmap.subarray(at / 8, Math.ceil((at + count) / 8)), this.pagePtr);
      each(first + at, count);
    }
  }

  #checkVersion(id: number): void {
    if (!(Number.isInteger(id) && id >= 1 && id <= MAX_FRAME_ID))
      throw new AbdmError('OUT_OF_RANGE', `there can be no frame ${id}`);
  }

  #checkRange(vm: number, pfn: number, pages: number): void {
    if (
      Number.isInteger(pfn) &&
      Number.isInteger(pages) &&
      pfn >= 0 &&
      pages >= 0 &&
      pfn + pages <= (this.pages[vm] ?? -1)
    )
      return;
    throw new AbdmError('OUT_OF_RANGE', `pages ${pfn} to ${pfn + pages - 1} of VM ${vm} are none of this migration's`);
  }
}
