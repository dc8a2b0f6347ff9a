// Notices a source that keeps its connection, and says nothing though it is asked again and again for pages that somebody waits for here: whoever waits for it
// would wait for ever. One that sends anything else is at work, and comes to those pages in time.

/** Whoever waits asks again within this: what was asked longer ago has come, or is not waited for any more. */
const BREAK_MS = 15_000;

export class Silence {
  readonly #limitMs: number;
  /** When it was asked first, since it has said something. */
  #since = Number.NaN;
  #askedAt = Number.NEGATIVE_INFINITY;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** It has said something, or is not there to be asked. */
  broken(): void {
    this.#since = Number.NaN;
  }

  /** It is asked. True if that was in vain for too long. */
  asked(now = performance.now()): boolean {
    if (Number.isNaN(this.#since) || now - this.#askedAt > BREAK_MS) this.#since = now;
    this.#askedAt = now;
    return now - this.#since >= this.#limitMs;
  }
}
