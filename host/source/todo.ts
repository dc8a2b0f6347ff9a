// Which pages of a VM still have to be sent, and where to go on: a bit a page, and a cursor that goes round. A page that somebody waits for moves the
// cursor, so that what lies behind it is sent next.

import { PAGE_BYTES } from '../../bindings/abi.js';
import type { ImageSource } from '../image/image.js';

/** Some pages of an image, ascending: `pages` of them from `base` on, or as far from it as `deltas` says. */
export interface Pages {
  readonly base: number;
  readonly pages: number;
  readonly deltas: Uint16Array | undefined;
}

/** The page table of a frame has so many bits for a page's distance from the first. */
const MAX_DELTA = 0xffff;

export class Todo {
  readonly pages: number;
  readonly #words: Uint32Array<ArrayBuffer>;
  #count = 0;
  #cursor = 0;

  constructor(pages: number) {
    this.pages = pages;
    this.#words = new Uint32Array(Math.ceil(pages / 32));
  }

  /** How many there are. */
  get count(): number {
    return this.#count;
  }

  /** Bit i & 7 of byte i >> 3: page i. */
  get bitmap(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#words.buffer);
  }

  has(pfn: number): boolean {
    return (this.#words[pfn >>> 5]! & (1 << (pfn & 31))) !== 0;
  }

  add(pfn: number): void {
    if (this.has(pfn)) return;
    this.#words[pfn >>> 5]! |= 1 << (pfn & 31);
    this.#count++;
  }

  /** False if it was not among them. */
  delete(pfn: number): boolean {
    if (!this.has(pfn)) return false;
    this.#clear(pfn);
    return true;
  }

  /** All pages that are set in `bitmap`, which is as long as ours. Returns how many those are. */
  addBitmap(bitmap: Uint8Array<ArrayBuffer>): number {
    const words = new Uint32Array(bitmap.buffer, bitmap.byteOffset, this.#words.length);
    let given = 0;
    for (let i = 0; i < words.length; i++) {
      const more = words[i]! & this.#within(i);
      if (more === 0) continue;
      const old = this.#words[i]!;
      given += bits(more);
      this.#count += bits(more & ~old);
      this.#words[i] = old | more;
    }
    return given;
  }

  addAll(): void {
    for (let i = 0; i < this.#words.length; i++) this.#words[i] = this.#within(i);
    this.#count = this.pages;
  }

  clear(): void {
    this.#words.fill(0);
    this.#count = 0;
  }

  /** The next are those from `pfn` on. */
  moveTo(pfn: number): void {
    this.#cursor = pfn < this.pages ? pfn : 0;
  }

  /** Takes the next pages, `most` at most, as many as one frame can hold; null if there are none. */
  take(most: number): Pages | null {
    if (this.#count === 0) return null;
    const next = this.#next(this.#cursor, this.pages);
    const base = next < this.pages ? next : this.#next(0, this.pages);
    const taken = this.#collect(base, base + MAX_DELTA + 1, most)!;
    this.moveTo(base + (taken.deltas?.at(-1) ?? taken.pages - 1) + 1);
    return taken;
  }

  /** Takes all that are among the `pages` pages from `base` on; null if none is. */
  takeWithin(base: number, pages: number): Pages | null {
    return this.#collect(base, base + pages, pages);
  }

  #collect(from: number, to: number, most: number): Pages | null {
    const end = Math.min(to, this.pages);
    const base = this.#next(from, end);
    if (base === end) return null;
    const deltas = new Uint16Array(most);
    let pages = 0;
    for (let pfn = base; pfn < end && pages < most; pfn = this.#next(pfn + 1, end)) {
      this.#clear(pfn);
      deltas[pages++] = pfn - base;
    }
    const isRun = deltas[pages - 1] === pages - 1;
    return { base, pages, deltas: isRun ? undefined : deltas.subarray(0, pages) };
  }

  #clear(pfn: number): void {
    this.#words[pfn >>> 5]! &= ~(1 << (pfn & 31));
    this.#count--;
  }

  /** The bits of word `i` that are pages. */
  #within(i: number): number {
    const left = this.pages - 32 * i;
    return left >= 32 ? 0xffffffff : 2 ** left - 1;
  }

  /** The first page in [from, to) that is set, or `to`. */
  #next(from: number, to: number): number {
    if (from >= to) return to;
    let i = from >>> 5;
    let word = this.#words[i]! & (0xffffffff << (from & 31));
    const last = (to - 1) >>> 5;
    while (word === 0 && i < last) word = this.#words[++i]!;
    if (word === 0) return to;
    return Math.min(to, 32 * i + 31 - Math.clz32(word & -word));
  }
}

/** Reads pages into `memory`, one behind the other; what follows each other is read at once. */
export function readPages(image: ImageSource, { base, pages, deltas }: Pages, memory: Uint8Array): void {
  if (!deltas) return image.read(base, pages, memory, 0);
  for (let i = 0, end = 1; i < pages; i = end, end++) {
    while (end < pages && deltas[end] === deltas[end - 1]! + 1) end++;
    image.read(base + deltas[i]!, end - i, memory, i * PAGE_BYTES);
  }
}

/** Set bits of a word. */
function bits(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return (((x + (x >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
