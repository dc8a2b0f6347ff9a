// A limit on bytes a second. What is taken may go into debt by one frame; then nobody takes more until the debt is paid: so the average holds
// whatever the frames' sizes.

/** Unused allowance is kept for this long: enough to ride out a timer's delay, too little to make a burst. */
const BURST_MS = 20;

export class RateLimit {
  readonly #bytesPerMs: number;
  #allowance = 0;
  #at = performance.now();

  /** `bytesPerS` undefined: no limit. */
  constructor(bytesPerS?: number) {
    this.#bytesPerMs = (bytesPerS ?? Number.POSITIVE_INFINITY) / 1000;
  }

  /** Milliseconds until something may be taken; 0: now. */
  get waitMs(): number {
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) return 0;
    const now = performance.now();
    const earned = (now - this.#at) * this.#bytesPerMs;
    this.#allowance = Math.min(this.#allowance + earned, BURST_MS * this.#bytesPerMs);
    this.#at = now;
    return this.#allowance >= 0 ? 0 : -this.#allowance / this.#bytesPerMs;
  }

  take(bytes: number): void {
    if (this.#bytesPerMs !== Number.POSITIVE_INFINITY) this.#allowance -= bytes;
  }
}
