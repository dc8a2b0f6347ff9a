// Which pages operations touch: that the three patterns are what they are called, held against plain counts.
import { describe, expect, test } from 'vitest';
import { drawOf, placeOf, scatter, zipf } from '#abdm/host/guest/pattern.js';
import { Random } from '#abdm/host/guest/random.js';
import { workload } from './guests.js';

const PAGE = 4096;

test.each([1, 2, 3, 15, 16, 17, 1000, 4099])('scattering %i is a permutation', (count) => {
  const scattered = scatter(count);
  const all = Array.from({ length: count }, (_, i) => scattered(i));
  expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
});

test.each([1, 15, 16, 17, 4096, 5003])('every page of a memory of %i has one place, in extents of 16', (pages) => {
  const place = placeOf(workload({ memoryBytes: pages * PAGE, workingSetBytes: pages * PAGE }));
  const places = Array.from({ length: pages }, (_, i) => place(i));
  for (const [i, at] of places.entries()) if (i % 16 > 0) expect(at).toBe(places[i - 1]! + 1);
  expect([...places].sort((a, b) => a - b)).toEqual(Array.from({ length: pages }, (_, i) => i));
});

test('a working set is spread over the whole memory', () => {
  const place = placeOf(workload({ memoryBytes: 4096 * PAGE, workingSetBytes: 512 * PAGE }));
  const eighths = new Set(Array.from({ length: 512 }, (_, i) => Math.floor(place(i) / 512)));
  expect(eighths.size).toBe(8);
});

describe('zipf', () => {
  test.each([1, 2, 10, 1000])('over %i ranks has the frequencies of its law', (count) => {
    const draws = 400_000;
    const rank = zipf(count);
    const random = Random.seeded(1, 0);
    const counts = new Float64Array(count + 1);
    for (let i = 0; i < draws; i++) counts[rank(random)]!++;
    expect(counts[0]).toBe(0);
    let sum = 0;
    for (let k = 1; k <= count; k++) sum += k ** -0.99;
    for (let k = 1; k <= count; k++) {
      const expected = (draws * k ** -0.99) / sum;
      // Six standard deviations of a count: a wrong law is off by far more.
      expect(Math.abs(counts[k]! - expected), `rank ${k}`).toBeLessThan(6 * Math.sqrt(expected) + 1);
    }
  });

  test('scatters what is popular over the working set', () => {
    const draw = drawOf(workload({ pattern: 'zipf', workingSetBytes: 1024 * PAGE }))(0);
    const random = Random.seeded(3, 0);
    const counts = new Uint32Array(1024);
    for (let i = 0; i < 100_000; i++) counts[draw(random, i)]!++;
    const popular = [...counts.keys()].sort((a, b) => counts[b]! - counts[a]!).slice(0, 16);
    expect(new Set(popular.map((page) => page >> 7)).size).toBeGreaterThan(5);
  });
});

test('uniform touches every page about as often', () => {
  const draw = drawOf(workload({ pattern: 'uniform', workingSetBytes: 100 * PAGE }))(0);
  const random = Random.seeded(9, 2);
  const counts = new Uint32Array(100);
  for (let i = 0; i < 100_000; i++) counts[draw(random, i)]!++;
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(6 * Math.sqrt(1000));
});

test('streaming: each stream walks over all pages, from a place of its own', () => {
  const draw = drawOf(workload({ pattern: 'streaming', workingSetBytes: 100 * PAGE, vcpus: 4 }));
  const random = Random.seeded(1, 0);
  for (let stream = 0; stream < 4; stream++) {
    const pages = Array.from({ length: 100 }, (_, i) => draw(stream)(random, i));
    expect(pages).toEqual(Array.from({ length: 100 }, (_, i) => (stream * 25 + i) % 100));
  }
});
