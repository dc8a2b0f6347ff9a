// Equal pieces of an engine's memory, taken and given back. A slot that is taken is never handed out again before it is given back, and nothing is
// written into it meanwhile: a socket may still be sending from it.

import { AbdmError } from './errors.js';

export interface Slot {
  readonly ptr: number;
  taken: boolean;
}

export class Slots {
  readonly bytes: number;
  readonly #name: string;
  readonly #all: Slot[];
  readonly #free: Slot[];

  /** `count` slots of `bytes` bytes each, from `ptr` on. */
  constructor(name: string, ptr: number, bytes: number, count: number) {
    this.#name = name;
    this.bytes = bytes;
    this.#all = Array.from({ length: count }, (_, i) => ({ ptr: ptr + i * bytes, taken: false }));
    this.#free = [...this.#all].reverse();
  }

  get free(): number {
    return this.#free.length;
  }

  /** Throws NO_SLOT if all are taken. */
  take(): Slot {
    const slot = this.#free.pop();
    if (!slot)
      throw new AbdmError('NO_SLOT', `all ${this.#all.length} ${this.#name} slots are held: release one first`);
    slot.taken = true;
    return slot;
  }

  /** Throws SLOT_STATE if it is not taken. */
  give(slot: Slot): void {
    if (!slot.taken) throw new AbdmError('SLOT_STATE', `this ${this.#name} slot was released before`);
    slot.taken = false;
    this.#free.push(slot);
  }
}
