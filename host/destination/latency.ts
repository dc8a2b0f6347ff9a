// How long a guest waited for its pages: quantiles of any number of waits, in a few hundred counters. Each counter is a twentieth wider than the one before,
// so a quantile is that much off at most; the longest wait is exact.

import type { FaultLatency } from '../summary.js';

const LEAST_MS = 0.01;
const STEP = 1.05;
/** Up to a few hours. */
const COUNTERS = 430;
/** What `lately` looks back to: so long, and so many waits. */
const LATELY_MS = 5_000;
const LATELY = 1_000;

export class Latencies {
  /** Waits that were counted. */
  count = 0;
  #maxMs = 0;
  readonly #counters = new Uint32Array(COUNTERS);
  /** When the last waits ended, and how long they were. */
  readonly #last: { at: number; ms: number }[] = [];

  add(ms: number, at = performance.now()): void {
    this.#last.push({ at, ms });
    if (this.#last.length > LATELY) this.#last.shift();
    const counter = Math.ceil(Math.log(Math.max(ms, LEAST_MS) / LEAST_MS) / Math.log(STEP));
    this.#counters[Math.min(counter, COUNTERS - 1)]!++;
    this.count++;
    this.#maxMs = Math.max(this.#maxMs, ms);
  }

  /** Null: there was none. */
  get quantiles(): FaultLatency | null {
    if (this.count === 0) return null;
    return { p50Ms: this.#quantile(0.5), p99Ms: this.#quantile(0.99), maxMs: this.#maxMs };
  }

  /** Of the last seconds alone: so long at most waited 99 of a hundred. Null: there was none. */
  latelyP99Ms(now = performance.now()): number | null {
    const lately = this.#last.filter(({ at }) => now - at <= LATELY_MS).map(({ ms }) => ms);
    return lately.sort((a, b) => a - b)[Math.ceil(lately.length * 0.99) - 1] ?? null;
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
