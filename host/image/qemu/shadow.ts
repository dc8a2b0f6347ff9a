// The memory of a guest as far as it has come: in chunks that are made when they are first written to, so that zeros cost nothing. (What a chunk has that
// was not written to costs nothing either: the system gives memory by the page, when it is touched.)

import { PAGE_BYTES } from '../../../bindings/abi.js';
import { bitmapFor, clearBit, hasBit, setBit } from '../../guest/bits.js';
import { imageError, reasonOf } from '../image.js';

const CHUNK_BITS = 14;
const CHUNK_PAGES = 1 << CHUNK_BITS;
const CHUNK_MASK = CHUNK_PAGES - 1;

export class Shadow {
  readonly #chunks: (Uint8Array | null)[];
  readonly #pages: number;
  /** Pages that may be something else than zeros. */
  readonly #written: Uint8Array;

  constructor(pages: number) {
    this.#pages = pages;
    this.#chunks = new Array(Math.ceil(pages / CHUNK_PAGES)).fill(null);
    this.#written = bitmapFor(pages);
  }

  /** Bytes of memory that it may take by now. */
  get chunkBytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + (chunk?.length ?? 0), 0);
  }

  /** The page becomes bytes[at, at + 4096). @throws {AbdmError} IMAGE if there is no memory for that. */
  write(pfn: number, bytes: Uint8Array, at: number): void {
    const chunk = this.#chunks[pfn >>> CHUNK_BITS] ?? this.#make(pfn >>> CHUNK_BITS);
    // A view for each page takes a fiftieth of what the copy takes; every way without one takes longer.
    chunk.set(bytes.subarray(at, at + PAGE_BYTES), (pfn & CHUNK_MASK) * PAGE_BYTES);
    setBit(this.#written, pfn);
  }

  zero(pfn: number): void {
    if (!hasBit(this.#written, pfn)) return;
    const from = (pfn & CHUNK_MASK) * PAGE_BYTES;
    this.#chunks[pfn >>> CHUNK_BITS]!.fill(0, from, from + PAGE_BYTES);
    clearBit(this.#written, pfn);
  }

  /** Copies pages to `memory`, at `offset`. */
  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    const end = pfn + pages;
    let to = offset;
    for (let page = pfn; page < end; ) {
      const chunk = this.#chunks[page >>> CHUNK_BITS];
      const from = page & CHUNK_MASK;
      const count = Math.min(end - page, CHUNK_PAGES - from);
      if (chunk) memory.set(chunk.subarray(from * PAGE_BYTES, (from + count) * PAGE_BYTES), to);
      else memory.fill(0, to, to + count * PAGE_BYTES);
      to += count * PAGE_BYTES;
      page += count;
    }
  }

  #make(number: number): Uint8Array {
    const pages = Math.min(CHUNK_PAGES, this.#pages - number * CHUNK_PAGES);
    try {
      const chunk = new Uint8Array(pages * PAGE_BYTES);
      this.#chunks[number] = chunk;
      return chunk;
    } catch (cause) {
      const what = `no memory for a copy of the guest's: ${reasonOf(cause)}`;
      throw imageError(what, 'this host needs as much free memory as the guest has', cause);
    }
  }
}
