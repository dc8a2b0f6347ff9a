// How far ahead of a destination frames are sent to it, once a guest may run there: what its guest waits for comes behind them. Far enough that its link is never
// idle, and while it asks for pages no further than that takes.
import type { Scatter } from '../mam/scatter.js';

const QUIET_MS = 30;
const IN_FAULTS_MS = 4;
/** So long after it asked for a page the next one is expected. */
const FAULTS_MS = 500;

export class Ahead {
  readonly #scatter: Scatter;
  #isBounded = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(scatter: Scatter) {
    this.#scatter = scatter;
  }

  /** It has asked for pages lately, and may soon ask for others. */
  get isAsked(): boolean {
    return this.#timer !== undefined;
  }

  /** From now on guests may run at the destination. */
  bound(): void {
    if (this.#isBounded) return;
    this.#isBounded = true;
    this.#scatter.setAhead(QUIET_MS);
  }

  /** A page is asked for. */
  fault(): void {
    if (!this.#isBounded) return;
    if (this.#timer) this.#timer.refresh();
    else {
      this.#scatter.setAhead(IN_FAULTS_MS);
      this.#timer = setTimeout(() => this.#onQuiet(), FAULTS_MS).unref();
    }
  }

  #onQuiet(): void {
    this.#timer = undefined;
    this.#scatter.setAhead(QUIET_MS);
  }
}
