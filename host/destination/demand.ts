// Demand paging: what somebody waits for is fetched before all else.
//
// A page is waited for by a guest that has touched it, or by a frame from the source that is not STORED before its pages are in place. Where the page is had
// from is found out anew whenever something has changed, and every few milliseconds:
//
//   its frame is at nodes                       asked of the holder that answers best, over its urgent connection; of another one too if that takes long
//   it was just asked for in bulk               that is under way already
//   its frame is here, and it is a duplicate    so it is with the frame that holds its content
//   its frame is on its way, or was lost, or    the source is asked for the page, and again until it is there: it sends it, or says who has it; if it is not
//   nobody knows of one, or nobody answers      there any more, and no node has the page, it is lost (search.ts)
//
// A guest that has touched a page touches those behind it soon: their frames come first of what is fetched in bulk.

import type { Merger } from '../../bindings/merger.js';
import type { Holder } from '../mam/holders.js';
import type { FaultLatency } from '../summary.js';
import type { Frame } from './frame.js';
import type { Gatherer } from './gather.js';
import type { KnownFrames } from './known.js';
import { Latencies } from './latency.js';
import type { GatherWindow } from './window.js';

const LOOK_MS = 10;
/** What was asked for in bulk so long ago stands behind something. */
const STUCK_MS = 15;
/** Who has not answered within this is not waited for alone, */
const HEDGE_MS = 300;
/** and is not asked first for so long. */
const SLOW_MS = 2_000;
/** When all were asked in vain, they are asked again after this. */
const AGAIN_MS = 100;
/** The source is asked for a page so often, */
const ASK_MS = 500;
/** and so often for what no guest waits for: that may be much. */
const ASK_CALMLY_MS = 1_000;
/** Frames asked for at a time. */
const MAX_FETCHES = 8;
/** Frames behind a faulted page that come first. */
const NEAR_FRAMES = 8;
const NEAR_PAGES = 512;

export interface DemandOptions {
  merger: Merger;
  gatherer: Gatherer;
  known: KnownFrames;
  window: GatherWindow;
  vms: readonly { pages: number }[];
  /** Asks the source for pages; false: there is nobody to be asked. */
  ask(vm: number, pfns: readonly number[]): boolean;
  /** Slots that are left to others. */
  spareSlots: number;
  /** Nothing is fetched yet. */
  isHeld(): boolean;
}

/** A page that somebody waits for. */
interface Wanted {
  readonly vm: number;
  readonly pfn: number;
  /** When the guest touched it; null: it has not. */
  touchedAt: number | null;
  /** Frames that are not STORED before it is in place, or comes in a later one. */
  holds: { frame: number; done: () => void }[];
  /** When the source was asked for it. */
  askedAt: number;
}

/** A frame that is being fetched because somebody waits for it. */
interface Fetch {
  readonly tried: Set<Holder>;
  underWay: number;
  last: Holder | null;
  /** When that was asked. */
  at: number;
  /** Nobody is asked before. */
  pausedUntil: number;
}

/** How a holder answers. */
interface Manner {
  /** What it takes, lately. */
  ms: number;
  underWay: number;
  slowUntil: number;
}

export class Demand {
  readonly #options: DemandOptions;
  readonly #wanted = new Map<number, Wanted>();
  readonly #fetches = new Map<Frame, Fetch>();
  readonly #manners = new Map<Holder, Manner>();
  readonly #latencies: readonly Latencies[];
  readonly #requests: number[];
  #underWay = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: DemandOptions) {
    this.#options = options;
    this.#latencies = options.vms.map(() => new Latencies());
    this.#requests = options.vms.map(() => 0);
  }

  /** Pages that the guest of `vm` has waited for. */
  requests(vm: number): number {
    return this.#requests[vm]!;
  }

  /** How long 99 of a hundred pages were waited for in the last seconds, by whichever guest; null: none was. */
  get latelyP99Ms(): number | null {
    const all = this.#latencies.flatMap((latencies) => latencies.latelyP99Ms() ?? []);
    return all.length > 0 ? Math.max(...all) : null;
  }

  /** How long it waited for those that are in place; null: there are none. */
  latency(vm: number): FaultLatency | null {
    return this.#latencies[vm]!.quantiles;
  }

  /** The guest of `vm` waits for page `pfn`. */
  fault(vm: number, pfn: number): void {
    const wanted = this.#want(vm, pfn);
    if (wanted.touchedAt !== null) return;
    wanted.touchedAt = performance.now();
    this.#requests[vm]!++;
    this.#options.window.fault();
    this.look();
    this.#hastenBehind(vm, pfn);
  }

  /** Resolves when page `pfn` of `vm`, which frame `frame` cannot bring, is in place, or is to come in a later one. */
  want(vm: number, pfn: number, frame: number): Promise<void> {
    return new Promise((done) => {
      this.#want(vm, pfn).holds.push({ frame, done });
    });
  }

  /** So for all pages of frame `frame` that wait for what these other frames hold. */
  async hold(frame: number, unkept: readonly number[]): Promise<void> {
    const pages: { vm: number; pfn: number }[] = [];
    for (const id of unkept) {
      this.#options.merger.eachAwaiting(id, (vm, pfn, announcedBy) => {
        if (announcedBy === frame) pages.push({ vm, pfn });
      });
    }
    await Promise.all(pages.map(({ vm, pfn }) => this.want(vm, pfn, frame)));
  }

  /** Something was merged, has become known, or has taken too long. */
  look(): void {
    if (this.#wanted.size === 0 || this.#options.isHeld()) return;
    const now = performance.now();
    const asked = new Map<number, number[]>();
    for (const [key, wanted] of this.#wanted) {
      if (this.#isOver(wanted, now)) this.#wanted.delete(key);
      else if (
        !this.#find(wanted, now) &&
        now - wanted.askedAt >= (wanted.touchedAt === null ? ASK_CALMLY_MS : ASK_MS)
      ) {
        asked.set(wanted.vm, [...(asked.get(wanted.vm) ?? []), wanted.pfn]);
        wanted.askedAt = now;
      }
    }
    for (const [vm, pfns] of asked) this.#options.ask(vm, pfns);
    this.#options.gatherer.pump();
    if (this.#wanted.size === 0) this.stop();
  }

  /** Nobody waits for pages of this VM any more. */
  failVm(vm: number): void {
    for (const [key, wanted] of this.#wanted) {
      if (wanted.vm !== vm) continue;
      this.#wanted.delete(key);
      for (const { done } of wanted.holds) done();
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const [frame, { underWay }] of this.#fetches) if (underWay === 0) this.#fetches.delete(frame);
  }

  #want(vm: number, pfn: number): Wanted {
    const key = vm * 2 ** 32 + pfn;
    let wanted = this.#wanted.get(key);
    if (!wanted) {
      wanted = { vm, pfn, touchedAt: null, holds: [], askedAt: Number.NEGATIVE_INFINITY };
      this.#wanted.set(key, wanted);
      this.#timer ??= setInterval(() => this.look(), LOOK_MS);
    }
    return wanted;
  }

  /** Nobody waits for it any more. */
  #isOver(wanted: Wanted, now: number): boolean {
    const { vm, pfn, touchedAt } = wanted;
    const { merger } = this.#options;
    const isMerged = merger.isMerged(vm, pfn);
    const newest = merger.newest(vm, pfn);
    if (wanted.holds.length > 0) {
      for (const { frame, done } of wanted.holds) if (isMerged || newest !== frame) done();
      wanted.holds = wanted.holds.filter(({ frame }) => !isMerged && newest === frame);
    }
    if (isMerged && touchedAt !== null) this.#latencies[vm]!.add(now - touchedAt);
    return isMerged || (touchedAt === null && wanted.holds.length === 0);
  }

  /** Sees to it that the page comes from nodes. False if the source must be asked for it. */
  #find({ vm, pfn }: Wanted, now: number): boolean {
    const { merger, known } = this.#options;
    const frame = known.get(merger.newest(vm, pfn));
    if (frame?.state !== 'merged') return this.#fetch(frame, now);
    // Its other duplicates wait for other frames, for which nobody is in a hurry.
    const holder = frame.waitsFor.find((id) => merger.isAwaitedBy(vm, pfn, id));
    return holder !== undefined && this.#fetch(known.get(holder), now);
  }

  /** Fetches a frame. False if nobody can be asked, or nobody answers. */
  #fetch(frame: Frame | undefined, now: number): boolean {
    const { merger, gatherer, known, spareSlots } = this.#options;
    if (!frame || frame.holders.length === 0) return false;
    if (frame.state === 'known' || frame.state === 'merged') known.need(frame.id);
    if (frame.state !== 'queued' && frame.state !== 'asked') return false;
    let fetch = this.#fetches.get(frame);
    if (!fetch) {
      if (now - (gatherer.askedAt(frame) ?? Number.NEGATIVE_INFINITY) < STUCK_MS) return true;
      fetch = { tried: new Set(), underWay: 0, last: null, at: 0, pausedUntil: 0 };
      this.#fetches.set(frame, fetch);
    }
    if (now < fetch.pausedUntil) return false;
    if (now - fetch.at < HEDGE_MS && fetch.underWay > 0) return true;
    if (fetch.underWay > 0) this.#manner(fetch.last!).slowUntil = now + SLOW_MS;
    const holder = this.#best(frame, fetch, now);
    if (!holder) return false;
    if (this.#underWay < MAX_FETCHES && merger.freeSlots > spareSlots) void this.#fetchFrom(holder, frame, fetch, now);
    return true;
  }

  async #fetchFrom(holder: Holder, frame: Frame, fetch: Fetch, now: number): Promise<void> {
    const manner = this.#manner(holder);
    fetch.tried.add(holder);
    fetch.last = holder;
    fetch.at = now;
    fetch.underWay++;
    manner.underWay++;
    this.#underWay++;
    await this.#options.gatherer.fetchNow(frame, holder);
    fetch.underWay--;
    manner.underWay--;
    this.#underWay--;
    manner.ms += (performance.now() - now - manner.ms) / 4;
    if (frame.state === 'merged') this.#fetches.delete(frame);
    else {
      manner.slowUntil = performance.now() + SLOW_MS;
      if (fetch.underWay === 0 && !this.#best(frame, fetch, now)) {
        fetch.tried.clear();
        fetch.pausedUntil = performance.now() + AGAIN_MS;
      }
    }
    this.look();
  }

  /** Of those who have the frame and were not asked for it, the one that will have sent it first. */
  #best(frame: Frame, { tried }: Fetch, now: number): Holder | undefined {
    const cost = (holder: Holder) => {
      const { ms, underWay, slowUntil } = this.#manner(holder);
      const isOdd = slowUntil > now || (frame.failures?.has(holder) ?? false);
      return (isOdd ? SLOW_MS : 0) + ms * (1 + underWay);
    };
    const having = frame.holders.filter((holder) => holder.state === 'up' && !tried.has(holder));
    return having.sort((a, b) => cost(a) - cost(b))[0];
  }

  #manner(holder: Holder): Manner {
    let manner = this.#manners.get(holder);
    if (!manner) {
      manner = { ms: 0, underWay: 0, slowUntil: 0 };
      this.#manners.set(holder, manner);
    }
    return manner;
  }

  /** The frames behind this page. */
  #hastenBehind(vm: number, pfn: number): void {
    const { merger, gatherer, known, vms } = this.#options;
    const end = Math.min(vms[vm]!.pages, pfn + 1 + NEAR_PAGES);
    const near = new Set<Frame>();
    for (let page = pfn + 1, last = 0; page < end && near.size < NEAR_FRAMES; page++) {
      const id = merger.newest(vm, page);
      const frame = id === last ? undefined : known.get(id);
      last = id;
      if (frame?.state === 'queued') near.add(frame);
    }
    gatherer.hasten([...near]);
  }
}
