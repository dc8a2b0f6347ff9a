// How much may be on its way to one node: what it acknowledges in a tenth of a second, on top of the time that an acknowledgement takes at best. So a
// fast node is never idle, and a slow one never holds more than a tenth of a second's worth of frames that others could have had long since.
//
//   bytes that may be outstanding = acknowledged bytes a second x (best acknowledgement + 100 ms), between two frames and 8 MiB
//
// Frames of zeros and duplicates are so small that hundreds of them fit into the least of windows, and whoever divides holds only so many: so a slow node
// may have no more than its share of them (`isFull`), where others could take them.

import { FRAME_PAGES } from '../../bindings/abi.js';
import { MAX_FRAME_BYTES } from '../wire/messages.js';

const AHEAD_MS = 100;
const MIN_BYTES = 2 * MAX_FRAME_BYTES;
const MAX_BYTES = 8 * 1024 * 1024;
/** Pages that a source has on their way at a time: three nodes' windows of full frames. */
const PAGES_ON_THE_WAY = 48 * FRAME_PAGES;
/** What is acknowledged is measured over so long at a time, while there is something to acknowledge. */
const SLICE_MS = 50;
/** How much the last slice counts against all before it. */
const WEIGHT = 1 / 2;

/** Pages of a short frame, at least: 64 KiB, if nothing of it can be compressed. */
export const SHORT_FRAME_PAGES = 16;

/** Frames that a source has on their way at a time: as many bytes, whether they are short or not. */
export function framesOnTheWay(short: boolean): number {
  return PAGES_ON_THE_WAY / (short ? SHORT_FRAME_PAGES : FRAME_PAGES);
}

/** What windows follow; those that share one follow at once when it changes. */
export interface WindowLimits {
  /** How far ahead bytes may be outstanding, and how many always. */
  aheadMs: number;
  minBytes: number;
  /** A window's share of the frames that are on their way. */
  readonly frames: number;
}

/** A third of the frames. */
export function windowLimits(short = false): WindowLimits {
  return { aheadMs: AHEAD_MS, minBytes: MIN_BYTES, frames: framesOnTheWay(short) / 3 };
}

export class Window {
  /** Bytes sent and not acknowledged. */
  outstandingBytes = 0;
  readonly #limits: WindowLimits;
  #outstanding = 0;
  /** Bytes a millisecond; 0 while nothing is known. */
  #rate = 0;
  #bestMs = Number.POSITIVE_INFINITY;
  #sliceAt = 0;
  #sliceBytes = 0;

  constructor(limits: WindowLimits) {
    this.#limits = limits;
  }

  /** Bytes that may be outstanding. */
  get bytes(): number {
    const { aheadMs, minBytes } = this.#limits;
    const ms = aheadMs + (this.#bestMs === Number.POSITIVE_INFINITY ? 0 : this.#bestMs);
    return Math.min(MAX_BYTES, Math.max(minBytes, this.#rate * ms));
  }

  /** Whether so many bytes more may be sent. */
  hasRoom(bytes: number): boolean {
    return this.outstandingBytes === 0 || this.outstandingBytes + bytes <= this.bytes;
  }

  /** It has its share of what may be on its way at a time. */
  get isFull(): boolean {
    return this.#outstanding >= this.#limits.frames;
  }

  /** How long what is outstanding will take, in milliseconds, as far as one can tell. */
  get drainMs(): number {
    return this.#rate === 0 ? Number.POSITIVE_INFINITY : this.outstandingBytes / this.#rate;
  }

  sent(bytes: number): void {
    if (this.outstandingBytes === 0) this.#begin();
    this.outstandingBytes += bytes;
    this.#outstanding++;
  }

  /** So many bytes are outstanding no more: acknowledged after `ms`, or given up (null). */
  settled(bytes: number, ms: number | null): void {
    this.outstandingBytes -= bytes;
    this.#outstanding--;
    if (ms === null) return;
    this.#bestMs = Math.min(this.#bestMs, ms);
    this.#sliceBytes += bytes;
    const slice = performance.now() - this.#sliceAt;
    if (slice < SLICE_MS) return;
    const rate = this.#sliceBytes / slice;
    this.#rate = this.#rate === 0 ? rate : this.#rate + (rate - this.#rate) * WEIGHT;
    this.#begin();
  }

  #begin(): void {
    this.#sliceAt = performance.now();
    this.#sliceBytes = 0;
  }
}
