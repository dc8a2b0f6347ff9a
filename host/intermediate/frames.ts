// What an intermediate keeps of one migration: the log, and where in it each frame lies. One number a frame, none of them an object:
//
//   52           45                              19                       0
//   | bank, 7 bits | ptr / 64, 26 bits            | bytes, 19 bits        |

import type { EngineMemory } from '../../bindings/engine.js';
import { AbdmError, type AbdmErrorCode } from '../../bindings/errors.js';
import type { BankPool } from './banks.js';
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
  #log: FrameLog;
  #places = new Map<number, number>();
  #bytes = 0;

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

  /** Asked when the header of a PUT has come, before its body: the decision costs no memory. */
  admit(frameId: number, bytes: number): Admission {
    const kept = this.#places.get(frameId);
    if (kept !== undefined) return sameLength(frameId, kept, bytes);
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

  /** Forgets all frames; those that are being received now will be refused. */
  drop(): { frames: number; bytes: number } {
    const dropped = { frames: this.#places.size, bytes: this.#bytes };
    this.#log.drop();
    this.#log = new FrameLog(this.#pool);
    this.#places = new Map();
    this.#bytes = 0;
    return dropped;
  }

  #judge(frameId: number, place: Place): AbdmError | 'kept' | null {
    if (place.log !== this.#log)
      return new AbdmError('CANCELLED', `the migration was dropped while frame ${frameId} came`);
    const code = this.#check(place.log.memory(place.bank), place.ptr, place.bytes, frameId);
    if (code !== null) return new AbdmError(code, `frame ${frameId} arrived damaged or is none`);
    // Another connection may have been first with the same frame.
    const kept = this.#places.get(frameId);
    return kept === undefined ? null : sameLength(frameId, kept, place.bytes);
  }
}

function sameLength(frameId: number, kept: number, bytes: number): 'kept' | AbdmError {
  const keptBytes = kept % 2 ** 19;
  if (keptBytes === bytes) return 'kept';
  return new AbdmError('PROTOCOL', `frame ${frameId} is kept already, with ${keptBytes} bytes, not ${bytes}`);
}
