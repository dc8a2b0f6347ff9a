import { createXXHash3 } from 'hash-wasm';
import { describe, expect, test } from 'vitest';
import { rawEngine, scale, seeded } from '../engine.js';

/** libxxhash's answers (0.8.1) for the first so many bytes of `pattern`. */
const KNOWN: [number, bigint][] = [
  [0, 0x2d06800538d394c2n],
  [1, 0xc44bdff4074eecdbn],
  [3, 0x3698b80191e625f9n],
  [4, 0x2e4ac2f1c52157fcn],
  [8, 0x60e1baa91347a1f2n],
  [9, 0x9c88fc32c37b56cbn],
  [16, 0xf9fbd0260ba978dfn],
  [17, 0xc56f339d36cc73d7n],
  [128, 0x31ccf8dec850d035n],
  [129, 0xc72af4c6ac4dea94n],
  [240, 0xe315d53d5129eeden],
  [241, 0x18773c512b008a63n],
  [1024, 0xb2ac1d11fd7b209bn],
  [1025, 0xc7fd981796d2137an],
  [4096, 0xc5e68ea97732fe41n],
  [262_144, 0xfaf9412742136111n],
  [1_000_000, 0x7d7fb8297d3a8ae8n],
];
const pattern = Uint8Array.from({ length: 1_000_000 }, (_, i) => i * 31 + (i >> 8) * 7);

describe('xxh3', async () => {
  const { bytes, free, xxh3 } = rawEngine(4 << 20);
  const view = new DataView(bytes.buffer);
  const hasher = await createXXHash3(0, 0);
  const next = seeded(3);
  const random = Uint8Array.from({ length: 3 << 20 }, next);
  const outPtr = free;

  /** Hashes `input`, put `room` bytes before the end of the memory: with 0, reading past it traps. */
  function hash(input: Uint8Array, room = 0): bigint {
    const ptr = bytes.length - input.length - room;
    bytes.set(input, ptr);
    xxh3(ptr, input.length, outPtr);
    return view.getBigUint64(outPtr, true);
  }

  /** hash-wasm writes its digest in xxHash's canonical order, which is big-endian; the engine's is little-endian. */
  function peer(input: Uint8Array): bigint {
    const digest = hasher.init().update(input).digest('binary');
    return new DataView(digest.buffer, digest.byteOffset).getBigUint64(0, false);
  }

  test.each(KNOWN)('gives what libxxhash gives for %i bytes', (length, expected) => {
    expect(hash(pattern.subarray(0, length))).toBe(expected);
  });

  test('agrees with hash-wasm for every length up to 2,304', () => {
    const wrong: number[] = [];
    for (let length = 0; length <= 2304; length++) {
      const from = next() % 4096;
      const input = random.subarray(from, from + length);
      if (hash(input) !== peer(input)) wrong.push(length);
    }
    expect(wrong).toEqual([]);
  });

  test('agrees with hash-wasm for long inputs at any alignment', () => {
    for (let i = 0; i < scale(60); i++) {
      const length = next() % 300_000;
      const input = random.subarray(0, length);
      expect(hash(input, next() % 64), `${length} bytes`).toBe(peer(input));
    }
    expect(hash(random)).toBe(peer(random));
  });

  test('writes 8 bytes and no more', () => {
    bytes.fill(0xa5, outPtr, outPtr + 16);
    hash(random.subarray(0, 500));
    expect(view.getBigUint64(outPtr + 8, true)).toBe(0xa5a5a5a5a5a5a5a5n);
  });
});
