import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type RawEngine, rawEngine, seeded } from '../engine.js';

const BITS = 1024;
const BYTES = BITS / 8;

/** Writes the bits as a map between guard bytes, and says where. */
function load(engine: RawEngine, bits: readonly boolean[]): number {
  const ptr = engine.free + 16;
  engine.bytes.fill(0x5a, engine.free, ptr + BYTES + 16);
  engine.bytes.fill(0, ptr, ptr + BYTES);
  bits.forEach((bit, i) => {
    if (bit) engine.bytes[ptr + (i >> 3)]! |= 1 << (i & 7);
  });
  return ptr;
}

function unload(engine: RawEngine, ptr: number): boolean[] {
  const outside = [...engine.bytes.subarray(ptr - 16, ptr), ...engine.bytes.subarray(ptr + BYTES, ptr + BYTES + 16)];
  expect(outside.every((byte) => byte === 0x5a)).toBe(true);
  return Array.from({ length: BITS }, (_, i) => ((engine.bytes[ptr + (i >> 3)]! >> (i & 7)) & 1) === 1);
}

const engine = rawEngine();
// Runs rather than single bits: full and empty words are what the fast paths are for.
const bits = fc
  .array(fc.tuple(fc.boolean(), fc.oneof(fc.nat(3), fc.nat(300))), { maxLength: 20 })
  .map((runs) => runs.flatMap(([bit, length]) => Array<boolean>(length).fill(bit)))
  .map((all) => Array.from({ length: BITS }, (_, i) => all[i] ?? false));
const edge = fc.oneof(fc.nat(BITS), fc.constantFrom(0, 63, 64, 65, 127, 128, BITS - 64, BITS - 1, BITS));

test('set, clear and test touch one bit', () => {
  fc.assert(
    fc.property(bits, fc.nat(BITS - 1), (map, index) => {
      const ptr = load(engine, map);
      expect(engine.bitmapTest(ptr, index)).toBe(map[index] ? 1 : 0);
      engine.bitmapSet(ptr, index);
      expect(unload(engine, ptr)).toEqual(map.with(index, true));
      engine.bitmapClear(ptr, index);
      expect(unload(engine, ptr)).toEqual(map.with(index, false));
    }),
  );
});

test('setRange sets [from, to) and nothing else', () => {
  fc.assert(
    fc.property(bits, edge, edge, (map, from, to) => {
      const ptr = load(engine, map);
      engine.bitmapSetRange(ptr, from, to);
      expect(unload(engine, ptr)).toEqual(map.map((bit, i) => bit || (i >= from && i < to)));
    }),
    { numRuns: 500 },
  );
});

test('count and nextUnset equal a walk over single bits', () => {
  fc.assert(
    fc.property(bits, edge, edge, (map, from, to) => {
      const ptr = load(engine, map);
      expect(engine.bitmapCount(ptr, from, to)).toBe(map.slice(from, Math.max(from, to)).filter(Boolean).length);
      let next = from;
      while (next < to && map[next]) next++;
      expect(engine.bitmapNextUnset(ptr, from, to)).toBe(from < to ? next : to);
    }),
    { numRuns: 1000 },
  );
});

test('every pair of ends within three words, over seeded bits', () => {
  const next = seeded(3);
  const map = Array.from({ length: BITS }, () => next() % 8 !== 0);
  const ptr = load(engine, map);
  for (let from = 0; from <= 192; from++) {
    let count = 0;
    let unset = -1;
    for (let to = from; to <= 192; to++) {
      if (to > from) {
        if (map[to - 1]) count++;
        else if (unset < 0) unset = to - 1;
      }
      expect(engine.bitmapCount(ptr, from, to)).toBe(count);
      expect(engine.bitmapNextUnset(ptr, from, to)).toBe(unset < 0 ? to : unset);
    }
  }
});

test('indices above 2^31 come out as they are', () => {
  const big = rawEngine(2 ** 29 + 65536);
  const ptr = big.free;
  const last = 2 ** 32 - 1;
  big.bitmapSetRange(ptr, 2 ** 31 - 5, last);
  expect(big.bitmapCount(ptr, 0, last)).toBe(2 ** 31 + 4);
  expect(big.bitmapNextUnset(ptr, 2 ** 31 - 5, last)).toBe(last);
  big.bitmapClear(ptr, last - 3);
  expect(big.bitmapTest(ptr, last - 3)).toBe(0);
  expect(big.bitmapNextUnset(ptr, 2 ** 31 - 5, last)).toBe(last - 3);
});

test('nothing behind a map is touched, even where memory ends with it', () => {
  const ptr = engine.bytes.length - BYTES;
  engine.bytes.fill(0, ptr);
  engine.bitmapSetRange(ptr, 3, BITS);
  expect(engine.bitmapCount(ptr, 0, BITS)).toBe(BITS - 3);
  expect(engine.bitmapNextUnset(ptr, 3, BITS)).toBe(BITS);
});
