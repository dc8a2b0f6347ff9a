// From pages to frames of any size: as many bytes may be on their way, and what somebody waits for always finds memory.
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { Framer } from '#abdm/host/mam/framer.js';
import type { Frame } from '#abdm/host/mam/scatter.js';

const PAGE_BYTES = 4096;
const key = new Uint8Array(randomBytes(32));

async function make(sealed: boolean, options: { short?: boolean; live?: boolean; compress?: 'lz4' } = {}) {
  let freed = 0;
  const framer = await Framer.create({
    key,
    compress: 'none',
    sealed,
    withMeta: true,
    onFree: () => void freed++,
    ...options,
  });
  let pfn = 0;
  /** Divides random pages, or those of the last time again. */
  const divide = (how?: Parameters<Framer['divide']>[1], fresh = true): Frame => {
    const pages = framer.framePages;
    if (fresh) framer.batch.bytes.set(randomBytes(pages * PAGE_BYTES));
    const frames = framer.divide({ vm: 0, base: pfn, pages }, how);
    pfn += pages;
    expect(frames).toHaveLength(1);
    return frames[0]!;
  };
  return { framer, divide, freed: () => freed };
}

describe.each([
  ['open', false],
  ['sealed', true],
])('%s', (_name, sealed) => {
  test.each([
    [false, 64, 48],
    [true, 16, 192],
  ])(
    'short: %s, frames of %i pages: %i of them, less the last of those that are sealed',
    async (short, pages, count) => {
      const { framer, divide, freed } = await make(sealed, { short });
      const frames: Frame[] = [];
      while (framer.hasRoom) frames.push(divide());
      expect(frames.length).toBe(sealed ? count - 1 : count);
      expect(frames.every(({ bytes }) => bytes.length > pages * PAGE_BYTES)).toBe(true);
      frames[7]!.release();
      expect([framer.hasRoom, freed()]).toEqual([true, 1]);
    },
  );

  test('what somebody waits for finds memory when there is none for anything else', async () => {
    const { framer, divide } = await make(sealed, { short: true, live: true });
    let frames = 0;
    for (; framer.hasRoom; frames++) divide();
    expect(frames).toBe(sealed ? 191 : 192);
    const awaited: Frame[] = [];
    while (framer.hasUrgentRoom) awaited.push(divide({ alone: true }));
    expect(awaited).toHaveLength(8);
    awaited[0]!.release();
    expect([framer.hasRoom, framer.hasUrgentRoom]).toEqual([false, true]);
  });

  test('short frames have as many pages as make about 64 KiB, and fewer as soon as those need more', async () => {
    const { framer } = await make(sealed, { short: true, compress: 'lz4' });
    const sizes: number[] = [];
    const divide = (random: number) => {
      const pages = framer.framePages;
      for (let i = 0; i < pages; i++) {
        framer.batch.bytes.fill(i + 1, i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        framer.batch.bytes.set(randomBytes(random), i * PAGE_BYTES);
      }
      for (const { bytes, release } of framer.divide({ vm: 0, base: 0, pages })) {
        sizes.push(bytes.length);
        release();
      }
      return pages;
    };
    expect(divide(1024)).toBe(16);
    for (let i = 0; i < 40; i++) divide(1024);
    expect(divide(1024)).toBeGreaterThan(50);
    expect(sizes.slice(-8).every((bytes) => bytes > 50_000 && bytes < 80_000)).toBe(true);
    divide(4096);
    expect(divide(4096)).toBe(16);
  });

  test('frames say what they refer to, which is only what can be fetched, where that is asked for, and nothing that was forgotten', async () => {
    const { framer, divide } = await make(sealed, { short: true });
    const first = divide();
    expect(first.references).toEqual([]);
    expect(divide({}, false).references).toEqual([first.id]);
    framer.setUnfetchable(first.id);
    expect(divide({}, false).references).toEqual([first.id]);
    const second = divide({ fetchableOnly: true }, false);
    expect(second.references).toEqual([]);
    expect(divide({ fetchableOnly: true }, false).references).toEqual([second.id]);
    framer.forget();
    expect(divide({ alone: true }, false).references).toEqual([]);
    expect(divide({}, false).references).toEqual([]);
  });
});
