// The composed peers' frame. As ours it holds up to 64 pages, a table, names, references and a checksum; with tables of fixed size, which is
// quicker to write. All in u32 words of the machine's order, so that a Uint32Array writes it.
//
//   word  0   magic | bytes of the frame | pages | frame id | pfn of the first page | 0 | checksum, 2 words: over all that follows
//         8   table       64 x { pfn - first | kind << 16, bytes }
//       136   names       64 x 4
//       392   references  64 x where a duplicate's content is: frame id * 64 + slot
//   byte 1824 payload
import { FRAME_PAGES, PAGE_BYTES } from 'abdm';

export const MAGIC = 0x64736f63;
export const BYTES = 1;
export const PAGES = 2;
export const ID = 3;
export const BASE = 4;
export const CHECKSUM = 6;
export const TABLE = 8;
export const NAMES = TABLE + 2 * FRAME_PAGES;
export const REFERENCES = NAMES + 4 * FRAME_PAGES;
export const SUMMED_BYTE = 4 * TABLE;
export const PAYLOAD_BYTE = 4 * (REFERENCES + FRAME_PAGES);

export const ZERO = 0;
export const DUPLICATE = 1;
export const LZ4 = 2;
export const RAW = 3;

/** A frame's room: memory of its own, so that words and bytes are views of the same. */
export class FrameRoom {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  constructor() {
    const room = new ArrayBuffer(PAYLOAD_BYTE + FRAME_PAGES * PAGE_BYTES);
    this.bytes = Buffer.from(room);
    this.words = new Uint32Array(room);
  }
}
