import { describe, expect, test } from 'vitest';
import { rawEngine, scale, seeded } from '../engine.js';
import { sipHash128 as oracle } from '../oracle/siphash.js';
import { SIPHASH_128_VECTORS } from '../vectors/siphash128.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('sipHash128', () => {
  const { bytes, free, sipHash128 } = rawEngine();
  const keyPtr = free;
  const outPtr = free + 16;

  /** Hashes `input`, put as close to the end of the memory as it goes, so that reading past it traps. */
  function hash(key: Uint8Array, input: Uint8Array): string {
    bytes.set(key, keyPtr);
    const ptr = bytes.length - input.length;
    bytes.fill(0xa5, ptr - 8, ptr);
    bytes.set(input, ptr);
    sipHash128(keyPtr, ptr, input.length, outPtr);
    return hex(bytes.subarray(outPtr, outPtr + 16));
  }

  test('gives the official vectors', () => {
    const counting = Uint8Array.from({ length: 64 }, (_, i) => i);
    expect(SIPHASH_128_VECTORS.length).toBe(64);
    const got = SIPHASH_128_VECTORS.map((_, length) => hash(counting.subarray(0, 16), counting.subarray(0, length)));
    expect(got).toEqual(SIPHASH_128_VECTORS);
  });

  test('agrees with the oracle for every length up to 272, and some longer', () => {
    const next = seeded(2);
    const random = (length: number) => Uint8Array.from({ length }, next);
    for (let i = 0; i < scale(300); i++) {
      const key = random(16);
      const input = random(i <= 272 ? i : next() % 2000);
      expect(hash(key, input), `${input.length} bytes`).toBe(hex(oracle(key, input)));
    }
  });

  test('writes 16 bytes and no more', () => {
    bytes.fill(0xa5, outPtr, outPtr + 32);
    hash(new Uint8Array(16), new Uint8Array(40));
    expect(hex(bytes.subarray(outPtr + 16, outPtr + 32))).toBe('a5'.repeat(16));
  });

  test('may write over its input', () => {
    const key = Uint8Array.from({ length: 16 }, (_, i) => 7 * i);
    const input = Uint8Array.from({ length: 48 }, (_, i) => 5 * i);
    bytes.set(key, keyPtr);
    bytes.set(input, outPtr);
    sipHash128(keyPtr, outPtr, input.length, outPtr);
    expect(hex(bytes.subarray(outPtr, outPtr + 16))).toBe(hex(oracle(key, input)));
  });
});
