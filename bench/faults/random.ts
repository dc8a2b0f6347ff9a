// What chance decides in a run is decided by its seed: the same seed of the same row is the same run, as far as clocks and schedulers let it.

export class Random {
  #x: number;

  constructor(...seeds: readonly (number | string)[]) {
    // FNV-1a over what it is made from; xorshift32 from there.
    let x = 0x811c9dc5;
    for (const char of seeds.join('/')) x = Math.imul(x ^ char.charCodeAt(0), 0x01000193);
    this.#x = x >>> 0 || 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  /** A number in [0, 1). */
  next(): number {
    this.#x ^= this.#x << 13;
    this.#x ^= this.#x >>> 17;
    this.#x ^= this.#x << 5;
    return (this.#x >>> 0) / 2 ** 32;
  }

  /** A whole number below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** `count` different ones, in any order. */
  some<T>(from: readonly T[], count: number): T[] {
    const left = [...from];
    return Array.from({ length: count }, () => left.splice(this.below(left.length), 1)[0]!);
  }
}
