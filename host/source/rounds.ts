// Rounds: while a guest runs, what it wrote to since it was read is read again. When do the last ones fit the downtime that is allowed, and does that
// moment come nearer at all?

/** What the end of a round says. */
export type Verdict =
  /** What is dirty now could be sent within the downtime. */
  | 'fits'
  | 'again'
  /** There may be no more rounds. */
  | 'limit';

export interface RoundLimits {
  readonly rounds: number;
  readonly maxDowntimeMs: number;
}

/** It comes nearer if what is dirty is less than this of what it was two rounds before. */
const SHRINKS = 0.9;

export class Rounds {
  readonly #limits: RoundLimits;
  /** Pages that each round had to send, the next one's too. */
  readonly #pages: number[];

  constructor(pages: number, limits: RoundLimits) {
    this.#pages = [pages];
    this.#limits = limits;
  }

  /** Rounds that are over. */
  get done(): number {
    return this.#pages.length - 1;
  }

  /** The set of dirty pages shrinks, or it is too early to tell. */
  get converges(): boolean {
    if (this.done < 2) return true;
    const [before, , now] = this.#pages.slice(-3);
    return now! < SHRINKS * before!;
  }

  /** A round is over: so many pages were written to meanwhile, and sending them would take so long. */
  over(dirtyPages: number, expectedMs: number): Verdict {
    this.#pages.push(dirtyPages);
    if (dirtyPages === 0 || expectedMs <= this.#limits.maxDowntimeMs) return 'fits';
    return this.done >= this.#limits.rounds ? 'limit' : 'again';
  }
}
