// How far ahead of a destination frames are sent to it, once a guest may run there: what its guest waits for comes behind them. Far enough that its link is never
// idle, and while it asks for pages no further than that takes.
import type { Lead, Scatter } from '../mam/scatter.js';

const QUIET: Lead = { ms: 30, frames: 2 };
/** With less one could not see how fast a destination is, and a busy one, whose acknowledgements come late, would leave its link idle; */
const IN_FAULTS: Lead = { ms: 8, frames: 2 };
/** where that is known not to be as fast as the source, nodes take what it does not. */
const IN_FAULTS_SLOW: Lead = { ms: 0, frames: 1 };
/** So long after it asked for a page the next one is expected. */
const FAULTS_MS = 500;

export class Ahead {
  readonly #scatter: Scatter;
  #isBounded = false;
  #hasTime = false;
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
    this.#scatter.setAhead(QUIET);
  }

  /**
   * A page is asked for.
   * @param hasTime what goes to nodes instead costs the source nothing.
   */
  fault(hasTime: boolean): void {
    if (!this.#isBounded) return;
    if (!this.#timer || hasTime !== this.#hasTime) {
      this.#scatter.setAhead(IN_FAULTS, hasTime ? IN_FAULTS_SLOW : IN_FAULTS);
      this.#hasTime = hasTime;
    }
    if (this.#timer) this.#timer.refresh();
    else this.#timer = setTimeout(() => this.#onQuiet(), FAULTS_MS).unref();
  }

  #onQuiet(): void {
    this.#timer = undefined;
    this.#scatter.setAhead(QUIET);
  }
}
