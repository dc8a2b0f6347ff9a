// From pages to frames of any size: as many bytes may be on their way, and what somebody waits for always finds memory.
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { Framer } from '#abdm/host/mam/framer.js';
import type { Frame } from '#abdm/host/mam/scatter.js';

const PAGE_BYTES = 4096;
const key = new Uint8Array(randomBytes(32));

async function make(sealed: boolean, options: { batchPages?: number; live?: boolean } = {}) {
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
    if (fresh) framer.batch.bytes.set(randomBytes(framer.batchPages * PAGE_BYTES));
    const frames = framer.divide({ vm: 0, base: pfn, pages: framer.batchPages }, how);
    pfn += framer.batchPages;
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
    [64, 48],
    [16, 192],
  ])('frames of %i pages: %i of them, less the last of those that are sealed', async (batchPages, count) => {
    const { framer, divide, freed } = await make(sealed, { batchPages });
    const frames: Frame[] = [];
    while (framer.hasRoom) frames.push(divide());
    expect(frames.length).toBe(sealed ? count - 1 : count);
    expect(frames.every(({ bytes }) => bytes.length > batchPages * PAGE_BYTES)).toBe(true);
    frames[7]!.release();
    expect([framer.hasRoom, freed()]).toEqual([true, 1]);
  });

  test('what somebody waits for finds memory when there is none for anything else', async () => {
    const { framer, divide } = await make(sealed, { batchPages: 16, live: true });
    let frames = 0;
    for (; framer.hasRoom; frames++) divide();
    expect(frames).toBe(sealed ? 191 : 192);
    const awaited: Frame[] = [];
    while (framer.hasUrgentRoom) awaited.push(divide({ alone: true }));
    expect(awaited).toHaveLength(8);
    awaited[0]!.release();
    expect([framer.hasRoom, framer.hasUrgentRoom]).toEqual([false, true]);
  });

  test('frames say what they refer to, which is only what can be fetched, where that is asked for, and nothing that was forgotten', async () => {
    const { framer, divide } = await make(sealed, { batchPages: 16 });
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
