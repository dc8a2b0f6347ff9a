// Who gets a migration, as one node says it; whoever wants it asks several nodes and has it when most of them have granted it (mam/claim.ts).
//
//   nobody has it  --- CLAIM, or the token that the source registered --->  somebody has it
//                  <-- CLAIM with release ----------------------------------
//                  <-- 30 s with no connection of his, and somebody else asks
//
// A claim that is for good does not end by itself: what was claimed runs, or is about to, and must not be run by anybody else. Only who has it can give it
// back: it has not run after all.

import type { Claimed } from '../mam/bodies.js';

/** A claimant who has had no connection here for so long, and has not renewed his claim, has died. */
const STALE_MS = 30_000;

interface Holder {
  readonly token: string;
  by: string;
  readonly sinceMs: number;
  seenMs: number;
  connections: number;
  forGood: boolean;
}

export class Claim {
  readonly #staleMs: number;
  #holder: Holder | null = null;

  constructor(staleMs = STALE_MS) {
    this.#staleMs = staleMs;
  }

  /** Who has it, in words for people; null if nobody. */
  get by(): string | null {
    return this.#holder?.by ?? null;
  }

  /** Grants it if nobody has it, or he has it already, or who has it has died; `forGood`: and it stays with him. */
  ask(token: string, by: string, forGood = false): Claimed {
    const now = performance.now();
    const holder = this.#holder;
    if (holder === null || (holder.token !== token && this.#isStale(holder, now))) {
      this.#holder = { token, by, sinceMs: now, seenMs: now, connections: 0, forGood };
    } else if (holder.token === token) {
      holder.by = by;
      holder.seenMs = now;
      holder.forGood ||= forGood;
    }
    return this.#state(token);
  }

  /** Nobody has it any more, if he had it. Says whether it is not his now. */
  release(token: string): Claimed {
    if (this.#holder?.token === token) this.#holder = null;
    return { ...this.#state(token), granted: true };
  }

  /** A connection speaks for this token; to be ended by `leave`. */
  enter(token: string): void {
    if (this.#holder?.token === token) this.#holder.connections++;
  }

  leave(token: string): void {
    if (this.#holder?.token !== token) return;
    this.#holder.connections--;
    this.#holder.seenMs = performance.now();
  }

  #isStale({ connections, seenMs, forGood }: Holder, now: number): boolean {
    return !forGood && connections <= 0 && now - seenMs >= this.#staleMs;
  }

  #state(token: string): Claimed {
    const holder = this.#holder;
    if (holder === null) return { granted: false, by: null, sinceMs: 0 };
    const sinceMs = Math.round(performance.now() - holder.sinceMs);
    return { granted: holder.token === token, by: holder.by, sinceMs };
  }
}
