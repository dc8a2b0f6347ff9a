// Merge, from npm packages: the same job as ours. Checksum, LZ4, every page's name recomputed, duplicates from where their content was merged
// to, and a bitmap of what is in place.
import { FRAME_PAGES, PAGE_BYTES } from 'abdm';
import type { Composition } from './compositions.js';
import {
  BASE,
  BYTES,
  CHECKSUM,
  DUPLICATE,
  type FrameRoom,
  ID,
  LZ4,
  MAGIC,
  NAMES,
  PAGES,
  PAYLOAD_BYTE,
  RAW,
  REFERENCES,
  SUMMED_BYTE,
  TABLE,
  ZERO,
} from './layout.js';

export class ComposedMerger {
  /** Bit i of byte i >> 3: page i is in place. */
  readonly merged: Uint8Array;
  /** First page of each frame. */
  readonly #bases = new Map<number, number>();
  readonly #sum = new Uint32Array(2);

  /** Page p goes to `image` at p * 4096, modulo its length: who measures need not keep all pages. */
  constructor(
    readonly composition: Composition,
    pages: number,
    readonly image: Buffer,
  ) {
    this.merged = new Uint8Array(Math.ceil(pages / 8));
  }

  /** Merges the frame. Returns its pages. Throws if anything is wrong with it. */
  merge({ bytes, words }: FrameRoom): number {
    const { composition } = this;
    const end = words[BYTES]!;
    const pages = words[PAGES]!;
    if (words[0] !== MAGIC || end < PAYLOAD_BYTE || end > bytes.length || pages > FRAME_PAGES)
      throw new Error('no frame');
    composition.checksum(bytes.subarray(SUMMED_BYTE, end), this.#sum, 0);
    if (words[CHECKSUM] !== this.#sum[0] || words[CHECKSUM + 1] !== this.#sum[1]) throw new Error('checksum');
    const base = words[BASE]!;
    this.#bases.set(words[ID]!, base);
    let at = PAYLOAD_BYTE;
    for (let slot = 0; slot < pages; slot++) {
      const entry = words[TABLE + 2 * slot]!;
      const length = words[TABLE + 2 * slot + 1]!;
      if (at + length > end) throw new Error('length');
      const pfn = base + (entry & 0xffff);
      this.#place(entry >>> 16, slot, bytes.subarray(at, at + length), pfn, words);
      at += length;
      this.merged[pfn >> 3] = this.merged[pfn >> 3]! | (1 << (pfn & 7));
    }
    return pages;
  }

  #place(kind: number, slot: number, content: Buffer, pfn: number, words: Uint32Array): void {
    if (kind === ZERO) return; // The image is zero where nothing was written.
    const to = (pfn * PAGE_BYTES) % this.image.length;
    let page: Uint8Array = content;
    if (kind === DUPLICATE) {
      const reference = words[REFERENCES + slot]!;
      const base = this.#bases.get(Math.floor(reference / FRAME_PAGES));
      if (base === undefined) throw new Error('a duplicate of what is not here');
      const from = ((base + (reference % FRAME_PAGES)) * PAGE_BYTES) % this.image.length;
      page = this.image.subarray(from, from + PAGE_BYTES);
    } else if (kind === LZ4) page = this.composition.decompress(content);
    else if (kind !== RAW) throw new Error('kind');
    if (page.length !== PAGE_BYTES) throw new Error('length');
    if (!this.composition.hasName(page as Buffer, words, NAMES + 4 * slot)) throw new Error('content');
    this.image.set(page, to);
  }
}
