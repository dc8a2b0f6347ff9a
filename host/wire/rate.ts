// A limit on bytes a second, which may be changed at any moment. What is taken may go into debt by one frame; then nobody takes more until the
// debt is paid: so the average holds whatever the frames' sizes.

/** Unused allowance is kept for this long: enough to ride out a timer's delay, too little to make a burst. */
const BURST_MS = 20;
/** Nobody is told to wait longer at a time: the limit may be another one by then. */
const MAX_WAIT_MS = 100;

export class RateLimit {
  #bytesPerMs: number;
  #allowance = 0;
  #at = performance.now();

  /** `bytesPerS` undefined: no limit. */
  constructor(bytesPerS?: number) {
    this.#bytesPerMs = perMs(bytesPerS);
  }

  /** The limit in bytes a second; null: none. */
  get bytesPerS(): number | null {
    return this.#bytesPerMs === Number.POSITIVE_INFINITY ? null : Math.round(this.#bytesPerMs * 1000);
  }

  /** From now on; a debt stays, and is paid at the new rate. Null: no limit. */
  set(bytesPerS: number | null): void {
    this.#earn();
    this.#bytesPerMs = perMs(bytesPerS);
  }

  /** Milliseconds to wait before asking again whether something may be taken; 0: now. */
  get waitMs(): number {
    this.#earn();
    return this.#allowance >= 0 ? 0 : Math.min(MAX_WAIT_MS, -this.#allowance / this.#bytesPerMs);
  }

  take(bytes: number): void {
    if (this.#bytesPerMs !== Number.POSITIVE_INFINITY) this.#allowance -= bytes;
  }

  #earn(): void {
    const now = performance.now();
    const elapsedMs = now - this.#at;
    this.#at = now;
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) this.#allowance = 0;
    else this.#allowance = Math.min(this.#allowance + elapsedMs * this.#bytesPerMs, BURST_MS * this.#bytesPerMs);
  }
}

function perMs(bytesPerS: number | null | undefined): number {
  return (bytesPerS ?? Number.POSITIVE_INFINITY) / 1000;
}
