// Whether compression pays on the link at hand: batch by batch, from what the last batches cost and saved.
//
// A page that is compressed reaches the other end sooner if compressing it takes less time than sending the bytes that it saves. Both differ from
// one part of memory to the next, so they are measured: while compression is on, every batch tells; while it is off, a few pages of some batches
// are tried. A batch that does not pay costs no more than these few pages: about 1 % of the time that it takes on the fastest link for which
// compression could pay at all.

/** Pages of a batch that are tried while compression is off. */
const PROBE_PAGES = 4;
/** Batches without a probe, at most, before the next one. */
const MAX_PAUSE = 16;
/** How much the last batch counts against all before it. */
const WEIGHT = 1 / 4;

export class PaysOnLink {
  readonly #linkBytesPerMs: number;
  /** Milliseconds that a page takes without compression, and what compression adds to that. */
  #baseMs: number | null = null;
  #costMs: number | null = null;
  /** Bytes that compression saves, a page. */
  #savedBytes: number | null = null;
  #pause = 1;
  #untilProbe = 1;

  /** `linkBytesPerS`: what the link carries. */
  constructor(linkBytesPerS: number) {
    this.#linkBytesPerMs = linkBytesPerS / 1000;
  }

  /** How many pages of the next batch should be tried: all, none, or a few to learn. */
  next(): number {
    if (this.#pays()) return Number.POSITIVE_INFINITY;
    // The very first batch is sent without compression, to learn what that costs.
    if (this.#baseMs === null || --this.#untilProbe > 0) return 0;
    this.#untilProbe = this.#pause;
    this.#pause = Math.min(this.#pause * 2, MAX_PAUSE);
    return PROBE_PAGES;
  }

  /** A batch of `pages` pages that had to be sent took `ms` milliseconds; `tried` of them were compressed, which saved `savedBytes`. */
  learn(pages: number, tried: number, savedBytes: number, ms: number): void {
    if (pages === 0) return;
    if (tried === 0) {
      this.#baseMs = mean(this.#baseMs, ms / pages);
      return;
    }
    const costMs = Math.max(0, ms - (this.#baseMs ?? 0) * pages) / tried;
    this.#costMs = mean(this.#costMs, costMs);
    this.#savedBytes = mean(this.#savedBytes, savedBytes / tried);
    if (this.#pays()) this.#pause = this.#untilProbe = 1;
  }

  #pays(): boolean {
    if (this.#costMs === null || this.#savedBytes === null) return false;
    return this.#savedBytes > this.#costMs * this.#linkBytesPerMs;
  }
}

function mean(before: number | null, now: number): number {
  return before === null ? now : before + (now - before) * WEIGHT;
}
