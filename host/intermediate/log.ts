// The append-only log of one migration's frames. A frame is received straight into its place: room is reserved when its header has come,
// committed when it is complete and found good, rolled back when it is cut off or refused. Several connections may be at it at once and may
// finish in any order. Committed frames never move and are never overwritten, so they can be written to sockets from where they lie.
//
// What a rollback leaves behind is a hole, merged with its neighbours, and taken back into the tail where it borders on it. New frames go
// into the first hole that is long enough.

import type { EngineMemory } from '../../bindings/engine.js';
import type { Bank, BankPool } from './banks.js';

/** Frames begin at multiples of a cache line. */
const ALIGN_BYTES = 64;
/** What the index needs for a frame, about. It counts as used room, so that a flood of tiny frames cannot cost more than was offered. */
const INDEX_BYTES = 96;
/** So many holes are remembered; what is left of further ones stays charged until the migration is dropped. */
const MAX_HOLES = 256;

const align = (bytes: number) => Math.ceil(bytes / ALIGN_BYTES) * ALIGN_BYTES;
/** Room that a frame of so many bytes takes. */
export const roomFor = (frameBytes: number) => align(frameBytes) + INDEX_BYTES;

/** Where a frame lies, or is being received to. */
export interface Place {
  readonly log: FrameLog;
  readonly bank: number;
  readonly ptr: number;
  readonly bytes: number;
}

interface Hole {
  readonly bank: number;
  ptr: number;
  bytes: number;
}

export class FrameLog {
  readonly #pool: BankPool;
  readonly #banks: Bank[] = [];
  readonly #holes: Hole[] = [];
  /** First unused address in the last bank. */
  #tailPtr = 0;
  #chargedBytes = 0;
  /** Frames being received, and frames being written to sockets. */
  #inFlight = 0;
  #dropped = false;

  constructor(pool: BankPool) {
    this.#pool = pool;
  }

  get dropped(): boolean {
    return this.#dropped;
  }

  get holes(): number {
    return this.#holes.length;
  }

  /** Room for a frame, to be ended by `commit` or `rollback`; null if there is none. */
  reserve(bytes: number): Place | null {
    if (this.#dropped || bytes > this.#pool.bankBytes - this.#pool.startBytes) return null;
    const room = roomFor(bytes);
    if (!this.#pool.charge(room)) return null;
    const found = this.#takeHole(align(bytes)) ?? this.#takeTail(align(bytes));
    if (found === null) {
      this.#pool.refund(room);
      return null;
    }
    this.#chargedBytes += room;
    this.#inFlight++;
    return { log: this, bytes, ...found };
  }

  /** The memory of a place. */
  view(bank: number, ptr: number, bytes: number): Uint8Array {
    return this.#banks[bank]!.bytes.subarray(ptr, ptr + bytes);
  }

  /** The bank itself: for an engine over it. */
  memory(bank: number): EngineMemory {
    return this.#banks[bank]!.memory;
  }

  /** The frame is complete and stays. */
  commit(_place: Place): void {
    this.#landed();
  }

  /** The frame did not come, or is not wanted: its room is free again. Nobody may write to it any more. */
  rollback(place: Place): void {
    const kept = this.#addHole({ bank: place.bank, ptr: place.ptr, bytes: align(place.bytes) });
    const room = kept ? roomFor(place.bytes) : INDEX_BYTES;
    this.#chargedBytes -= room;
    this.#pool.refund(room);
    this.#landed();
  }

  /** A frame is about to be written to a socket: to be ended by `unpin`. */
  pin(): void {
    this.#inFlight++;
  }

  unpin(): void {
    this.#landed();
  }

  /** Frees everything; what is in flight is waited for, so that room is never promised twice. */
  drop(): void {
    if (this.#dropped) return;
    this.#dropped = true;
    this.#freeIfDone();
  }

  #landed(): void {
    this.#inFlight--;
    this.#freeIfDone();
  }

  #freeIfDone(): void {
    if (!this.#dropped || this.#inFlight > 0) return;
    this.#pool.refund(this.#chargedBytes);
    this.#chargedBytes = 0;
    this.#pool.release(this.#banks.length);
    this.#banks.length = 0;
    this.#holes.length = 0;
  }

  #takeTail(bytes: number): { bank: number; ptr: number } | null {
    const { bankBytes, startBytes } = this.#pool;
    if (this.#banks.length === 0 || this.#tailPtr + bytes > bankBytes) {
      const bank = this.#pool.take();
      if (bank === null) return null;
      // The end of the bank that was too short for this frame may do for another. It was never touched, and was not charged.
      const leftBytes = bankBytes - this.#tailPtr;
      if (this.#banks.length > 0 && leftBytes > 0 && this.#holes.length < MAX_HOLES) {
        this.#holes.push({ bank: this.#banks.length - 1, ptr: this.#tailPtr, bytes: leftBytes });
      }
      this.#banks.push(bank);
      this.#tailPtr = startBytes;
    }
    const ptr = this.#tailPtr;
    this.#tailPtr += bytes;
    return { bank: this.#banks.length - 1, ptr };
  }

  #takeHole(bytes: number): { bank: number; ptr: number } | null {
    const holes = this.#holes;
    const index = holes.findIndex((hole) => hole.bytes >= bytes);
    if (index < 0) return null;
    const hole = holes[index]!;
    const { bank, ptr } = hole;
    hole.ptr += bytes;
    hole.bytes -= bytes;
    if (hole.bytes === 0) holes.splice(index, 1);
    return { bank, ptr };
  }

  // Returns false if there are too many to remember this one.
  #addHole(hole: Hole): boolean {
    const holes = this.#holes;
    for (let i = holes.length - 1; i >= 0; i--) {
      const other = holes[i]!;
      if (other.bank !== hole.bank) continue;
      if (other.ptr + other.bytes === hole.ptr) hole.ptr = other.ptr;
      else if (hole.ptr + hole.bytes !== other.ptr) continue;
      hole.bytes += other.bytes;
      holes.splice(i, 1);
    }
    if (hole.bank === this.#banks.length - 1 && hole.ptr + hole.bytes === this.#tailPtr) {
      this.#tailPtr = hole.ptr;
      return true;
    }
    if (holes.length >= MAX_HOLES) return false;
    holes.push(hole);
    return true;
  }
}
