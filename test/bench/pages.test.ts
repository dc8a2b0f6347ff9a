// The recipe: what it says is what comes out, and the same every time where it says so.
import { createHash } from 'node:crypto';
import { PAGE_BYTES } from 'abdm';
import { beforeAll, describe, expect, it } from 'vitest';
import { createRecipe, PAGE_CLASSES, type PageClass, type Recipe, shares } from '../../bench/pages.js';

const PAGES = 256;
const WINDOW = 128;
const ZERO = Buffer.alloc(PAGE_BYTES);
let recipe: Recipe;
beforeAll(async () => {
  recipe = await createRecipe(PAGES, WINDOW);
});

function pagesOf(pageClass: PageClass, from: Recipe = recipe): Buffer[] {
  const bytes = Buffer.alloc(PAGES * PAGE_BYTES, 0xee);
  from.fill(bytes, pageClass);
  return Array.from({ length: PAGES }, (_, i) => bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
}

const digest = (page: Buffer) => createHash('sha256').update(page).digest('hex');

describe('page recipe', () => {
  it('shares add up to a window, and are those of the recipe', () => {
    expect(shares(1000)).toEqual({ zero: 250, duplicate: 150, heap: 300, bin: 150, text: 100, random: 50 });
    for (const window of [1, 64, 100, 1024]) {
      expect(Object.values(shares(window)).reduce((a, b) => a + b)).toBe(window);
    }
  });

  it('every window of the mix has its share of zero pages and, within itself, of duplicates', () => {
    const mix = pagesOf('mix');
    for (let first = 0; first < PAGES; first += WINDOW) {
      const pages = mix.slice(first, first + WINDOW);
      const used = pages.filter((page) => !page.equals(ZERO));
      expect(WINDOW - used.length).toBe(shares(WINDOW).zero);
      expect(used.length - new Set(used.map(digest)).size).toBe(shares(WINDOW).duplicate);
    }
    // None but zero pages are found in two windows.
    const names = [mix.slice(0, WINDOW), mix.slice(WINDOW)].map((pages) => new Set(pages.map(digest)));
    expect([...names[0]!].filter((name) => names[1]!.has(name))).toEqual([digest(ZERO)]);
  });

  it.each(PAGE_CLASSES.filter((name) => name !== 'mix' && name !== 'zero'))(
    '%s has no zero page and no duplicate',
    (name) => {
      const names = new Set(pagesOf(name).map(digest));
      expect(names.size).toBe(PAGES);
      expect(names.has(digest(ZERO))).toBe(false);
    },
  );

  it('gives the same bytes twice, and another recipe does too, but for its heap', async () => {
    for (const name of PAGE_CLASSES) expect(pagesOf(name).map(digest)).toEqual(pagesOf(name).map(digest));
    const other = await createRecipe(PAGES, WINDOW);
    for (const name of ['text', 'bin', 'random', 'zero'] as const) {
      expect(pagesOf(name, other).map(digest)).toEqual(pagesOf(name).map(digest));
    }
    const zeroAt = (pages: Buffer[]) => pages.map((page) => page.equals(ZERO));
    expect(zeroAt(pagesOf('mix', other))).toEqual(zeroAt(pagesOf('mix')));
  });
});
