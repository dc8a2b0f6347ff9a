// How long a guest waited for its pages: quantiles of any number of waits, in a few hundred counters. Each counter is a twentieth wider than the one before,
// so a quantile is that much off at most; the longest wait is exact.

import type { FaultLatency } from '../summary.js';

const LEAST_MS = 0.01;
const STEP = 1.05;
/** Up to a few hours. */
const COUNTERS = 430;

export class Latencies {
  /** Waits that were counted. */
  count = 0;
  #maxMs = 0;
  readonly #counters = new Uint32Array(COUNTERS);

  add(ms: number): void {
    const at = Math.ceil(Math.log(Math.max(ms, LEAST_MS) / LEAST_MS) / Math.log(STEP));
    this.#counters[Math.min(at, COUNTERS - 1)]!++;
    this.count++;
    this.#maxMs = Math.max(this.#maxMs, ms);
  }

  /** Null: there was none. */
  get quantiles(): FaultLatency | null {
    if (this.count === 0) return null;
    return { p50Ms: this.#quantile(0.5), p99Ms: this.#quantile(0.99), maxMs: this.#maxMs };
  }

  /** So long at most waited this part of them. */
  #quantile(part: number): number {
    let left = Math.ceil(this.count * part);
    const at = this.#counters.findIndex((count) => {
      left -= count;
      return left <= 0;
    });
    return Math.min(this.#maxMs, LEAST_MS * STEP ** at);
  }
}
