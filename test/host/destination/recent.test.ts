import { expect, test } from 'vitest';
import { RecentPages } from '#abdm/host/destination/recent.js';

const PAGE = 4096;
const page = (value: number) => new Uint8Array(3 * PAGE).fill(value, PAGE, 2 * PAGE);

test('the last pages are kept, in their last version; the oldest make room', () => {
  const recent = new RecentPages(3);
  const got = new Uint8Array(PAGE + 1);
  const value = (vm: number, pfn: number) => (recent.get(vm, pfn, got, 1) ? got[1] : undefined);
  expect(value(0, 1)).toBeUndefined();
  recent.put(0, 1, page(1), PAGE);
  recent.put(1, 1, page(2), PAGE);
  recent.put(0, 2, page(3), PAGE);
  expect([value(0, 1), value(1, 1), value(0, 2), value(1, 2)]).toEqual([1, 2, 3, undefined]);
  recent.put(0, 1, page(4), PAGE);
  expect([value(0, 1), value(1, 1), value(0, 2)]).toEqual([4, 2, 3]);
  recent.put(0, 3, page(5), PAGE);
  expect([value(0, 1), value(1, 1), value(0, 2), value(0, 3)]).toEqual([undefined, 2, 3, 5]);
  expect(got[0]).toBe(0);
  expect(got.subarray(1).every((byte) => byte === 5)).toBe(true);
});
