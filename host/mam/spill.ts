// Whether frames go to nodes while the destination has no room for them (they spill), or wait for it.
//
// What nodes keep travels twice, and on the first way it takes its share of the source's link from what goes straight. That is worth it where the destination alone
// takes less than all take together: then the source is free sooner. Where it takes as much, as fast as the source can send, nodes only cost: the same
// link, and time that everybody's processors then lack. Which of the two it is cannot be seen from outside, so it is tried. Nodes get all, little or nothing
// of what the destination has no room for: little is as much as keeps the link busy, and leaves the destination most of it if it can take that. What is
// for nodes only counts as well, and is held to little too; where they get nothing, it alone goes to them.
//
//      spilling (all)  -- 100 ms after the first frame, then ever more seldom -->  yielding (little)      until nodes have what was on its way to
//         ^  ^                                                                     |    |                them, and 100 to 200 ms more
//         |  +-- it takes less than a third of all: this has cost next to nothing -+    |  more
//         |                                                                             v
//         +-- all together took more -------------------------------------------  alone (nothing)        60 to 250 ms: how much does it take?
//         |                                                                             |  all that there was; or as much, and then together first
//         |                                                                             v
//         +-- they take more --  together (little)  <-- now and then, or it slows --  straight (nothing)
//                                60 to 120 ms
//
// Rates are what was acknowledged lately. They vary on a busy host: of a trial the best moment counts, and a difference only from a quarter on.

/** Rates are made of slices of this. */
const SLICE_MS = 20;
/** From the first frame to the first trial: connections and hosts are slow at first. */
const WARM_MS = 100;
const TOGETHER_MS = { least: 60, most: 120 };
/** Until then what was on its way to nodes has its share of the source's link; slow nodes are not waited for longer. */
const DRAIN_MS = 300;
/** While nodes get little, one that is as fast takes more of all than this: more than half when it is warm. */
const SLOW_SHARE = 0.3;
/** These end when what the destination takes grows no more; alone sooner where that is less than half. */
const YIELDING_MS = { least: 100, most: 200 };
const ALONE_MS = { clear: 60, least: 100, most: 250 };
const GROWS = 1.1;
const MOMENT_MS = 40;
/** So much more has to be taken together. */
const WORTH = 1.25;
/** So much less than before, and it is looked at again; not before it has its rate again after a trial. */
const SLOWER = 0.6;
const SETTLED_MS = 300;
/** Until the next trial, at first: hosts may have been slow when they began. Each is twice as far off as the one before, */
const SOON_MS = 150;
/** and at least so far where nodes had to get nothing for it, */
const AGAIN_MS = 500;
/** where it was clear twice that it takes little, or all together took no more than the destination alone, */
const NO_MORE = 1.05;
const CLEAR_AGAIN_MS = 2_400;
/** or where nodes had to get nothing, and that cost more than a third of the rate. */
const DEAR = 1.5;
const DEAR_AGAIN_MS = 8_000;
/** With less than this left to be sent it is not tried again: what could be saved is not worth a trial, which may cost 100 ms of the exit. */
const LEFT_MS = 2_000;
/** Share of what it takes alone from which on the destination's link counts as full. */
const FULL = 0.9;

type State = 'spilling' | 'yielding' | 'alone' | 'straight' | 'together';

const NODES_GET = {
  spilling: 'all',
  yielding: 'little',
  alone: 'nothing',
  straight: 'nothing',
  together: 'little',
} as const;

interface Slice {
  ms: number;
  straightBytes: number;
  bytes: number;
  /** There was more that the destination could have had, had it had room. */
  waits: boolean;
}

const empty = (): Slice => ({ ms: 0, straightBytes: 0, bytes: 0, waits: false });

export class Spill {
  #state: State = 'spilling';
  /** When the state began; and when, at the earliest, the next trial may. */
  #since = 0;
  #trialAt = Number.POSITIVE_INFINITY;
  /** Between trials, next time. */
  #againMs = SOON_MS / 2;
  /** Bytes a millisecond: of all just before a trial; what the destination takes alone, as far as is known. */
  #rateBefore = 0;
  #aloneRate = 0;
  /** Of the trial's moments; how often it was looked, and how often something waited. */
  #best = 0;
  #isDraining = false;
  #looks = 0;
  #waits = 0;
  /** The latest first. */
  #slices: Slice[] = [];
  #slice = empty();
  #sliceAt: number;
  readonly #now: () => number;

  /** @param now milliseconds, monotonic. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#sliceAt = now();
  }

  /** How much of what the destination has no room for goes to nodes. */
  get nodesGet(): 'all' | 'little' | 'nothing' {
    return NODES_GET[this.#state];
  }

  /** The destination was tried, and takes less than all together. Unknown, and so false, while it is tried alone again. */
  get isSlow(): boolean {
    return this.#aloneRate > 0 && (this.#state === 'spilling' || this.#state === 'yielding');
  }

  /** What goes straight fills the destination's link: what it asked of nodes meanwhile would only take its place. */
  get fills(): boolean {
    // In the short time in which nodes get some again, the destination takes that from them: otherwise its link would not be full.
    if (this.#state === 'together') return false;
    // Where nothing waits for it, it has room for more.
    if (!this.#slice.waits && !this.#slices[0]?.waits) return false;
    // When it is tried it is to take as much as it can.
    if (this.#state !== 'spilling') return true;
    return this.#aloneRate > 0 && this.#rate(100, 'straightBytes') > FULL * this.#aloneRate;
  }

  /** Somebody has acknowledged so many bytes. */
  stored(bytes: number, straight: boolean): void {
    const slice = this.#slice;
    slice.bytes += bytes;
    if (!straight) return;
    slice.straightBytes += bytes;
    if (this.#trialAt === Number.POSITIVE_INFINITY) this.#trialAt = this.#now() + WARM_MS;
  }

  /**
   * Call it often. Whether `nodesGet` has changed.
   * @param waits since the last call there was more that the destination could have had, had it had room.
   * @param isDrained nothing is on its way to nodes, or waits for them.
   * @param leftBytes still to be sent, as far as is known.
   */
  look(waits: boolean, isDrained: boolean, leftBytes = Number.POSITIVE_INFINITY): boolean {
    this.#slice.waits ||= waits;
    const now = this.#now();
    const ms = now - this.#sliceAt;
    if (ms < SLICE_MS) return false;
    this.#slices = [{ ...this.#slice, ms }, ...this.#slices].slice(0, 10);
    const before = this.nodesGet;
    this.#step(now, now - this.#since, this.#slice.waits, isDrained, leftBytes);
    this.#slice = empty();
    this.#sliceAt = now;
    return this.nodesGet !== before;
  }

  #step(now: number, ms: number, waits: boolean, isDrained: boolean, leftBytes: number): void {
    if (this.#state === 'spilling') {
      // It takes at least what it has just taken.
      if (this.#aloneRate > 0) this.#aloneRate = Math.max(this.#rate(100, 'straightBytes'), this.#aloneRate);
      if (now < this.#trialAt || !this.#isBusy) return;
      if (this.#aloneRate > 0 && leftBytes < LEFT_MS * this.#rate(100, 'bytes')) return;
      this.#try('yielding', now);
      this.#isDraining = !isDrained;
    } else if (this.#isDraining) {
      if (!isDrained && ms < DRAIN_MS) return;
      this.#isDraining = false;
      this.#since = now;
    } else if (this.#state === 'yielding') {
      const grows = this.#grows();
      if (ms < YIELDING_MS.least || (ms < YIELDING_MS.most && grows)) return;
      const rate = this.#rate(MOMENT_MS, 'straightBytes');
      if (rate > SLOW_SHARE * this.#rate(MOMENT_MS, 'bytes')) {
        this.#enter('alone', now);
        this.#isDraining = !isDrained;
        return;
      }
      const isKnown = this.#aloneRate > 0;
      this.#aloneRate = Math.max(this.#aloneRate, rate);
      this.#become('spilling', now, isKnown ? CLEAR_AGAIN_MS : SOON_MS);
    } else if (this.#state === 'alone') {
      this.#looks++;
      if (waits) this.#waits++;
      // What comes first was on its way before.
      const grows = ms > MOMENT_MS && this.#grows();
      const isClear = 2 * this.#best < this.#rateBefore;
      if (ms < (isClear ? ALONE_MS.clear : ALONE_MS.least) || (ms < ALONE_MS.most && waits && grows)) return;
      this.#aloneRate = this.#best;
      // It had all that there was: whoever makes frames is not faster, and what they hold is not always the same.
      const hadAll = 2 * this.#waits < this.#looks && 3 * this.#best > this.#rateBefore;
      if (hadAll) this.#become('straight', now, SOON_MS);
      // It had to leave some: perhaps all together were as slow before only because hosts had just begun.
      else if (this.#aloneRate * WORTH >= this.#rateBefore) this.#enter('together', now, this.#aloneRate);
      else this.#become('spilling', now, this.#rateBefore > DEAR * this.#aloneRate ? DEAR_AGAIN_MS : AGAIN_MS);
    } else if (this.#state === 'straight') {
      const rate = this.#rate(100, 'straightBytes');
      this.#aloneRate = Math.max(rate, this.#aloneRate);
      if (this.#isBusy && (now >= this.#trialAt || (ms > SETTLED_MS && rate < SLOWER * this.#aloneRate)))
        this.#try('together', now);
    } else if (ms >= TOGETHER_MS.least) {
      const rate = this.#rate(MOMENT_MS, 'bytes');
      if (ms < TOGETHER_MS.most && rate > GROWS * this.#rateBefore) return;
      this.#aloneRate = this.#rateBefore;
      if (rate > WORTH * this.#rateBefore) this.#become('spilling', now, AGAIN_MS);
      else this.#become('straight', now, rate > NO_MORE * this.#rateBefore ? SOON_MS : CLEAR_AGAIN_MS);
    }
  }

  /** The best of the trial's moments is better than those before. */
  #grows(): boolean {
    const before = this.#best;
    this.#best = Math.max(before, this.#rate(MOMENT_MS, 'straightBytes'));
    return this.#best > GROWS * before;
  }

  /** There was enough to be sent lately: what was sent shows how much can be. */
  get #isBusy(): boolean {
    return this.#slices.slice(0, 5).filter(({ waits }) => waits).length >= 4;
  }

  #try(trial: 'yielding' | 'together', now: number): void {
    this.#looks = 0;
    this.#waits = 0;
    this.#enter(trial, now, this.#rate(100, 'bytes'));
  }

  #enter(state: State, now: number, rateBefore = this.#rateBefore): void {
    this.#rateBefore = rateBefore;
    this.#best = 0;
    this.#state = state;
    this.#since = now;
  }

  /** Until a trial, at least `leastMs` from now. */
  #become(state: 'spilling' | 'straight', now: number, leastMs: number): void {
    this.#againMs = Math.max(leastMs, 2 * this.#againMs);
    this.#enter(state, now);
    this.#trialAt = now + this.#againMs;
  }

  /** Bytes a millisecond over the last slices, of so much time at least. */
  #rate(overMs: number, of: 'straightBytes' | 'bytes'): number {
    let ms = 0;
    let bytes = 0;
    for (const slice of this.#slices) {
      ms += slice.ms;
      bytes += slice[of];
      if (ms >= overMs) break;
    }
    return ms > 0 ? bytes / ms : 0;
  }
}
