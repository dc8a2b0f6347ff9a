// A run with next to no pages: every row is there and is as documented, and sides that claim to do the same come to the same.
import { availableParallelism, loadavg } from 'node:os';
import { beforeAll, describe, expect, it } from 'vitest';
import { interleave } from '../../bench/interleave.js';
import { KEY } from '../../bench/kernels/divide.js';
import { KERNELS } from '../../bench/kernels.js';
import { judgeNoise } from '../../bench/machine.js';
import { Native } from '../../bench/native/native.js';
import { parseOptions } from '../../bench/options.js';
import { createRecipe, PAGE_CLASSES } from '../../bench/pages.js';
import { Pool } from '../../bench/pool.js';
import { type Line, lineText, type Row } from '../../bench/rows.js';
import { measureRatios } from '../../bench/run.js';
import { quantile, spread } from '../../bench/statistics.js';
import { skipped } from '../skipped.js';

const TINY = { pages: 192, slicePages: 64, rounds: 3, warmUpMs: 0, workerPages: 128 };
const options = { ...parseOptions([]), sizes: TINY };
const lines: Line[] = [];
const rows = () => lines.filter((line): line is Row => line.type === 'ratio');

beforeAll(async () => {
  await measureRatios(options, (line) => lines.push(JSON.parse(JSON.stringify(line)) as Line));
});

describe('bench:ratio', () => {
  it('has a row for every kernel, each of its classes of pages, and each peer', () => {
    const found = new Set(rows().map(({ kernel, pages }) => `${kernel} ${pages}`));
    for (const { name, pages } of KERNELS) for (const one of pages) expect(found).toContain(`${name} ${one}`);
    const against = (kernel: string) => [
      ...new Set(
        rows()
          .filter((row) => row.kernel === kernel)
          .map((row) => row.against),
      ),
    ];
    expect(against('zero')).toContain('Buffer.compare');
    expect(against('xxh3')).toEqual(expect.arrayContaining(['hash-wasm', 'xxhash-wasm', '@node-rs/xxhash']));
    expect(against('contentId')).toEqual(expect.arrayContaining(['node:crypto', 'hash-wasm', '@node-rs/xxhash']));
    for (const kernel of ['lz4.compress', 'lz4.decompress']) {
      expect(against(kernel)).toEqual(expect.arrayContaining(['lz4-wasm-nodejs', 'lz4-napi']));
    }
    for (const kernel of ['divide', 'merge']) {
      const composed = ['hash-wasm + Map + lz4-wasm-nodejs', 'xxhash-wasm + Map + lz4-napi'];
      expect(against(kernel)).toEqual(expect.arrayContaining(composed));
    }
    expect(against('workers')).toEqual(availableParallelism() > 1 ? ['one-worker'] : []);
  });

  it('every row has its fields', () => {
    for (const row of rows()) {
      expect(row).toMatchObject({ type: 'ratio', kernel: expect.any(String), against: expect.any(String) });
      expect(PAGE_CLASSES).toContain(row.pages);
      expect(row.low).toBeLessThanOrEqual(row.ratio);
      expect(row.ratio).toBeLessThanOrEqual(row.high);
      for (const value of [row.low, row.gbPerS, row.againstGbPerS]) expect(value).toBeGreaterThan(0);
      expect(row.rounds).toBe(TINY.rounds);
      if (row.kernel !== 'lz4.compress' && row.kernel !== 'divide') continue;
      expect(row.sizeRatio).toBeGreaterThan(0.9);
      expect(row.sizeRatio! / row.againstSizeRatio!).toBeGreaterThan(0.9);
      expect(lineText(row)).toContain(row.against);
    }
  });

  it('says on what it ran, whether there is a native column, and whether it was disturbed', () => {
    expect(lines[0]).toMatchObject({ type: 'machine', node: process.version, cpu: expect.any(String) });
    expect(lineText(lines[0]!)).toMatch(/native column: (gcc|missing)/);
    expect(lines.at(-1)).toMatchObject({ type: 'noise', noisy: expect.any(Boolean) });
    const calm = { ...rows()[0]!, ratio: 2, low: 1.99, high: 2.01 };
    expect(judgeNoise([calm], 99).reasons.join()).toContain('load');
    expect(judgeNoise([{ ...calm, high: 9 }], loadavg()[0]!).reasons.join()).toContain('apart');
  });

  /** What each side of a kernel came to, on the same pages. */
  async function outcomesOf(native?: Native) {
    const recipe = await createRecipe(TINY.pages, TINY.slicePages);
    const pool = await Pool.create(recipe, 'mix', TINY.pages, KEY);
    await native?.loadPages(pool.bytes);
    return async (name: string): Promise<Record<string, number>> => {
      const sides = await KERNELS.find((kernel) => kernel.name === name)!.sides({ pool, native });
      // One slice: without a stagger, all sides see the same pages.
      const measured = await interleave(sides, { ...TINY, slices: 1, rounds: 1 });
      return Object.fromEntries(measured.map(({ side, outcomes }) => [side.name, outcomes[0]!]));
    };
  }

  it('sides that do the same come to the same', async () => {
    const outcomes = await outcomesOf();
    const zero = await outcomes('zero');
    expect(zero['Buffer.compare']).toBe(zero.abdm);
    const xxh3 = await outcomes('xxh3');
    expect([xxh3['hash-wasm'], xxh3['@node-rs/xxhash']]).toEqual([xxh3.abdm, xxh3.abdm]);
    const decoded = await outcomes('lz4.decompress');
    expect(new Set(Object.values(decoded))).toEqual(new Set([TINY.slicePages]));
    expect(new Set(Object.values(await outcomes('merge')))).toEqual(new Set([TINY.slicePages]));
  });

  it('so does the native side', async ({ skip }) => {
    const native = await Native.start(KEY);
    if (typeof native === 'string') return skipped(skip, `no native column: ${native}`);
    try {
      const outcomes = await outcomesOf(native);
      for (const kernel of ['zero', 'xxh3', 'contentId']) {
        const found = await outcomes(kernel);
        expect([kernel, found.native]).toEqual([kernel, found.abdm]);
      }
      const divided = await outcomes('divide');
      expect(Math.abs(divided.abdm! / divided.native! - 1)).toBeLessThan(0.05);
    } finally {
      await native.close();
    }
  });

  it('quartiles', () => {
    expect(spread([5, 1, 4, 2, 3])).toEqual({ low: 2, median: 3, high: 4 });
    expect(quantile([1, 2], 0.5)).toBe(1.5);
  });

  it('refuses options that it does not know', () => {
    expect(() => parseOptions(['--fast'])).toThrow();
    expect(parseOptions(['--quick', '--kernel', 'zero']).wantsKernel('xxh3')).toBe(false);
  });
});
