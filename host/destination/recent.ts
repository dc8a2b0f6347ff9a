// Pages that were written to images that cannot be read back: what later pages are duplicates of is mostly among them, and need not be fetched once more.
// A page has one place, which it shares with those that lie a multiple of the places away: what came last is there. So runs of pages are runs of places, and
// nothing is searched for.

import { PAGE_BYTES } from '../../bindings/abi.js';

/** From a VM's places to the next one's: so that pages of the same number do not meet. */
const VM_STRIDE = 40_503;

export class RecentPages {
  readonly #bytes: Uint8Array;
  /** By place: the key of the page that is there; -1: none. */
  readonly #keys: Float64Array;

  /** @param pages that are kept, at most. */
  constructor(pages: number) {
    // Memory is taken as pages come.
    this.#bytes = new Uint8Array(pages * PAGE_BYTES);
    this.#keys = new Float64Array(pages).fill(-1);
  }

  /** This is what pages of `vm` hold, from `pfn` on. */
  put(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    for (let at = 0; at < bytes; ) {
      const place = this.#placeOf(vm, pfn + at / PAGE_BYTES);
      const run = Math.min(bytes - at, (this.#keys.length - place) * PAGE_BYTES);
      this.#bytes.set(memory.subarray(offset + at, offset + at + run), place * PAGE_BYTES);
      const key = keyOf(vm, pfn + at / PAGE_BYTES);
      for (let i = 0; i < run / PAGE_BYTES; i++) this.#keys[place + i] = key + i;
      at += run;
    }
  }

  /** Whether it is here still: then it is put into `memory`. */
  get(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    const place = this.#placeOf(vm, pfn);
    if (this.#keys[place] !== keyOf(vm, pfn)) return false;
    memory.set(this.#bytes.subarray(place * PAGE_BYTES, (place + 1) * PAGE_BYTES), offset);
    return true;
  }

  #placeOf(vm: number, pfn: number): number {
    return (pfn + vm * VM_STRIDE) % this.#keys.length;
  }
}

function keyOf(vm: number, pfn: number): number {
  return vm * 2 ** 32 + pfn;
}
