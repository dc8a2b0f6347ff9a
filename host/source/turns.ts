// Guests that leave together stand still one after the other, not all at once: where each takes some processor to be handed over, all at once would take as long
// for each as for all.

import { within } from '../wire/within.js';

/** Who takes longer is not waited for any more. */
const LIMIT_MS = 250;

export class Turns {
  #last: Promise<void> = Promise.resolve();

  /** Resolves when it is one's turn, to what ends it; that may be called more than once. */
  async take(): Promise<() => void> {
    const before = this.#last;
    let end!: () => void;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#last = before.then(() => within(LIMIT_MS, ended, () => new Error('late')).catch(() => {}));
    await before;
    return end;
  }
}
