import { expect, test } from 'vitest';
import { RecentPages } from '#abdm/host/destination/recent.js';

const PAGE = 4096;
const page = (value: number) => new Uint8Array(3 * PAGE).fill(value, PAGE, 2 * PAGE);

test('pages are kept in their last version, until one that shares their place comes', () => {
  const recent = new RecentPages(3);
  const got = new Uint8Array(PAGE + 1);
  const value = (vm: number, pfn: number) => (recent.get(vm, pfn, got, 1) ? got[1] : undefined);
  expect(value(0, 1)).toBeUndefined();
  recent.put(0, 1, page(1), PAGE, PAGE);
  recent.put(0, 2, page(3), PAGE, PAGE);
  expect([value(0, 0), value(0, 1), value(0, 2), value(1, 1)]).toEqual([undefined, 1, 3, undefined]);
  recent.put(0, 1, page(4), PAGE, PAGE);
  expect([value(0, 1), value(0, 2)]).toEqual([4, 3]);
  recent.put(0, 4, page(5), PAGE, PAGE);
  expect([value(0, 1), value(0, 2), value(0, 4)]).toEqual([undefined, 3, 5]);
  expect(got[0]).toBe(0);
  expect(got.subarray(1).every((byte) => byte === 5)).toBe(true);
});

test('a run of pages may go past the last place, and pages of the same number of two VMs do not meet', () => {
  const recent = new RecentPages(1000);
  const got = new Uint8Array(PAGE);
  const value = (vm: number, pfn: number) => (recent.get(vm, pfn, got, 0) ? got[0] : undefined);
  const run = new Uint8Array(4 * PAGE).map((_, i) => 1 + Math.floor(i / PAGE));
  recent.put(0, 2998, run, 0, run.length);
  expect([2997, 2998, 2999, 3000, 3001, 3002].map((pfn) => value(0, pfn))).toEqual([undefined, 1, 2, 3, 4, undefined]);
  recent.put(
    1,
    2998,
    run.map((byte) => byte + 10),
    0,
    run.length,
  );
  expect([2998, 2999, 3000, 3001].map((pfn) => value(0, pfn))).toEqual([1, 2, 3, 4]);
  expect([2998, 2999, 3000, 3001].map((pfn) => value(1, pfn))).toEqual([11, 12, 13, 14]);
});
