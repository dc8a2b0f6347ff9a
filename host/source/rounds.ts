// Rounds: while a guest runs, what it wrote to since it was read is read again. When do the last ones fit the downtime that is allowed, and does that
// moment come nearer at all?

/** What the end of a round says. */
export type Verdict =
  /** What is dirty now could be sent within the downtime. */
  | 'fits'
  | 'again'
  /** There may be no more rounds. */
  | 'limit';

/** It comes nearer if what is dirty is less than this of what it was two rounds before. */
const SHRINKS = 0.9;
/** A rate is measured over so long at a time. */
const SLICE_MS = 100;

export class Rounds {
  readonly #limit: number;
  readonly #maxDowntimeMs: number;
  /** Pages that each round had to send, the next one's too. */
  readonly #pages: number[];

  constructor(pages: number, { limit, maxDowntimeMs }: { limit: number; maxDowntimeMs: number }) {
    this.#pages = [pages];
    this.#limit = limit;
    this.#maxDowntimeMs = maxDowntimeMs;
  }

  /** Rounds that are over. */
  get done(): number {
    return this.#pages.length - 1;
  }

  /** The set of dirty pages shrinks, or it is too early to tell. */
  get converges(): boolean {
    const [before, , now] = this.#pages.slice(-3);
    return now === undefined || now < SHRINKS * before!;
  }

  /** A round is over: so many pages were written to meanwhile, and sending them would take so long. */
  over(dirtyPages: number, expectedMs: number): Verdict {
    this.#pages.push(dirtyPages);
    if (dirtyPages === 0 || expectedMs <= this.#maxDowntimeMs) return 'fits';
    return this.done >= this.#limit ? 'limit' : 'again';
  }
}

/** How fast frames are acknowledged. */
export class Pace {
  #bytes = 0;
  #sinceMs = performance.now();
  #perMs = 0;

  acknowledged(bytes: number): void {
    this.#bytes += bytes;
  }

  /** How long so many bytes take. */
  msFor(bytes: number): number {
    const now = performance.now();
    const elapsedMs = now - this.#sinceMs;
    if (elapsedMs >= SLICE_MS) {
      this.#perMs = this.#bytes / elapsedMs;
      this.#bytes = 0;
      this.#sinceMs = now;
    }
    return bytes === 0 ? 0 : bytes / this.#perMs;
  }
}
