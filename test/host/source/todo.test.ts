// Pages that still have to be sent, against a plain twin: a set of numbers.
import { expect, test } from 'vitest';
import type { ImageSource } from '#abdm/host/image/image.js';
import { type Pages, readPages, Todo } from '#abdm/host/source/todo.js';
import { seeded } from '../../engine.js';

const listed = ({ base, pages, deltas }: Pages) => Array.from({ length: pages }, (_, i) => base + (deltas?.[i] ?? i));

test.each([0, 1, 31, 32, 33, 1000, 200_000])(
  'of %i pages: what is taken was added, each once, in turn from the cursor on',
  (pages) => {
    const random = seeded(pages + 1);
    const todo = new Todo(pages);
    const twin = new Set<number>();
    let cursor = 0;
    const take = (pfns: number[], most: number) => {
      expect(pfns.length).toBeLessThanOrEqual(most);
      for (const pfn of pfns) expect(twin.delete(pfn)).toBe(true);
      if (pfns.length === 0) return;
      expect(pfns).toEqual([...pfns].sort((a, b) => a - b));
      expect(pfns.at(-1)! - pfns[0]!).toBeLessThan(65_536);
    };
    for (let step = 0; step < 300; step++) {
      const pfn = pages > 0 ? random() % pages : 0;
      const what = random() % 8;
      if (what === 0 && pages > 0) {
        todo.add(pfn);
        twin.add(pfn);
      } else if (what === 1) {
        const bitmap = new Uint8Array(todo.bitmap.byteLength);
        // Bits behind the last page mean nothing.
        for (let i = 0; i < 40; i++) bitmap[random() % Math.max(1, bitmap.length)] = random();
        const given = [];
        for (let i = 0; i < pages; i++) if (bitmap[i >> 3]! & (1 << (i & 7))) given.push(i);
        expect(todo.addBitmap(bitmap)).toBe(given.length);
        for (const one of given) twin.add(one);
      } else if (what === 2 && random() % 20 === 0) {
        todo.addAll();
        for (let i = 0; i < pages; i++) twin.add(i);
      } else if (what === 3) {
        todo.moveTo(pfn);
        cursor = pfn;
      } else if (what === 4) {
        const within = [...twin].filter((one) => one >= pfn && one < pfn + 16).sort((a, b) => a - b);
        const taken = todo.takeWithin(pfn, 16);
        expect(taken ? listed(taken) : []).toEqual(within);
        take(within, 16);
      } else {
        const most = 1 + (random() % 64);
        const ahead = [...twin].filter((one) => one >= cursor).sort((a, b) => a - b);
        const order = ahead.length > 0 ? ahead : [...twin].sort((a, b) => a - b);
        const taken = todo.take(most);
        const expected = order.filter((one) => one < order[0]! + 65_536).slice(0, most);
        expect(taken ? listed(taken) : []).toEqual(expected);
        if (!taken) continue;
        expect(taken.deltas === undefined).toBe(expected.at(-1)! - expected[0]! === expected.length - 1);
        take(expected, most);
        cursor = expected.at(-1)! + 1 < pages ? expected.at(-1)! + 1 : 0;
      }
      expect(todo.count).toBe(twin.size);
      expect(todo.has(pfn)).toBe(twin.has(pfn));
    }
    todo.clear();
    expect([todo.count, todo.take(64)]).toEqual([0, null]);
  },
);

test('pages that follow each other are read at once, to where they belong', () => {
  const reads: number[][] = [];
  const image = {
    read(pfn: number, pages: number, memory: Uint8Array, offset: number) {
      reads.push([pfn, pages, offset]);
      for (let i = 0; i < pages; i++) memory[offset + i * 4096] = pfn + i;
    },
  } as Partial<ImageSource> as ImageSource;
  const memory = new Uint8Array(8 * 4096);
  readPages(image, { base: 10, pages: 6, deltas: Uint16Array.of(0, 1, 5, 7, 8, 9) }, memory);
  expect(reads).toEqual([
    [10, 2, 0],
    [15, 1, 8192],
    [17, 3, 12288],
  ]);
  expect([0, 1, 2, 3, 4, 5].map((i) => memory[i * 4096])).toEqual([10, 11, 15, 17, 18, 19]);
  reads.length = 0;
  readPages(image, { base: 3, pages: 5, deltas: undefined }, memory);
  expect(reads).toEqual([[3, 5, 0]]);
});
