// What a guest tells of itself, for programs, and what it sums up to.

import type { FaultLatency } from '../summary.js';
import type { GuestState } from './protocol.js';

/** A time during which the guest ran: two guests that are one VM never have two of these that overlap, in time or in operations. */
export interface Ran {
  readonly fromOperation: number;
  readonly toOperation: number;
  readonly beganAtMs: number;
  readonly endedAtMs: number;
}

export type GuestEvent =
  | { readonly type: 'listening'; readonly socket: string; readonly guestId: string }
  | { readonly type: 'state'; readonly state: GuestState; readonly operation: number; readonly atMs: number }
  | {
      /** What it did in the last `ms`. */
      readonly type: 'operations';
      readonly atMs: number;
      readonly ms: number;
      readonly operations: number;
      /** Waits for a page that have begun, and how long those were that have ended. */
      readonly faults: number;
      readonly faultMs: readonly number[];
    }
  | { readonly type: 'wrong'; readonly pfn: number; readonly operation: number; readonly what: string }
  | GuestSummary;

export interface GuestSummary {
  readonly type: 'summary';
  readonly role: 'guest';
  readonly guestId: string;
  readonly operations: number;
  readonly ran: readonly Ran[];
  readonly faults: { readonly count: number } & FaultLatency;
  readonly wrongPages: number;
}

/** Milliseconds since 1970, with their fraction; never goes back. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** All waits of a guest. */
export class Faults {
  count = 0;
  /** Since somebody last took them. */
  #begun = 0;
  #ended: number[] = [];
  readonly #all: number[] = [];

  begin(): void {
    this.count++;
    this.#begun++;
  }

  end(ms: number): void {
    this.#ended.push(ms);
    this.#all.push(ms);
  }

  take(): { faults: number; faultMs: number[] } {
    const taken = { faults: this.#begun, faultMs: this.#ended };
    this.#begun = 0;
    this.#ended = [];
    return taken;
  }

  /** Zeros if nobody has waited. */
  latency(): FaultLatency {
    const sorted = this.#all.sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
    return { p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
  }
}
