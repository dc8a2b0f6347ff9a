// Duplicates that wait for their content: columns in typed arrays, chained by the frame they wait for, so that millions of them cost 38 bytes
// each and no garbage collection. One whose page came in another way meanwhile goes when its frame is merged, or asked about.

import { ID_BYTES } from './abi.js';

const NONE = -1;

export class WaitingPages {
  /** Waiting pages. */
  pages = 0;
  #capacity = 1024;
  #pfn = new Float64Array(this.#capacity);
  #announcedBy = new Float64Array(this.#capacity);
  #vm = new Uint8Array(this.#capacity);
  #slot = new Uint8Array(this.#capacity);
  #next = new Int32Array(this.#capacity);
  #ids = new Uint8Array(this.#capacity * ID_BYTES);
  /** Entries that were given back, as a chain; behind `#used` none was ever taken. */
  #free = NONE;
  #used = 0;
  readonly #heads = new Map<number, number>();

  /** Page `pfn` of `vm`, announced by frame `announcedBy`, has the content `id`, which is in slot `slot` of `frame`. */
  add(frame: number, slot: number, vm: number, pfn: number, announcedBy: number, id: Uint8Array): void {
    const entry = this.#take();
    this.#pfn[entry] = pfn;
    this.#announcedBy[entry] = announcedBy;
    this.#vm[entry] = vm;
    this.#slot[entry] = slot;
    this.#ids.set(id, entry * ID_BYTES);
    this.#next[entry] = this.#heads.get(frame) ?? NONE;
    this.#heads.set(frame, entry);
    this.pages++;
  }

  /** Takes out all that wait for `frame`, and calls `each` with them. `id` is valid during the call. */
  take(
    frame: number,
    each: (slot: number, vm: number, pfn: number, announcedBy: number, id: Uint8Array) => void,
  ): void {
    let entry = this.#heads.get(frame) ?? NONE;
    this.#heads.delete(frame);
    while (entry !== NONE) {
      const id = this.#ids.subarray(entry * ID_BYTES, (entry + 1) * ID_BYTES);
      each(this.#slot[entry]!, this.#vm[entry]!, this.#pfn[entry]!, this.#announcedBy[entry]!, id);
      entry = this.#give(entry);
    }
  }

  /** Some that waits for `frame` is `wanted` still. Those before it, which are not, are taken out. */
  has(frame: number, wanted: (vm: number, pfn: number, announcedBy: number) => boolean): boolean {
    let entry = this.#heads.get(frame) ?? NONE;
    while (entry !== NONE && !wanted(this.#vm[entry]!, this.#pfn[entry]!, this.#announcedBy[entry]!)) {
      entry = this.#give(entry);
    }
    if (entry === NONE) this.#heads.delete(frame);
    else this.#heads.set(frame, entry);
    return entry !== NONE;
  }

  /** Calls `each` with all that wait for `frame`. */
  each(frame: number, each: (vm: number, pfn: number, announcedBy: number) => void): void {
    for (let entry = this.#heads.get(frame) ?? NONE; entry !== NONE; entry = this.#next[entry]!) {
      each(this.#vm[entry]!, this.#pfn[entry]!, this.#announcedBy[entry]!);
    }
  }

  /** Takes an entry out of the front of its chain. Returns the next one. */
  #give(entry: number): number {
    const next = this.#next[entry]!;
    this.#next[entry] = this.#free;
    this.#free = entry;
    this.pages--;
    return next;
  }

  #take(): number {
    if (this.#free !== NONE) {
      const entry = this.#free;
      this.#free = this.#next[entry]!;
      return entry;
    }
    if (this.#used === this.#capacity) this.#grow();
    return this.#used++;
  }

  #grow(): void {
    this.#capacity *= 2;
    const grown = <T extends { set(from: T): void }>(to: T, from: T): T => {
      to.set(from);
      return to;
    };
    this.#pfn = grown(new Float64Array(this.#capacity), this.#pfn);
    this.#announcedBy = grown(new Float64Array(this.#capacity), this.#announcedBy);
    this.#vm = grown(new Uint8Array(this.#capacity), this.#vm);
    this.#slot = grown(new Uint8Array(this.#capacity), this.#slot);
    this.#next = grown(new Int32Array(this.#capacity), this.#next);
    this.#ids = grown(new Uint8Array(this.#capacity * ID_BYTES), this.#ids);
  }
}
