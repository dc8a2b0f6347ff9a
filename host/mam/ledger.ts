// What was divided, and who has it: enough to tell anybody anew where everything lies, and to divide again what nobody has any more.
//
//               its nodes, or the destination, have it
//   coming ------------------------------------------------> kept
//     |  ^                                                     |
//     |  +-----------------------------------------------------+
//     |              lost: to be made again, under the same id
//     v
//   void             it cannot be made again, for its pages were written to since; they come again in later frames

import type { FrameState } from '../wire/records.js';
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
  /** Ids of other frames, whose contents its duplicates have. */
  references: readonly number[];
  bytes: number;
  /** How often it was made anew. */
  generation: number;
  state: FrameState;
  /** The nodes that have it; the destination alone, which has merged it; null unless it is kept. */
  holders: Chain | 'destination' | null;
  /** What stands before its payload: kept until it is recorded, for frames that the destination may get. */
  meta: Uint8Array | undefined;
  /** Where a guest runs at the destination, what others refer to has to be at nodes: others do, and it does not go straight to the destination any more. */
  isPinned: boolean;
  /** The destination has it, or was given it: nobody else may ever have it. */
  isStraight: boolean;
  /** It was lost, and the destination may have it all the same, without what its duplicates refer to: another making of it under its id would be of no use there. */
  isDoubtful: boolean;
}

export class Ledger {
  readonly #frames = new Map<number, Kept>();
  readonly #coming = new Set<Kept>();

  /** Frames so far, wherever they are, or will never be. */
  get size(): number {
    return this.#frames.size;
  }

  /** All frames that somebody has. */
  *kept(): Iterable<Kept> {
    for (const frame of this.#frames.values()) if (frame.state === 'kept') yield frame;
  }

  /** All frames that never come. */
  *voided(): Iterable<Kept> {
    for (const frame of this.#frames.values()) if (frame.state === 'void') yield frame;
  }

  /** Frames that nobody has yet, or any more, and that somebody will. */
  get coming(): Iterable<Kept> {
    return this.#coming;
  }

  /** There is none. */
  get isIdle(): boolean {
    return this.#coming.size === 0;
  }

  get(id: number): Kept | undefined {
    return this.#frames.get(id);
  }

  /** Frames that refer to any of these. */
  referring(ids: ReadonlySet<number>): Kept[] {
    const found: Kept[] = [];
    for (const frame of this.#frames.values()) {
      if (frame.state !== 'void' && frame.references.some((id) => ids.has(id))) found.push(frame);
    }
    return found;
  }

  /** A frame that is on its way. */
  add(frame: Kept): void {
    this.#frames.set(frame.id, frame);
    this.#coming.add(frame);
  }

  /** They have it. */
  keep(frame: Kept, holders: Chain | 'destination'): void {
    frame.holders = holders;
    frame.state = 'kept';
    frame.isStraight = holders === 'destination';
    this.#coming.delete(frame);
  }

  /** Nobody has it, and it comes once more: its next making is another one. */
  forget(frame: Kept): void {
    frame.holders = null;
    frame.state = 'coming';
    frame.isStraight = false;
    frame.generation++;
    this.#coming.add(frame);
  }

  /** It never comes. What was said of it before does not hold any more. */
  void(frame: Kept): void {
    frame.holders = null;
    frame.meta = undefined;
    frame.state = 'void';
    frame.generation++;
    this.#coming.delete(frame);
  }

  /** Frames of which `isLost` is true are at nobody from now on; returns them. */
  lose(isLost: (holders: Chain | 'destination') => boolean): Kept[] {
    const lost = [...this.kept()].filter(({ holders }) => isLost(holders!));
    for (const frame of lost) this.forget(frame);
    return lost;
  }
}
