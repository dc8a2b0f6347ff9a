// Whose turn it is: of the VMs that have something to send, the one that has sent least for its weight. One that joins late, or had nothing to send for a
// while, does not catch up on what the others had sent meanwhile.

/** Who takes part. */
export interface Contender {
  /** Its share of the link, relative to the others'. */
  readonly weight: number;
  /** It has something to send. */
  readonly isReady: boolean;
  /** Its guest stands still until this is sent: whoever has such pages comes before all others. */
  readonly isPressing: boolean;
  /** It is about to stand still, and what others send now would be in its way. */
  readonly needsQuiet: boolean;
}

export class Schedule<T extends Contender> {
  /** What each has sent, by its weight. */
  readonly #spent: Map<T, number>;
  /** Where the last turn began: nobody stays behind this. */
  #level = 0;

  constructor(contenders: readonly T[]) {
    this.#spent = new Map(contenders.map((one) => [one, 0]));
  }

  /** Whose turn it is; null: nobody has anything to send. */
  next(): T | null {
    let best: T | null = null;
    const all = [...this.#spent.keys()];
    const isQuiet = all.some(({ needsQuiet }) => needsQuiet);
    for (const one of all) {
      if (one.isReady && (!isQuiet || one.isPressing) && (best === null || this.#isBefore(one, best))) best = one;
    }
    // Who comes before all others says nothing of how far they are.
    if (best && !best.isPressing) this.#level = Math.max(this.#level, this.#spent.get(best)!);
    return best;
  }

  /** It has sent so many bytes. */
  sent(one: T, bytes: number): void {
    this.#spent.set(one, Math.max(this.#spent.get(one)!, this.#level) + bytes / one.weight);
  }

  #isBefore(one: T, other: T): boolean {
    if (one.isPressing !== other.isPressing) return one.isPressing;
    return this.#spent.get(one)! < this.#spent.get(other)!;
  }
}
