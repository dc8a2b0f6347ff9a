import { describe, expect, it } from 'vitest';
import { Arrivals } from '#abdm/host/image/qemu/arrivals.js';
import { Shadow } from '#abdm/host/image/qemu/shadow.js';
import { seeded } from '../../../engine.js';
import { Listener } from './source-qemus.js';

const PAGE = 4096;
/** Of a chunk. */
const PAGES = 16384;

const page = (value: number) => new Uint8Array(PAGE).fill(value);

describe('a shadow', () => {
  it('is zeros, and takes no memory, until something is written', () => {
    const shadow = new Shadow(2 ** 30);
    shadow.zero(2 ** 29);
    expect(shadow.chunkBytes).toBe(0);
    const bytes = page(1);
    shadow.read(2 ** 30 - 1, 1, bytes, 0);
    expect(bytes).toEqual(page(0));
    shadow.write(2 ** 30 - 1, page(2), 0);
    expect(shadow.chunkBytes).toBe(PAGES * PAGE);
  });

  it('has what was written last, across chunks, and at the end', () => {
    const pages = 2 * PAGES + 3;
    const shadow = new Shadow(pages);
    const expected = new Uint8Array(pages);
    const random = seeded(3);
    const from = Buffer.alloc(PAGE + 8);
    for (let i = 0; i < 3000; i++) {
      // Around the ends of chunks, so that pages are written again and again.
      const pfn = Math.min(pages - 1, (random() % 3) * PAGES + PAGES * (random() % 2) + (random() % 8));
      const value = random() % 4;
      expected[pfn] = value;
      if (value === 0) shadow.zero(pfn);
      else shadow.write(pfn, from.fill(value, 8), 8);
      from.fill(0xee);
    }
    const bytes = Buffer.alloc((pages + 1) * PAGE, 0xee);
    shadow.read(0, pages, bytes, PAGE);
    expect(bytes.subarray(0, PAGE).equals(Buffer.alloc(PAGE, 0xee))).toBe(true);
    for (let pfn = 0; pfn < pages; pfn++) {
      const at = (pfn + 1) * PAGE;
      if (bytes[at] === expected[pfn] && bytes[at + PAGE - 1] === expected[pfn]) continue;
      expect.fail(`page ${pfn}`);
    }
    const two = Buffer.alloc(2 * PAGE);
    shadow.read(PAGES - 1, 2, two, 0);
    expect([two[0], two[PAGE]]).toEqual([expected[PAGES - 1], expected[PAGES]]);
  });
});

describe('what has come', () => {
  const HUGE = 2 ** 21;
  const BLOCKS = [
    { name: 'bios', bytes: 3 * PAGE, hostPageBytes: PAGE },
    { name: 'ram', bytes: 2 * HUGE, hostPageBytes: HUGE },
  ];

  function begun() {
    const arrivals = new Arrivals();
    arrivals.begin(BLOCKS);
    const listener = new Listener();
    arrivals.listener = listener;
    return { arrivals, listener };
  }

  const first = (arrivals: Arrivals, pfn: number) => {
    const bytes = new Uint8Array(PAGE).fill(0xee);
    arrivals.shadow.read(pfn, 1, bytes, 0);
    return bytes[0];
  };

  it('is told by the number of the page, and again to whoever comes later', () => {
    const { arrivals, listener } = begun();
    arrivals.onPage(1, 5 * PAGE, page(7), 0);
    arrivals.onZero(0, 2 * PAGE);
    expect([...listener.has]).toEqual([8, 2]);
    expect(first(arrivals, 8)).toBe(7);
    const late = new Listener();
    arrivals.listener = late;
    arrivals.replay();
    expect([...late.has]).toEqual([2, 8]);
  });

  it('does not count when it is to come once more, and a page of zeros is one', () => {
    const { arrivals, listener } = begun();
    for (const offset of [0, PAGE, 3 * PAGE]) arrivals.onPage(1, offset, page(7), 0);
    const said: number[][] = [];
    listener.onAwaited = (...range) => void said.push(range);
    arrivals.onDiscard(1, PAGE, 2 * HUGE - PAGE);
    // What had not come is awaited anyway.
    expect(said).toEqual([
      [4, 1],
      [6, 1],
    ]);
    arrivals.onZero(1, PAGE);
    expect(first(arrivals, 4)).toBe(0);
    expect(first(arrivals, 3)).toBe(7);
    // It never comes: it is zeros at the end.
    expect(first(arrivals, 6)).toBe(7);
    listener.has.clear();
    arrivals.end();
    expect(first(arrivals, 6)).toBe(0);
    expect(listener.has.size).toBe(arrivals.pages - 2);
  });

  it('is asked for once, by the host page, unless it is there', () => {
    const { arrivals } = begun();
    const asked: number[][] = [];
    const want = (pfn: number) => arrivals.want(pfn, (...where) => void asked.push(where));
    arrivals.onZero(0, 0);
    for (const pfn of [0, 1, 1, 3 + 512, 3 + 700, 3 + 1023, 3]) want(pfn);
    expect(asked).toEqual([
      [0, PAGE],
      [1, HUGE],
      [1, 0],
    ]);
    arrivals.begin(BLOCKS);
    want(0);
    expect(asked.at(-1)).toEqual([0, 0]);
  });

  it('must be of the same memory the next time, and of whole pages', () => {
    const { arrivals, listener } = begun();
    arrivals.begin(BLOCKS);
    expect(listener.awaited).toBe(arrivals.pages);
    expect(() => arrivals.begin([BLOCKS[0]!])).toThrow('has changed');
    const odd = [{ name: 'ram', bytes: HUGE + PAGE, hostPageBytes: HUGE }];
    expect(() => new Arrivals().begin(odd)).toThrow('RAM block ram has 2101248 bytes in pages of 2097152');
  });
});
