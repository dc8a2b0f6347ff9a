// The pages that were written last to images that cannot be read back: what later pages are duplicates of is mostly among them, and need not be fetched once more.

import { PAGE_BYTES } from '../../bindings/abi.js';

export class RecentPages {
  readonly #bytes: Uint8Array;
  readonly #places = new Map<number, number>();
  /** By place: the key of the page that is there; -1: none. */
  readonly #keys: Float64Array;
  #next = 0;

  /** @param pages that are kept, at most. */
  constructor(pages: number) {
    // Memory is taken as pages come.
    this.#bytes = new Uint8Array(pages * PAGE_BYTES);
    this.#keys = new Float64Array(pages).fill(-1);
  }

  /** This is what page `pfn` of `vm` holds. */
  put(vm: number, pfn: number, memory: Uint8Array, offset: number): void {
    const key = keyOf(vm, pfn);
    let place = this.#places.get(key);
    if (place === undefined) {
      place = this.#next;
      this.#next = (place + 1) % this.#keys.length;
      this.#places.delete(this.#keys[place]!);
      this.#keys[place] = key;
      this.#places.set(key, place);
    }
    this.#bytes.set(memory.subarray(offset, offset + PAGE_BYTES), place * PAGE_BYTES);
  }

  /** Whether it is here still: then it is put into `memory`. */
  get(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    const place = this.#places.get(keyOf(vm, pfn));
    if (place === undefined) return false;
    memory.set(this.#bytes.subarray(place * PAGE_BYTES, (place + 1) * PAGE_BYTES), offset);
    return true;
  }
}

function keyOf(vm: number, pfn: number): number {
  return vm * 2 ** 32 + pfn;
}
