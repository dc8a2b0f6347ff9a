import { describe, expect, test } from 'vitest';
import { PAGE_BYTES } from '#abdm/bindings/abi.js';
import { rawEngine, scale, seeded } from '../engine.js';

describe('isZero', () => {
  test('sees a single bit at any place of the page', () => {
    const { bytes, free, isZero } = rawEngine();
    const page = bytes.subarray(free, free + PAGE_BYTES);
    expect(isZero(free)).toBe(1);
    const missed: number[] = [];
    for (let bit = 0; bit < PAGE_BYTES * 8; bit++) {
      page[bit >> 3] = 1 << (bit & 7);
      if (isZero(free) !== 0) missed.push(bit);
      page[bit >> 3] = 0;
    }
    expect(missed).toEqual([]);
    expect(isZero(free)).toBe(1);
  });

  test('looks at nothing but the page', () => {
    const { bytes, free, isZero } = rawEngine();
    const last = bytes.length - PAGE_BYTES;
    bytes.fill(255, free, last);
    expect(isZero(last)).toBe(1);
    bytes.fill(0, free, free + PAGE_BYTES);
    expect(isZero(free)).toBe(1);
    expect(isZero(free + 1)).toBe(0);
  });
});

describe('countZero', () => {
  test('counts none of no pages', () => {
    const { free, countZero } = rawEngine();
    expect(countZero(free, 0)).toBe(0);
  });

  test('agrees with a byte by byte count', () => {
    const pages = 64;
    const { bytes, free, countZero } = rawEngine(pages * PAGE_BYTES);
    const next = seeded(1);
    for (let round = 0; round < scale(50); round++) {
      bytes.fill(0, free);
      for (let i = 0; i < pages; i++) {
        if (next() % 3 > 0) bytes[free + i * PAGE_BYTES + (next() % PAGE_BYTES)] = next() & 255;
      }
      const from = next() % pages;
      const count = (next() % (pages - from)) + 1;
      let zero = 0;
      for (let i = from; i < from + count; i++) {
        const at = free + i * PAGE_BYTES;
        if (bytes.subarray(at, at + PAGE_BYTES).every((byte) => byte === 0)) zero++;
      }
      expect(countZero(free + from * PAGE_BYTES, count)).toBe(zero);
    }
  });
});
