// Which frames the divider holds for fetchable, at the raw engine: the bitmap ends before frame ids do.
import { expect, test } from 'vitest';
import { DEDUP_BUCKET_BYTES } from '#abdm/bindings/abi.js';
import { slotsOf } from '../bindings/frames.js';
import { rawEngine, seeded } from '../engine.js';
import { page } from '../pages.js';

const DEDUPLICATED = 1;
const FETCHABLE = 3;
const BITS = 64;

test('a frame beyond the bitmap counts as unfetchable, and nothing beyond it is read or written', () => {
  const engine = rawEngine(1 << 20);
  const bitmap = engine.free;
  const table = engine.free + 128;
  const pages = table + DEDUP_BUCKET_BYTES;
  const window = pages + 3 * 4096;
  const out = window + 3 * 4096;
  engine.setKey(pages);
  engine.dedupInit(table, 1);
  engine.divideInit(bitmap, BITS);
  // What is behind the bitmap says that all of those frames are fetchable, and is not asked.
  const random = seeded(3);
  const put = (kinds: readonly number[]) => {
    for (const [i, kind] of kinds.entries()) engine.bytes.set(page('text', seeded(kind)), pages + i * 4096);
  };
  const divide = (id: number, naming: number) => {
    new Uint32Array(engine.bytes.buffer, 0x5400, 3).set([0, 1, 2]);
    expect(engine.divide(pages, 3, 0, random() % 100, id, out, 1 << 16, 1, 64, naming, window)).toBe(1);
    return slotsOf(engine.bytes.slice(out, out + (1 << 16))).map(({ at }) => at?.frame ?? null);
  };
  put([1, 2, 1]);
  // Its own content is always at hand.
  expect(divide(BITS - 1, FETCHABLE)).toEqual([null, null, BITS - 1]);
  expect(divide(BITS, FETCHABLE)).toEqual([BITS - 1, BITS - 1, BITS - 1]);
  put([3, 4, 3]);
  expect(divide(BITS, FETCHABLE)).toEqual([null, null, BITS]);
  expect(divide(BITS + 1, FETCHABLE)).toEqual([null, null, BITS + 1]);
  expect(divide(BITS + 2, DEDUPLICATED)).toEqual([BITS + 1, BITS + 1, BITS + 1]);
  put([1, 2, 1]);
  engine.bitmapSet(bitmap, BITS - 1);
  expect(divide(BITS + 3, DEDUPLICATED)).toEqual([BITS - 1, BITS - 1, BITS - 1]);
  expect(divide(BITS + 4, FETCHABLE)).toEqual([null, null, BITS + 4]);
  expect(engine.bytes.subarray(bitmap + BITS / 8, table).every((byte) => byte === 0)).toBe(true);
});
