// In which order frames are asked for: those that were divided first come first, since what refers to them comes later. Whoever wants another order
// changes it here.

import type { Frame } from './frame.js';

/** What was taken is cut off when there is so much of it, so that a queue does not grow with the image. */
const CUT_AT = 1024;

/** Frames that one holder may be asked for. They may wait at several holders: what was taken at one is passed over at the others. */
export class FrameQueue {
  readonly #frames: Frame[] = [];
  #next = 0;

  /** Behind all others. */
  push(frame: Frame): void {
    this.#frames.push(frame);
  }

  /** Before all others: it was asked for already. */
  unshift(frame: Frame): void {
    if (this.#next > 0) this.#frames[--this.#next] = frame;
    else this.#frames.unshift(frame);
  }

  /** The next one that is still wanted, without taking it; `wanted` says of which that is true. */
  peek(wanted: (frame: Frame) => boolean): Frame | undefined {
    while (this.#next < this.#frames.length) {
      const frame = this.#frames[this.#next]!;
      if (wanted(frame)) return frame;
      this.shift();
    }
    return undefined;
  }

  /** Takes the one that `peek` returned. */
  shift(): void {
    this.#next++;
    if (this.#next < CUT_AT && this.#next < this.#frames.length) return;
    this.#frames.splice(0, this.#next);
    this.#next = 0;
  }

  /** Takes all of them. */
  clear(): Frame[] {
    this.#next = 0;
    return this.#frames.splice(0);
  }
}
