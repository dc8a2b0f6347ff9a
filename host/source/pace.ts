// How fast frames are acknowledged: measured while there is anything to send, so that a source that has little of it is not taken for a slow link.

/** Measured over so long at a time. */
const SLICE_MS = 100;

export class Pace {
  #perMs = 0;
  /** Of the present slice; null: there is nothing to send. */
  #sinceMs: number | null = null;
  #bytes = 0;

  /** Something was measured. */
  get isKnown(): boolean {
    return this.#perMs > 0;
  }

  /** A frame is on its way. */
  sent(): void {
    if (this.#sinceMs === null) this.#begin();
  }

  /** One was acknowledged; `isLast`: no other is on its way, or to be made. */
  acknowledged(bytes: number, isLast: boolean): void {
    if (this.#sinceMs === null) return;
    this.#bytes += bytes;
    const elapsedMs = performance.now() - this.#sinceMs;
    // The first frames of all count however soon they are there: there may be no others.
    if (elapsedMs >= SLICE_MS || (this.#perMs === 0 && isLast)) {
      this.#perMs = this.#bytes / Math.max(1, elapsedMs);
      this.#begin();
    }
    if (isLast) this.#sinceMs = null;
  }

  /** How long so many bytes take, as far as one can tell. */
  msFor(bytes: number): number {
    return bytes === 0 ? 0 : bytes / this.#perMs;
  }

  #begin(): void {
    this.#sinceMs = performance.now();
    this.#bytes = 0;
  }
}
