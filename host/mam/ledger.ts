// What was divided, and who has it: enough to tell anybody anew where everything lies, and to divide again what nobody has any more.

import type { Chain } from './courier.js';

/** A frame as the source remembers it when its bytes are gone from here: an object of a hundred bytes for 256 KiB. */
export interface Kept {
  readonly id: number;
  readonly vm: number;
  /** Page number of its first page. */
  readonly base: number;
  readonly pages: number;
  /** Page numbers relative to `base`; undefined if the pages follow each other. */
  readonly deltas: Uint16Array | undefined;
  bytes: number;
  /** How often it was made anew. */
  generation: number;
  /** The nodes that have it; the destination alone, which has merged it; or null: on its way, or lost. */
  holders: Chain | 'destination' | null;
  /** What stands before its payload: kept until it is recorded, for frames that the destination may get. */
  meta: Uint8Array | undefined;
}

export class Ledger {
  readonly #frames = new Map<number, Kept>();

  /** Frames so far, wherever they are. */
  get size(): number {
    return this.#frames.size;
  }

  /** All frames that somebody has. */
  *kept(): Iterable<Kept> {
    for (const frame of this.#frames.values()) if (frame.holders !== null) yield frame;
  }

  get(id: number): Kept | undefined {
    return this.#frames.get(id);
  }

  add(frame: Kept): void {
    this.#frames.set(frame.id, frame);
  }

  /** Frames of which `isLost` is true are at nobody from now on; returns them. */
  lose(isLost: (holders: Chain | 'destination') => boolean): Kept[] {
    const lost: Kept[] = [];
    for (const frame of this.kept()) {
      if (!isLost(frame.holders!)) continue;
      frame.holders = null;
      frame.generation++;
      lost.push(frame);
    }
    return lost;
  }
}
