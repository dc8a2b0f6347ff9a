// Pages that the destination asks its source for: those that a guest waits for there, and those that it cannot make of what it has, since what they are
// duplicates of was overwritten. Each is answered with the extent around it, in a frame that needs no other: what of it was not sent yet, or, if the page was
// sent already but has not come, all of it once more. What was not sent yet goes on behind it. The question may have crossed the page on its way: what the
// destination has got meanwhile is not sent again, nor what is about to arrive there. A page that the guest itself has not sent yet is asked of it first.

import type { Kept } from '../mam/ledger.js';
import type { Departure } from './departure.js';
import type { Pages } from './todo.js';

/** Pages that go together: 64 KiB, so that one that waits does not wait long for the others. */
const EXTENT_PAGES = 16;
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

  /** The next answer, whose pages do not have to be sent otherwise any more; null: nobody waits. */
  next(): Answer | null {
    for (const [key, { departure, base, pfns }] of this.#waiting) {
      this.#waiting.delete(key);
      if (departure.error) continue;
      const { outgoing } = departure;
      const { todo } = outgoing;
      const pages = Math.min(EXTENT_PAGES, todo.pages - base);
      const wasSent = pfns.some((pfn) => !todo.has(pfn));
      const unsent = todo.takeWithin(base, pages);
      todo.moveTo(base + pages);
      const answer = wasSent ? outgoing.readable(base, pages) : unsent;
      if (answer) return { departure, pages: answer };
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
