// Numbers that look like chance and are not: the same for the same seed, on every host. Fast rather than good: what they make has to be
// incompressible and to repeat nowhere, no more.

/** Mixes 32 bits: a bijection, so different numbers stay different (the last step of MurmurHash3). */
export function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/** Fills `words` from a key of 64 bits: xorshift32 and a counter, added up. About 2 us a page. */
export function fillRandom(words: Int32Array, key: number, otherKey: number): void {
  let x = key | 0 || 1;
  let count = otherKey | 0;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    count = (count + 0x9e3779b9) | 0;
    words[i] = x + count;
  }
}

/** The chance of one stream of operations (sfc32): its four words of state can be written down and gone on with. */
export class Random {
  constructor(readonly words: Uint32Array) {}

  static seeded(seed: number, stream: number): Random {
    const random = new Random(Uint32Array.of(mix(seed), mix(seed ^ 0x5bd1e995), mix(~stream), 1));
    for (let i = 0; i < 12; i++) random.next();
    return random;
  }

  /** In [0, 2^32). */
  next(): number {
    const { words } = this;
    const a = words[0]!;
    const b = words[1]!;
    const c = words[2]!;
    const sum = (a + b + words[3]!++) >>> 0;
    words[0] = b ^ (b >>> 9);
    words[1] = c + (c << 3);
    words[2] = ((c << 21) | (c >>> 11)) + sum;
    return sum;
  }

  /** In [0, 1). */
  share(): number {
    return this.next() / 2 ** 32;
  }

  /** In (0, 1), with all the bits that a number has. */
  fraction(): number {
    return (this.next() * 2 ** 20 + (this.next() >>> 12) + 0.5) / 2 ** 52;
  }
}
