// Whether compression pays on the link at hand: batch by batch, from what the last batches cost and saved.
//
// A page that is compressed reaches the other end sooner if compressing it takes less time than sending the bytes that it saves. Both differ from
// one part of memory to the next, so they are measured: while compression is on, every batch tells; while it is off, a few pages of some batches
// are tried. What does not pay costs no more than these few pages, and the batch or two that it takes to notice.

/** Pages of a batch that are tried while compression is off. */
const PROBE_PAGES = 8;
/** Batches from one probe to the next: twice as many each time, from the first to the second. */
const MIN_PAUSE = 4;
const MAX_PAUSE = 64;
/** Batches that are sent without compression at first, to learn what that costs. */
const LEARNING_BATCHES = 2;
/** Whatever a clock says that was disturbed: no page is compressed in less than this share of what it takes anyway. */
const LEAST_COST = 1 / 4;
/** How much the last batch counts against all before it. */
const WEIGHT = 1 / 4;
/** Compression must be worth more than it costs: measurements are not exact. */
const MARGIN = 1.1;

export class PaysOnLink {
  readonly #linkBytesPerMs: number;
  /** Milliseconds that a page takes without compression. */
  #baseMs: number | null = null;
  /** Milliseconds that compression adds to that, and bytes that it saves, a page. */
  #costMs: number | null = null;
  #savedBytes: number | null = null;
  #pause = MIN_PAUSE;
  #untilProbe = LEARNING_BATCHES + 1;

  /** `linkBytesPerS`: what the link carries. */
  constructor(linkBytesPerS: number) {
    this.#linkBytesPerMs = linkBytesPerS / 1000;
  }

  /** How many pages of the next batch should be tried: all, none, or a few to learn. */
  next(): number {
    if (this.#pays()) return Number.POSITIVE_INFINITY;
    if (--this.#untilProbe > 0) return 0;
    this.#untilProbe = this.#pause;
    this.#pause = Math.min(this.#pause * 2, MAX_PAUSE);
    return PROBE_PAGES;
  }

  /** A batch of `pages` pages that had to be sent took `ms` milliseconds; `tried` of them were compressed, which saved `savedBytes`. */
  learn(pages: number, tried: number, savedBytes: number, ms: number): void {
    if (pages === 0) return;
    if (tried === 0) {
      this.#baseMs = steady(this.#baseMs, ms / pages);
      return;
    }
    // A batch of nothing but zeros and duplicates says nothing of what a page costs: none may have done so yet.
    if (this.#baseMs === null) return;
    const costMs = (ms - this.#baseMs * pages) / tried;
    this.#costMs = mean(this.#costMs, Math.max(costMs, this.#baseMs * LEAST_COST));
    this.#savedBytes = mean(this.#savedBytes, savedBytes / tried);
    if (this.#pays()) this.#pause = this.#untilProbe = MIN_PAUSE;
  }

  #pays(): boolean {
    if (this.#costMs === null || this.#savedBytes === null) return false;
    return this.#savedBytes > this.#costMs * this.#linkBytesPerMs * MARGIN;
  }
}

function mean(before: number | null, now: number): number {
  return before === null ? now : before + (now - before) * WEIGHT;
}

/** A mean that a batch which was disturbed, and so took longer, hardly moves. */
function steady(before: number | null, now: number): number {
  return before === null || now < before ? now : before + ((now - before) * WEIGHT) / 4;
}
