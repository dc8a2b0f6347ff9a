// Pages that the destination asks its source for: those that a guest waits for there, and those that it cannot make of what it has, since what they are
// duplicates of was overwritten. Each is answered in a frame that needs no other:
//
//   the destination is      with the page alone: 64 KiB take 2.6 ms at 200 Mbit/s, and so do those for others that wait. What of the extent around it was
//   slow, the source idle   not sent yet follows, as long as little of that is on its way
//   otherwise               with the extent: two frames for it would cost the exit more than they save the guest
//
// What was not sent yet goes on behind it. A page that was sent already but has not come is sent once more, and where it is not sent alone its extent too, for which
// it would soon be asked. The question may have crossed the page on its way: what the destination has got meanwhile is not sent again, nor what is about to arrive
// there. A page that the guest itself has not sent yet is asked of it first.

import type { Kept } from '../mam/ledger.js';
import type { Departure } from './departure.js';
import type { Pages } from './todo.js';

/** Pages that go together, or soon after each other: 64 KiB. */
const EXTENT_PAGES = 16;
/** Extents that are still to follow a page; of more than that the oldest go when all others do. */
const MAX_FOLLOWING = 16;
/** What takes longer to arrive than that is sent once more, in front of it. */
const SOON_MS = 50;

interface Request {
  readonly departure: Departure;
  readonly base: number;
  /** Pages of the extent that somebody waits for. */
  readonly pfns: number[];
}

/** What a request is answered with. */
export interface Answer {
  readonly departure: Departure;
  readonly pages: Pages;
}

export class Requests {
  /** By VM and extent: in the order in which they came. */
  readonly #waiting = new Map<string, Request>();
  /** Answered with pages alone; the last one follows first. */
  readonly #following: Request[] = [];

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** These pages of a VM are waited for. */
  ask(departure: Departure, pfns: readonly number[]): void {
    for (const pfn of pfns) {
      const { outgoing } = departure;
      if (outgoing.awaited.has(pfn)) {
        outgoing.want(pfn, () => this.ask(departure, [pfn]));
        continue;
      }
      if (!outgoing.todo.has(pfn) && arrives(outgoing.newest(pfn), outgoing.straightMs)) continue;
      const base = pfn - (pfn % EXTENT_PAGES);
      const key = `${departure.vm} ${base}`;
      const known = this.#waiting.get(key);
      if (known) known.pfns.push(pfn);
      else this.#waiting.set(key, { departure, base, pfns: [pfn] });
    }
  }

  /**
   * The next answer, whose pages do not have to be sent otherwise any more; null: nobody waits.
   * @param alone what is waited for and nothing else.
   */
  next(alone: boolean): Answer | null {
    for (const [key, request] of this.#waiting) {
      this.#waiting.delete(key);
      const { departure, base, pfns } = request;
      if (departure.error) continue;
      const { outgoing } = departure;
      const { todo } = outgoing;
      const end = Math.min(base + EXTENT_PAGES, todo.pages);
      const wasSent = pfns.some((pfn) => !todo.has(pfn));
      for (let pfn = base; pfn < end && !alone; pfn++) if (wasSent || todo.has(pfn)) pfns.push(pfn);
      const pages = outgoing.readable(pfns);
      if (!pages) continue;
      for (const pfn of pfns) todo.delete(pfn);
      todo.moveTo(end);
      if (alone) {
        this.#following.push(request);
        if (this.#following.length > MAX_FOLLOWING) this.#following.shift();
      }
      return { departure, pages };
    }
    return null;
  }

  /** What was not sent yet of the extent of a page that was answered alone; null: there is none. */
  following(): Answer | null {
    for (let request = this.#following.pop(); request; request = this.#following.pop()) {
      const { departure, base } = request;
      // Nobody waits for it: it may not go where its VM's pages may not.
      if (departure.error || !departure.outgoing.isReady) continue;
      const pages = departure.outgoing.todo.takeWithin(base, EXTENT_PAGES);
      if (pages) return { departure, pages };
    }
    return null;
  }
}

/** The destination has it, or gets it soon, and needs no other for it. `ms`: how long what is on its way there takes. */
function arrives(frame: Kept | undefined, ms: number): boolean {
  if (!frame) return false;
  if (frame.holders === 'destination') return true;
  return frame.isStraight && frame.state === 'coming' && frame.references.length === 0 && ms < SOON_MS;
}
