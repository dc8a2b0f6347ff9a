// How far ahead of a destination frames are sent to it, once a guest may run there: what its guest waits for comes behind them. Far enough that its link is never
// idle, and while it asks for pages no further than that takes.
import type { Lead, Scatter } from '../mam/scatter.js';

const QUIET: Lead = { ms: 30, frames: 2 };
const IN_FAULTS: Lead = { ms: 4, frames: 1 };
/** Where there are no nodes the exit has no other way. */
const IN_FAULTS_DIRECT: Lead = { ms: 4, frames: 2 };
/** So long after it asked for a page the next one is expected. */
const FAULTS_MS = 500;

export class Ahead {
  readonly #scatter: Scatter;
  readonly #inFaults: Lead;
  #isBounded = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(scatter: Scatter, direct: boolean) {
    this.#scatter = scatter;
    this.#inFaults = direct ? IN_FAULTS_DIRECT : IN_FAULTS;
  }

  /** It has asked for pages lately, and may soon ask for others. */
  get isAsked(): boolean {
    return this.#timer !== undefined;
  }

  /** From now on guests may run at the destination. */
  bound(): void {
    if (this.#isBounded) return;
    this.#isBounded = true;
    this.#scatter.setAhead(QUIET);
  }

  /** A page is asked for. */
  fault(): void {
    if (!this.#isBounded) return;
    if (this.#timer) this.#timer.refresh();
    else {
      this.#scatter.setAhead(this.#inFaults);
      this.#timer = setTimeout(() => this.#onQuiet(), FAULTS_MS).unref();
    }
  }

  #onQuiet(): void {
    this.#timer = undefined;
    this.#scatter.setAhead(QUIET);
  }
}
