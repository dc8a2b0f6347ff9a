// How much may be on its way to one node: what it acknowledges in a tenth of a second, on top of the time that an acknowledgement takes at best. So a
// fast node is never idle, and a slow one never holds more than a tenth of a second's worth of frames that others could have had long since.
//
//   bytes that may be outstanding = acknowledged bytes a second x (best acknowledgement + 100 ms), between two frames and 8 MiB

import { MAX_FRAME_BYTES } from '../wire/messages.js';

const AHEAD_MS = 100;
const MIN_BYTES = 2 * MAX_FRAME_BYTES;
const MAX_BYTES = 8 * 1024 * 1024;
/** What a node acknowledges is measured over so long at a time, while it has something to acknowledge. */
const SLICE_MS = 50;
/** How much the last slice counts against all before it. */
const WEIGHT = 1 / 2;

export class Window {
  /** Bytes sent and not acknowledged. */
  outstandingBytes = 0;
  /** Bytes a millisecond; 0 while nothing is known. */
  #rate = 0;
  #bestMs = Number.POSITIVE_INFINITY;
  #sliceAt = 0;
  #sliceBytes = 0;

  /** Bytes that may be outstanding. */
  get bytes(): number {
    const ms = AHEAD_MS + (this.#bestMs === Number.POSITIVE_INFINITY ? 0 : this.#bestMs);
    return Math.min(MAX_BYTES, Math.max(MIN_BYTES, this.#rate * ms));
  }

  /** Whether so many bytes more may be sent. */
  hasRoom(bytes: number): boolean {
    return this.outstandingBytes === 0 || this.outstandingBytes + bytes <= this.bytes;
  }

  /** How long what is outstanding will take, in milliseconds, as far as one can tell. */
  get drainMs(): number {
    return this.#rate === 0 ? Number.POSITIVE_INFINITY : this.outstandingBytes / this.#rate;
  }

  sent(bytes: number): void {
    if (this.outstandingBytes === 0) this.#begin();
    this.outstandingBytes += bytes;
  }

  /** So many bytes are outstanding no more: acknowledged after `ms`, or given up (null). */
  settled(bytes: number, ms: number | null): void {
    this.outstandingBytes -= bytes;
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
