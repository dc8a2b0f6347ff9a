// Frames merged again from what stood before their payloads, and from the pages that they once brought.
import { memorySink, PAGE_BYTES } from 'abdm';
import { describe, expect, test } from 'vitest';
import { seededPages } from '../pages.js';
import { divideBatch, divideImage, makeDivider, makeMerger } from './library.js';

const PAGES = 1000;

function metaOf(frame: Uint8Array): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset);
  const [pages, ids, duplicates] = [28, 30, 32].map((at) => view.getUint16(at, true));
  return frame.slice(0, 40 + pages! * 8 + ids! * 16 + duplicates! * 8 + 16);
}

async function divided(compress: 'none' | 'lz4' | 'high') {
  const image = seededPages(3, PAGES);
  const frames = divideImage(await makeDivider({ compress }), image);
  return { image, metas: frames.map(({ bytes }) => metaOf(bytes)) };
}

describe.each(['none', 'lz4', 'high'] as const)('frames divided with %s', (compress) => {
  test('are restored from an image that still has their pages, in any order', async () => {
    const { image, metas } = await divided(compress);
    for (const order of [metas, [...metas].reverse()]) {
      const merger = await makeMerger([PAGES]);
      const kept = image.slice();
      for (const meta of order) {
        const slot = merger.acquire();
        merger.restore(slot, meta, memorySink(kept));
        slot.release();
      }
      expect([merger.complete, merger.frames, merger.waitingPages]).toEqual([true, metas.length, 0]);
      expect(Buffer.compare(kept, image)).toBe(0);
    }
  });

  test('are not restored if one of their pages is another one now', async () => {
    const { image, metas } = await divided(compress);
    const merger = await makeMerger([PAGES]);
    let refused = 0;
    for (const [i, meta] of metas.entries()) {
      const kept = image.slice();
      const pfn = i * 64 + 7;
      kept[pfn * PAGE_BYTES + 99]! ^= 8;
      const slot = merger.acquire();
      try {
        merger.restore(slot, meta, memorySink(kept));
        // Then the page is not one that the frame held: zero, or a duplicate of another one.
        const page = (of: Uint8Array) => of.subarray(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES);
        if (merger.isMerged(0, pfn)) expect(Buffer.compare(page(kept), page(image))).toBe(0);
      } catch (error) {
        expect(error).toMatchObject({ code: 'CONTENT_MISMATCH' });
        expect(merger.isMerged(0, pfn)).toBe(false);
        refused++;
      }
      slot.release();
    }
    expect(refused).toBeGreaterThan(metas.length / 3);
  });
});

test('what is not what stood before a payload is refused, whichever byte is wrong', async () => {
  const { image, metas } = await divided('lz4');
  const merger = await makeMerger([PAGES]);
  const meta = metas[1]!;
  const restore = (bytes: Uint8Array) => {
    const slot = merger.acquire();
    try {
      merger.restore(slot, bytes, memorySink(image.slice()));
    } finally {
      slot.release();
    }
  };
  for (let at = 0; at < meta.length; at += 5) {
    const wrong = meta.slice();
    wrong[at]! ^= 1 << (at % 8);
    expect(() => restore(wrong)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/FRAME_(TAG|MALFORMED)/) }),
    );
  }
  for (const length of [0, 40, 63, meta.length - 1]) {
    expect(() => restore(meta.subarray(0, length))).toThrow(expect.objectContaining({ code: 'FRAME_MALFORMED' }));
  }
  expect(merger.frames).toBe(0);
  restore(meta);
  expect(merger.frames).toBe(1);
});

test('on pages that a guest runs on, only what is not there yet is restored: a duplicate waits for its content', async () => {
  const image = seededPages(5, 8, ['random']);
  const page = (pfn: number) => image.subarray(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES);
  page(6).set(page(1));
  const divider = await makeDivider({ compress: 'lz4' });
  const [first] = divideImage(divider, image.subarray(0, 4 * PAGE_BYTES));
  const [second] = divideBatch(divider, image.subarray(4 * PAGE_BYTES), { vm: 0, base: 4 });
  const meta = metaOf(second!.bytes);
  const begin = async (there: readonly number[]) => {
    const merger = await makeMerger([8]);
    const kept = new Uint8Array(image.length);
    for (const pfn of there) kept.fill(0x5a, pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES);
    merger.adopt(0, Uint8Array.of(there.reduce((bits, pfn) => bits | (1 << pfn), 0)));
    merger.freeze(0);
    merger.expect(second!.id, 0, [4, 5, 6, 7], 4, () => {});
    const restore = () => {
      const slot = merger.acquire();
      try {
        return merger.restore(slot, meta, memorySink(kept));
      } finally {
        slot.release();
      }
    };
    return { merger, kept, restore };
  };

  const { merger, kept, restore } = await begin([4, 5, 7]);
  expect(restore()).toMatchObject({ id: second!.id, pages: 4, waitsFor: [first!.id] });
  const slot = merger.acquire();
  slot.bytes.set(first!.bytes);
  merger.merge(slot, first!.bytes.byteLength, memorySink(kept));
  slot.release();
  expect(merger.complete).toBe(true);
  const expected = image.slice();
  for (const pfn of [4, 5, 7]) expected.fill(0x5a, pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES);
  expect(Buffer.compare(kept, expected)).toBe(0);

  // A page that is neither there nor in a later frame is needed.
  const other = await begin([4, 7]);
  expect(other.restore).toThrow(expect.objectContaining({ code: 'CONTENT_MISMATCH' }));
  other.merger.expect(second!.id + 1, 0, [5], 1, () => {});
  expect(other.restore()).toMatchObject({ waitsFor: [first!.id] });
  expect([5, 6].map((pfn) => other.merger.isMerged(0, pfn))).toEqual([false, false]);
});
