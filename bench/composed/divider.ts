// Divide, from npm packages: the same job as ours on the same pages, a frame at a time.
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

/** As ours: a block that saves less is not worth decoding. */
const MAX_BLOCK_BYTES = PAGE_BYTES - 128;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export class ComposedDivider {
  #nextId = 1;
  constructor(readonly composition: Composition) {}

  /** Divides up to 64 pages from `views[first]` on into one frame. Returns its length. */
  divide(views: readonly Buffer[], first: number, pages: number, base: number, room: FrameRoom): number {
    const { composition } = this;
    const { bytes, words } = room;
    const id = this.#nextId++;
    let at = PAYLOAD_BYTE;
    for (let slot = 0; slot < pages; slot++) {
      const page = views[first + slot]!;
      let kind = ZERO;
      let length = 0;
      if (Buffer.compare(page, ZERO_PAGE) !== 0) {
        const reference = composition.lookUp(page, words, NAMES + 4 * slot, id * FRAME_PAGES + slot);
        if (reference !== 0) {
          kind = DUPLICATE;
          words[REFERENCES + slot] = reference;
        } else {
          const block = composition.compress(page);
          kind = block.length <= MAX_BLOCK_BYTES ? LZ4 : RAW;
          const content = kind === LZ4 ? block : page;
          length = content.length;
          bytes.set(content, at);
          at += length;
        }
      }
      words[TABLE + 2 * slot] = slot | (kind << 16);
      words[TABLE + 2 * slot + 1] = length;
    }
    words[0] = MAGIC;
    words[BYTES] = at;
    words[PAGES] = pages;
    words[ID] = id;
    words[BASE] = base;
    composition.checksum(bytes.subarray(SUMMED_BYTE, at), words, CHECKSUM);
    return at;
  }
}
