// Page contents by number, so that a model of an image is a row of numbers. 0 is zeros; what is none of these is -1.
import { PAGE_BYTES } from 'abdm';
import { seeded } from '../engine.js';
import { page } from '../pages.js';

export class Contents {
  readonly #pages: Uint8Array[] = [new Uint8Array(PAGE_BYTES)];

  constructor(count: number) {
    const random = seeded(count);
    for (let i = 1; i <= count; i++) {
      const bytes = page(i % 3 ? 'text' : 'random', random);
      new DataView(bytes.buffer).setUint32(0, i, true);
      this.#pages.push(bytes);
    }
  }

  bytes(content: number): Uint8Array {
    return this.#pages[content]!;
  }

  /** Every byte counts. */
  of(memory: Uint8Array, offset: number): number {
    const content = new DataView(memory.buffer, memory.byteOffset + offset).getUint32(0, true);
    const expected = this.#pages[content];
    const bytes = memory.subarray(offset, offset + PAGE_BYTES);
    return expected && Buffer.compare(bytes, expected) === 0 ? content : -1;
  }
}
