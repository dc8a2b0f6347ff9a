// What an intermediate keeps of one migration: the log, and where in it each block lies. One number a block, none of them an object:
//
//   52           45                              19                       0
//   | bank, 7 bits | ptr / 64, 26 bits            | bytes, 19 bits        |
//
// A block that other nodes hold too has its chain noted beside it: a reference to one of the few chains there are.

import type { EngineMemory } from '../../bindings/engine.js';
import { AbdmError, type AbdmErrorCode } from '../../bindings/errors.js';
import type { BankPool } from './banks.js';
import type { Chain } from './chains.js';
import { FrameLog, type Place } from './log.js';

/** A Map holds 2^24 entries at most; of full frames this is 2 TiB. */
const MAX_FRAMES = 2 ** 23;

/**
 * Looks at a frame where it lies, before it is acknowledged: `bytes` bytes at `ptr` in `bank`, sent as frame `frameId`. Returns null if it is
 * good. It must not keep the bank.
 */
export type FrameCheck = (bank: EngineMemory, ptr: number, bytes: number, frameId: number) => AbdmErrorCode | null;

/** Where to receive a frame to; or that it is here already; or why not. */
export type Admission = Place | 'kept' | AbdmError;

export class Frames {
  readonly #pool: BankPool;
  readonly #check: FrameCheck;
  readonly #log: FrameLog;
  readonly #places = new Map<number, number>();
  readonly #chains = new Map<number, Chain>();
  #bytes = 0;
  #dropped = false;
  /** What `list` last sorted: ids from `from` on, while there were `count` in all. */
  #listing = { from: Number.POSITIVE_INFINITY, count: 0, ids: new Float64Array(0) };

  constructor(pool: BankPool, check: FrameCheck) {
    this.#pool = pool;
    this.#check = check;
    this.#log = new FrameLog(pool);
  }

  get count(): number {
    return this.#places.size;
  }

  /** Bytes of all kept frames. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Asked when the header of a PUT has come, before its body: the decision costs no memory. The first making of a frame stays: one that is made anew
   * because its holders were thought to be gone has the same pages, in other bytes.
   */
  admit(frameId: number, bytes: number): Admission {
    if (this.#dropped) return cancelled(frameId);
    if (this.#places.has(frameId)) return 'kept';
    if (this.#places.size >= MAX_FRAMES)
      return new AbdmError('NO_ROOM', `a migration has at most ${MAX_FRAMES} frames here`);
    const place = this.#log.reserve(bytes);
    if (place !== null) return place;
    const { freeBytes, memoryBytes } = this.#pool;
    return new AbdmError('NO_ROOM', `no room for ${bytes} bytes: ${freeBytes} of ${memoryBytes} are free`);
  }

  /** The body of an admitted frame is complete: keeps it, or returns why not. Either way the place is done with. */
  settle(frameId: number, place: Place): AbdmError | null {
    const verdict = this.#judge(frameId, place);
    if (verdict !== null) {
      place.log.rollback(place);
      return verdict === 'kept' ? null : verdict;
    }
    place.log.commit(place);
    this.#places.set(frameId, (place.bank * 2 ** 26 + place.ptr / 64) * 2 ** 19 + place.bytes);
    this.#bytes += place.bytes;
    return null;
  }

  /**
   * A frame where it lies, or null. Its memory stays as it is until `done` was called, also if the frame is dropped.
   */
  get(frameId: number): { body: Uint8Array; done: () => void } | null {
    const place = this.#places.get(frameId);
    if (place === undefined) return null;
    const log = this.#log;
    const at = Math.floor(place / 2 ** 19);
    log.pin();
    return { body: log.view(Math.floor(at / 2 ** 26), (at % 2 ** 26) * 64, place % 2 ** 19), done: () => log.unpin() };
  }

  /** Notes the nodes that hold a kept block. */
  setChain(frameId: number, chain: Chain): void {
    if (this.#places.has(frameId)) this.#chains.set(frameId, chain);
  }

  /** Blocks that other nodes hold too. May be changed while it is walked through. */
  get chained(): Iterable<readonly [id: number, chain: Chain]> {
    return this.#chains;
  }

  /** The lowest `max` ids from `from` on, ascending. */
  list(from: number, max: number): Float64Array {
    const listing = this.#listing;
    if (listing.count !== this.count || from < listing.from) {
      // Whoever asks for the few blocks of the index, which have high ids, does not pay for sorting all frames.
      const ids: number[] = [];
      for (const id of this.#places.keys()) if (id >= from) ids.push(id);
      this.#listing = { from, count: this.count, ids: Float64Array.from(ids).sort() };
    }
    const { ids } = this.#listing;
    let low = 0;
    for (let high = ids.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if (ids[middle]! < from) low = middle + 1;
      else high = middle;
    }
    return ids.subarray(low, low + max);
  }

  /** Forgets all blocks; those that are being received now, or later, are refused. */
  drop(): { frames: number; bytes: number } {
    const dropped = { frames: this.#places.size, bytes: this.#bytes };
    this.#dropped = true;
    this.#log.drop();
    this.#places.clear();
    this.#chains.clear();
    this.#bytes = 0;
    return dropped;
  }

  #judge(frameId: number, place: Place): AbdmError | 'kept' | null {
    if (this.#dropped) return cancelled(frameId);
    const code = this.#check(place.log.memory(place.bank), place.ptr, place.bytes, frameId);
    if (code !== null) return new AbdmError(code, `frame ${frameId} arrived damaged or is none`);
    // Another connection may have been first with the same frame.
    return this.#places.has(frameId) ? 'kept' : null;
  }
}

function cancelled(frameId: number): AbdmError {
  return new AbdmError('CANCELLED', `frame ${frameId} is of a migration that was dropped here`);
}
