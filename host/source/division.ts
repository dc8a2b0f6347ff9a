// The work itself: pages are read, divided, and given to those who keep them, one turn after the other, as long as there is memory for frames and the rate
// limit allows it. First what somebody waits for, then what was lost, then whose turn it is. Between turns everything else is heard.
//
// A turn makes all of its frames before it gives them away: each of the two is code and data that the other drives out of the processor's caches, which costs
// up to a tenth of the source's time when they alternate. Only what somebody waits for is given away at once.

import { setImmediate } from 'node:timers/promises';
import type { Batch, DivideOptions } from '../../bindings/divider.js';
import { asAbdmError } from '../../bindings/errors.js';
import type { Framer } from '../mam/framer.js';
import type { Kept } from '../mam/ledger.js';
import type { Frame, Scatter } from '../mam/scatter.js';
import type { RateLimit } from '../wire/rate.js';
import type { Ahead } from './ahead.js';
import { Changes } from './changes.js';
import type { Departure } from './departure.js';
import type { Pace } from './pace.js';
import { Requests } from './requests.js';
import { Schedule } from './schedule.js';
import { type Pages, readPages } from './todo.js';

/** A turn makes so many frames: enough for the caches, */
const FRAMES_A_TURN = 8;
/** and no more bytes than the least of a node's windows takes: what is more would go to nodes though the destination keeps up. */
const BYTES_A_TURN = 512 * 1024;
/** It divides so many pages at least; and no more while somebody waits for pages at the destination, so that what he asks for is heard soon, or at first. */
const PAGES_A_TURN = 64;
/** Since it had to wait for links, for it to have time. */
const FULL_MS = 100;
const KINDS = ['zeroPages', 'duplicatePages', 'compressedPages', 'normalPages'] as const;

export interface DivisionOptions {
  readonly departures: readonly Departure[];
  readonly framer: Framer;
  readonly scatter: Scatter;
  readonly limit: RateLimit;
  readonly pace: Pace;
  readonly ahead: Ahead;
  /** Guests overwrite what they were sent: what a page is a duplicate of has to be at nodes. */
  readonly fetchable: boolean;
  /** Aborted: all of it is over. */
  readonly signal: AbortSignal;
}

export class Division {
  readonly requests = new Requests();
  readonly #options: DivisionOptions;
  readonly #schedule: Schedule<Departure>;
  /** Frames that nobody has any more, to be made once more of memory that stands still. */
  #again: Kept[] = [];
  readonly #changes = new Changes();
  /** What this turn has made: to be given away when it ends. */
  #made: (() => void)[] = [];
  /** When there was last no memory for more, as links are slower than this; infinite while there is none. */
  #fullAt = Number.NEGATIVE_INFINITY;
  #ended = false;

  constructor(options: DivisionOptions) {
    this.#options = options;
    this.#schedule = new Schedule(options.departures);
  }

  /** Links are what it waits for, not the processor: smaller frames cost nobody anything. */
  get hasTime(): boolean {
    return performance.now() - this.#fullAt < FULL_MS;
  }

  /** Something is to be divided, or there is memory for it. */
  wake(): void {
    this.#changes.wake();
  }

  end(): void {
    this.#ended = true;
    this.wake();
  }

  /** Until `end`. @throws what aborts the signal. */
  async run(): Promise<void> {
    const { framer, limit, signal } = this.#options;
    while (!this.#ended) {
      signal.throwIfAborted();
      const hasRoom = this.requests.isEmpty ? framer.hasRoom : framer.hasUrgentRoom;
      const waitMs = this.requests.isEmpty ? limit.waitMs : 0;
      if (!hasRoom) {
        this.#fullAt = Number.POSITIVE_INFINITY;
        await this.#changes.next();
        this.#fullAt = performance.now();
      } else if (waitMs > 0) {
        const timer = setTimeout(() => this.wake(), waitMs);
        await this.#changes.next();
        clearTimeout(timer);
      } else if (this.#turn()) await setImmediate();
      else await this.#changes.next();
    }
  }

  /**
   * Nobody has these frames any more. Those of memory that stands still are made again; of the others, and of all that refer to them, the pages are sent in new
   * ones.
   */
  lost(frames: readonly Kept[]): void {
    const { departures, scatter, framer } = this.#options;
    for (const frame of frames) if (departures[frame.vm]!.outgoing.canMakeAgain(frame)) this.#again.push(frame);
    let more = frames.filter((frame) => !departures[frame.vm]!.outgoing.canMakeAgain(frame));
    if (more.length > 0) framer.forget();
    const known = new Set([...more, ...this.#again].map(({ id }) => id));
    while (more.length > 0) {
      for (const frame of more) departures[frame.vm]!.outgoing.sendInstead(frame);
      const ids = new Set(more.map(({ id }) => id));
      more = scatter.ledger.referring(ids).filter(({ id }) => !known.has(id));
      for (const { id } of more) known.add(id);
    }
    this.wake();
  }

  /** This VM is over: what it has lost is not made again. */
  over(departure: Departure): void {
    const gone = this.#again.filter(({ vm }) => vm === departure.vm);
    this.#again = this.#again.filter(({ vm }) => vm !== departure.vm);
    this.lost(gone);
  }

  /** False if there is nothing to do. */
  #turn(): boolean {
    const { framer, limit, ahead, pace } = this.#options;
    const most = ahead.isAsked || !pace.isKnown ? 0 : FRAMES_A_TURN;
    const before = framer.counts.frameBytes;
    /** One more, as long as those until now. */
    const fits = (made: number) => (framer.counts.frameBytes - before) * (1 + 1 / made) <= BYTES_A_TURN;
    let pages = 0;
    for (let made = 0; pages < PAGES_A_TURN || (made < most && fits(made)); made++) {
      let divided = framer.hasUrgentRoom ? this.#answer() : 0;
      if (divided === 0 && framer.hasRoom && limit.waitMs === 0) divided = this.#makeAgain() || this.#divide();
      if (divided === 0) break;
      pages += divided;
    }
    this.#give();
    return pages > 0;
  }

  #give(): void {
    const made = this.#made;
    this.#made = [];
    for (const give of made) give();
  }

  /** What somebody waits for, and what follows that. Each of these returns how many pages it has divided. */
  #answer(): number {
    const { requests } = this;
    const { scatter } = this.#options;
    const alone = scatter.isSlow && this.hasTime;
    const answer = requests.next(alone) ?? (scatter.canAccompany() ? requests.following() : null);
    if (!answer) return 0;
    this.#make(answer.departure, answer.pages, { alone: true }, (frame) => scatter.urgent(frame));
    // Whoever waits for it does not wait for the rest of the turn.
    this.#give();
    return answer.pages.pages;
  }

  #makeAgain(): number {
    const { departures, framer, scatter } = this.#options;
    const frame = this.#again.shift();
    if (!frame) return 0;
    const departure = departures[frame.vm]!;
    if (this.#read(departure, frame, framer.againBatch)) {
      const again = framer.divideAgain(frame);
      this.#count(again);
      this.#made.push(() => scatter.put(again));
    } else this.lost([frame]);
    return frame.pages;
  }

  #divide(): number {
    const { framer, scatter, fetchable } = this.#options;
    const departure = this.#schedule.next();
    const pages = departure?.outgoing.todo.take(framer.framePages);
    if (!departure || !pages) return 0;
    // The destination has all that was given to it: what goes there too may refer to that.
    const straight = fetchable && scatter.canGoStraight();
    const options = departure.outgoing.isAlone ? { alone: true } : { fetchableOnly: fetchable && !straight };
    const bytes = this.#make(departure, pages, options, (frame) => scatter.put(frame));
    this.#schedule.sent(departure, bytes);
    return pages.pages;
  }

  /** Returns the bytes of the frames. */
  #make(departure: Departure, pages: Pages, options: DivideOptions, put: (frame: Frame) => void): number {
    const { framer } = this.#options;
    if (!this.#read(departure, pages, framer.batch)) return 0;
    const before = { ...framer.counts };
    const { base, deltas } = pages;
    const which = { vm: departure.vm, base, pages: pages.pages, ...(deltas && { deltas }) };
    const frames = framer.divide(which, options);
    for (const frame of frames) this.#count(frame);
    this.#made.push(() => {
      for (const frame of frames) put(frame);
      departure.outgoing.sent(frames);
    });
    for (const kind of KINDS) departure.summary[kind] += framer.counts[kind] - before[kind];
    return framer.counts.frameBytes - before.frameBytes;
  }

  /** False if that is not possible: then this VM is over. */
  #read(departure: Departure, pages: Pages, batch: Batch): boolean {
    try {
      readPages(departure.image, pages, batch.bytes);
      return true;
    } catch (error) {
      // What is lost with it is looked for among what was given away.
      this.#give();
      departure.fail(asAbdmError(error));
      return false;
    }
  }

  #count({ bytes }: Frame): void {
    this.#options.limit.take(bytes.byteLength);
    this.#options.pace.sent();
  }
}
