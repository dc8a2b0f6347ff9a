// How much is asked for at a time, of all holders together, while a guest runs here.
//
// What a guest waits for has connections of its own, but the same link: it comes behind everything that was asked for before and has not come yet. So that
// is kept as small as it can be without leaving the link idle:
//
//   bytes = rate x (trip + 6 ms)         rate: what came from them lately; trip: how long a holder takes that is asked for one thing
//   bytes = rate x 4.5 ms                while faults arrive; rate x (trip + 1 ms) where trips are longer
//
// The link is full as long as so much is under way that the next bytes are there when the last have come: rate x trip. The 6 ms are what waits in front of it, and
// what makes the window find the rate by itself: while the link has room, more comes in than was reckoned with, by 6 ms in every trip, and
// so the next window is larger, until all that it adds is what waits. A frame is asked for only if all of it still fits, or if no other is under way: so
// they are a frame and a half at least, since a window that grows by less might not grow.
//
// At 200 Mbit/s three frames of 64 KiB are under way, and one while faults arrive: a link that has them to carry need not be full of anything else. At 1 Gbit/s it
// is still eight then, since hosts that are busy take longer to ask for the next one than such a link for a frame.
//
// What the source sends itself shares the link, and waits in front of it too; it keeps its own part of that small. While that fills the link, as the source knows
// (mam/spill.ts), nothing is asked for in bulk at all: it would take the place of what need not come over nodes.

import { frameBound } from '../../bindings/abi.js';
import { SEAL_BYTES } from '../mam/seal.js';
import { SHORT_FRAME_PAGES } from '../mam/window.js';

/** What may wait in front of the link. */
const AHEAD_MS = 6;
/** While faults arrive: all that is under way; and what may wait where trips are longer than that. */
const UNDER_WAY_IN_FAULTS_MS = 4.5;
const AHEAD_IN_FAULTS_MS = 1;
/** Of 16 pages, on its way. */
const SHORT_FRAME_BYTES = frameBound(SHORT_FRAME_PAGES) + SEAL_BYTES;
/** A network of 1 Gbit/s with round trips of 1 ms is busy with this. */
const LEAST_BYTES = 2 * SHORT_FRAME_BYTES;
/** So long after a fault the next one is expected. */
const FAULTS_MS = 500;
/** The rate is the best of the last pieces, each of so much time and so many bytes: a moment in which there was little to ask for does not count. */
const PIECES = 4;
const PIECE_MS = 100;
const PIECE_BYTES = 256 * 1024;
/** A holder that gave nothing for so long, or for four times as long as a full window takes, has nothing on the link. */
const LATE_MS = 250;
/** A source that filled the link so long ago does not any more. */
const FILLED_MS = 40;

export class GatherWindow {
  /** A guest runs here. */
  isBounded = false;
  readonly #now: () => number;
  /** Bytes in a millisecond. */
  readonly #rates: number[] = [];
  /** The piece that has begun. */
  #bytes = 0;
  #since: number;
  #faultAt = Number.NEGATIVE_INFINITY;
  #filledAt = Number.NEGATIVE_INFINITY;

  /** @param now milliseconds, monotonic. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#since = now();
  }

  /** A frame came from a holder. */
  arrived(bytes: number): void {
    this.#bytes += bytes;
    const ms = this.#now() - this.#since;
    if (ms < PIECE_MS || this.#bytes < PIECE_BYTES) return;
    if (this.#rates.unshift(this.#bytes / ms) > PIECES) this.#rates.pop();
    this.#bytes = 0;
    this.#since += ms;
  }

  /** A guest waits for a page. */
  fault(): void {
    this.#faultAt = this.#now();
  }

  /** A frame came from the source, which fills the link. */
  filled(): void {
    this.#filledAt = this.#now();
  }

  /** The link is full without what is asked for in bulk: ask again after so many milliseconds. 0: it is not. */
  get waitMs(): number {
    return Math.max(0, FILLED_MS - (this.#now() - this.#filledAt));
  }

  /** How much may be under way at a time; `tripMs`: the shortest time in which a holder has answered. */
  bytes(tripMs: number): number {
    if (!this.isBounded) return Number.POSITIVE_INFINITY;
    const rate = this.#rate;
    if (this.#now() - this.#faultAt <= FAULTS_MS)
      return Math.max(SHORT_FRAME_BYTES, rate * Math.max(UNDER_WAY_IN_FAULTS_MS, tripMs + AHEAD_IN_FAULTS_MS));
    return Math.max(LEAST_BYTES, rate * tripMs + Math.max(1.5 * SHORT_FRAME_BYTES, rate * AHEAD_MS));
  }

  /** What was asked of a holder that gave nothing for longer is not on the link. */
  get lateMs(): number {
    return this.#rate > 0 ? Math.max(LATE_MS, (4 * LEAST_BYTES) / this.#rate) : LATE_MS;
  }

  get #rate(): number {
    return Math.max(0, ...this.#rates);
  }
}
