// Divider to merger without any socket: the bytes that come out are the bytes that went in, whatever the order of the frames.
import { AbdmError, Divider, PAGE_BYTES } from 'abdm';
import { describe, expect, test } from 'vitest';
import { seeded } from '../engine.js';
import { seededPages } from '../pages.js';
import { KIND, slotsOf } from './frames.js';
import { divideBatch, divideImage, key, MemorySink, makeDivider, makeMerger, mergeFrame } from './library.js';

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const next = seeded(seed);
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = next() % (i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}

describe('pages that were divided and merged', () => {
  test('are the same, in any order of the frames', async () => {
    const image = seededPages(1, 1000);
    const divider = await makeDivider();
    const frames = divideImage(divider, image);
    expect(divider.counts.duplicatePages).toBeGreaterThan(50);
    expect(divider.counts.zeroPages).toBeGreaterThan(50);
    expect(divider.counts.compressedPages).toBeGreaterThan(300);
    expect(divider.counts.normalPages).toBeGreaterThan(50);
    for (const order of [frames, [...frames].reverse(), shuffled(frames, 5)]) {
      const merger = await makeMerger([1000]);
      const sink = new MemorySink([1000]);
      for (const frame of order) mergeFrame(merger, frame.bytes, sink);
      // Duplicates of content that came before: this sink does not have it, so its frames are wanted again.
      for (const id of [...merger.wanted]) mergeFrame(merger, frames.find((f) => f.id === id)!.bytes, sink);
      expect(merger.wanted.size).toBe(0);
      expect(merger.waitingPages).toBe(0);
      expect(merger.nextUnmerged(0)).toBe(-1);
      expect(merger.complete).toBe(true);
      expect(merger.mergedPages(0)).toBe(1000);
      expect(same(sink.images[0]!, image)).toBe(true);
      const { zeroPages, duplicatePages, compressedPages, normalPages } = divider.counts;
      expect(merger.counts).toEqual([{ zeroPages, duplicatePages, compressedPages, normalPages }]);
      expect(merger.frames).toBe(frames.length);
    }
  });

  test('take duplicates from the sink if it has them, and only after their content was verified', async () => {
    const image = seededPages(2, 300);
    const frames = divideImage(await makeDivider(), image);
    for (const honest of [true, false]) {
      const merger = await makeMerger([300]);
      const sink = new MemorySink([300]);
      let asked = 0;
      sink.read = (vm, pfn, memory, offset) => {
        asked++;
        memory.set(sink.images[vm]!.subarray(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES), offset);
        if (!honest) memory[offset + 77]! ^= 1;
        return true;
      };
      for (const frame of frames) mergeFrame(merger, frame.bytes, sink);
      expect(asked).toBeGreaterThan(0);
      expect(merger.wanted.size > 0).toBe(!honest);
      for (const id of [...merger.wanted]) mergeFrame(merger, frames.find((f) => f.id === id)!.bytes, sink);
      expect(same(sink.images[0]!, image)).toBe(true);
    }
  });

  test.each(['lz4', 'high', 'none'] as const)('are the same when frames were made again (%s)', async (compress) => {
    const image = seededPages(6, 1000);
    const divider = await makeDivider({ compress, slots: 1, batches: 1 });
    const frames = divideImage(divider, image);
    const counts = { ...divider.counts };
    const batch = divider.acquire();
    const again = frames.map((frame, i) => {
      if (i % 3 > 0) return frame;
      const { id, vm, base, pages, deltas } = frame;
      batch.bytes.set(image.subarray(base * PAGE_BYTES, (base + pages) * PAGE_BYTES));
      const made = divider.divideAgain(batch, { vm, base, pages, ...(deltas && { deltas }) }, id);
      const kept = { ...made, bytes: made.bytes.slice() };
      made.release();
      expect(kept).toMatchObject({ id, vm, base, pages });
      // No page in it is a duplicate.
      expect(new DataView(kept.bytes.buffer).getUint16(32, true)).toBe(0);
      return kept;
    });
    expect(divider.counts).toEqual(counts);
    expect(() => divider.divideAgain(batch, { vm: 0, base: 0, pages: 64 }, frames.length + 1)).toThrow(/id/);
    const merger = await makeMerger([1000]);
    const sink = new MemorySink([1000]);
    for (const frame of again.reverse()) mergeFrame(merger, frame.bytes, sink);
    expect(merger.complete).toBe(true);
    expect(same(sink.images[0]!, image)).toBe(true);
    // The next new frame has an id of its own.
    batch.release();
    const [next] = divideBatch(divider, new Uint8Array(PAGE_BYTES).fill(9), { vm: 0, base: 0 });
    expect(next!.id).toBe(frames.length + 1);
  });

  test('of several VMs share their content', async () => {
    const image = seededPages(3, 128, ['text', 'random']);
    const divider = await makeDivider();
    const frames = [...divideImage(divider, image, 0), ...divideImage(divider, image, 1)];
    expect(divider.counts.duplicatePages).toBe(128);
    const merger = await makeMerger([128, 128]);
    const sink = new MemorySink([128, 128]);
    for (const frame of frames.reverse()) mergeFrame(merger, frame.bytes, sink);
    expect(same(sink.images[0]!, image)).toBe(true);
    expect(same(sink.images[1]!, image)).toBe(true);
  });

  test('may have gaps between their numbers; far ones go into frames of their own', async () => {
    const pages = seededPages(4, 10, ['text', 'random', 'zero']);
    const deltas = [0, 1, 5, 6, 7, 60_000, 70_000, 140_000, 140_001, 150_000];
    const divider = await makeDivider({ batchPages: 64 });
    const frames = divideBatch(divider, pages, { vm: 0, base: 3, deltas });
    expect(frames.map((f) => [f.base, f.pages])).toEqual([
      [3, 6],
      [70_003, 1],
      [140_003, 3],
    ]);
    expect([...frames[2]!.deltas!]).toEqual([0, 1, 10_000]);
    const merger = await makeMerger([150_004]);
    const sink = new MemorySink([150_004]);
    for (const frame of frames) mergeFrame(merger, frame.bytes, sink);
    deltas.forEach((delta, i) => {
      const at = (3 + delta) * PAGE_BYTES;
      expect(same(sink.images[0]!.subarray(at, at + PAGE_BYTES), pages.subarray(i * 4096, i * 4096 + 4096))).toBe(true);
      expect(merger.isMerged(0, 3 + delta)).toBe(true);
    });
    expect(merger.mergedPages(0)).toBe(10);
    expect(merger.complete).toBe(false);
    expect(merger.nextUnmerged(0, 3)).toBe(5);
  });

  test('are what the later frame says, in whichever order the frames arrive', async () => {
    const divider = await makeDivider();
    const [first, second] = [seededPages(5, 64, ['text']), seededPages(6, 64, ['random', 'zero', 'text'])];
    const round1 = divideImage(divider, first);
    const round2 = divideImage(divider, second);
    for (const order of [
      [round1, round2],
      [round2, round1],
    ]) {
      const merger = await makeMerger([64]);
      const sink = new MemorySink([64]);
      for (const frame of order.flat()) mergeFrame(merger, frame.bytes, sink);
      expect(same(sink.images[0]!, second)).toBe(true);
    }
  });

  test('are not in place while a later frame says that they are duplicates of something still to come', async () => {
    const divider = await makeDivider();
    const text = seededPages(13, 1, ['text']);
    const before = divideBatch(divider, seededPages(14, 1, ['random']), { vm: 0, base: 1 });
    const origin = divideBatch(divider, text, { vm: 0, base: 0 });
    const duplicate = divideBatch(divider, text, { vm: 0, base: 1 });
    const merger = await makeMerger([2]);
    const sink = new MemorySink([2]);
    const inPlace = [...before, ...duplicate, ...origin].map((frame) => {
      mergeFrame(merger, frame.bytes, sink);
      return [merger.isMerged(0, 1), merger.waitingPages];
    });
    expect(inPlace).toEqual([
      [true, 0],
      [false, 1],
      [true, 0],
    ]);
    expect(same(sink.images[0]!, new Uint8Array([...text, ...text]))).toBe(true);
  });

  test('that wait as duplicates give way to a later frame', async () => {
    const divider = await makeDivider();
    const text = seededPages(7, 1, ['text']);
    const origin = divideBatch(divider, text, { vm: 0, base: 0 });
    const duplicate = divideBatch(divider, text, { vm: 0, base: 1 });
    const later = divideBatch(divider, seededPages(8, 1, ['random']), { vm: 0, base: 1 });
    const merger = await makeMerger([2]);
    const sink = new MemorySink([2]);
    for (const frame of [...duplicate, ...later, ...origin]) mergeFrame(merger, frame.bytes, sink);
    expect(same(sink.images[0]!.subarray(4096), seededPages(8, 1, ['random']))).toBe(true);
    expect(merger.waitingPages).toBe(0);
  });

  test('travel without content ids and without compression where that is wanted', async () => {
    const image = seededPages(9, 200);
    const divider = await makeDivider({ contentIds: false, compress: 'none' });
    const frames = divideImage(divider, image);
    expect(divider.counts).toMatchObject({ duplicatePages: 0, compressedPages: 0 });
    const merger = await makeMerger([200]);
    const sink = new MemorySink([200]);
    for (const frame of frames) mergeFrame(merger, frame.bytes, sink);
    expect(same(sink.images[0]!, image)).toBe(true);
  });

  test('of all kinds are the same through a window across each frame, in frames of any length', async () => {
    const kinds = [
      ['json', 'heap'],
      ['text', 'zero', 'duplicate'],
      ['random', 'duplicate', 'binary', 'json'],
      undefined,
    ];
    for (const [i, contentIds] of [true, false, true, true, false].entries()) {
      const image = seededPages(80 + i, 500, kinds[i % kinds.length]);
      for (const [batchPages, compress] of [3, 64, 256].flatMap((n) => [[n, 'lz4'] as const, [n, 'high'] as const])) {
        const divider = await makeDivider({ compress, contentIds, batchPages });
        const frames = divideImage(divider, image);
        expect(divider.counts.compressedPages).toBeGreaterThan(50);
        for (const { bytes } of frames) {
          const isCompressed = slotsOf(bytes).some(({ kind }) => kind === KIND.lz4);
          expect(bytes[5]).toBe((contentIds ? 0 : 1) | (isCompressed ? 2 : 0));
        }
        const merger = await makeMerger([500]);
        const sink = new MemorySink([500]);
        for (const frame of frames.reverse()) mergeFrame(merger, frame.bytes, sink);
        expect(same(sink.images[0]!, image)).toBe(true);
        expect(merger.waitingPages).toBe(0);
      }
    }
  });

  test('are smaller with high ratio than without, and leave the batch as it was', async () => {
    const image = seededPages(85, 640, ['zero', 'duplicate', 'heap', 'heap', 'json', 'text', 'binary', 'random']);
    const bytes = { lz4: 0, high: 0 };
    for (const compress of ['lz4', 'high'] as const) {
      const divider = await makeDivider({ compress });
      for (let at = 0; at < image.length; at += 64 * PAGE_BYTES) {
        const batch = divider.acquire();
        batch.bytes.set(image.subarray(at, at + 64 * PAGE_BYTES));
        for (const frame of divider.divide(batch, { vm: 0, base: at / PAGE_BYTES, pages: 64 })) frame.release();
        expect(same(batch.bytes, image.subarray(at, at + 64 * PAGE_BYTES))).toBe(true);
        batch.release();
      }
      bytes[compress] = divider.counts.frameBytes;
    }
    expect(bytes.lz4 / bytes.high).toBeGreaterThan(1.05);
  });

  test('are compressed through a window only as far as it pays on the link', async () => {
    const image = seededPages(86, 64 * 16, ['json', 'heap']);
    for (const linkBytesPerS of [1e6, 1e13]) {
      const divider = await makeDivider({ compress: 'high', linkBytesPerS });
      const frames = divideImage(divider, image);
      // All but two batches to learn from, and a probe.
      if (linkBytesPerS === 1e6) expect(divider.counts.compressedPages).toBeGreaterThan(13 * 64);
      else expect(divider.counts.compressedPages).toBeLessThan(64);
      const merger = await makeMerger([64 * 16]);
      const sink = new MemorySink([64 * 16]);
      for (const frame of frames) mergeFrame(merger, frame.bytes, sink);
      expect(same(sink.images[0]!, image)).toBe(true);
    }
  });

  test('are divided in batches of 256 as in batches of one', async () => {
    const image = seededPages(10, 256);
    for (const batchPages of [1, 63, 256]) {
      const frames = divideImage(await makeDivider({ batchPages }), image);
      const merger = await makeMerger([256]);
      const sink = new MemorySink([256]);
      for (const frame of frames.reverse()) mergeFrame(merger, frame.bytes, sink);
      expect(same(sink.images[0]!, image)).toBe(true);
    }
  });
});

describe('slots', () => {
  test('are refused when all are held, and found again after a release', async () => {
    const divider = await makeDivider({ slots: 2, batches: 1 });
    const batch = divider.acquire();
    expect(() => divider.acquire()).toThrow(expect.objectContaining({ code: 'NO_SLOT' }));
    const at = { vm: 0, base: 0, pages: 64 };
    const [first] = divider.divide(batch, at);
    divider.divide(batch, at);
    expect(() => divider.divide(batch, at)).toThrow(expect.objectContaining({ code: 'NO_SLOT' }));
    setTimeout(() => first!.release(), 5);
    await divider.ready();
    expect(divider.divide(batch, at)).toHaveLength(1);
    expect(() => first!.release()).toThrow(expect.objectContaining({ code: 'SLOT_STATE' }));
    batch.release();
    expect(() => batch.release()).toThrow(expect.objectContaining({ code: 'SLOT_STATE' }));
  });

  test('keep a frame as it is until its release, whatever is divided meanwhile', async () => {
    const divider = await makeDivider({ slots: 4 });
    const batch = divider.acquire();
    batch.bytes.set(seededPages(11, 64, ['text']));
    const [held] = divider.divide(batch, { vm: 0, base: 0, pages: 64 });
    const before = held!.bytes.slice();
    for (let i = 0; i < 20; i++) {
      batch.bytes.set(seededPages(12 + i, 64, ['random', 'json']));
      for (const frame of divider.divide(batch, { vm: 0, base: 64, pages: 64 })) frame.release();
    }
    expect(same(held!.bytes, before)).toBe(true);
  });
});

describe('impossible options', () => {
  test('are named', async () => {
    await expect(Divider.create({ key: new Uint8Array(5) })).rejects.toThrow(/5 bytes.*needs 32/);
    await expect(Divider.create({ key, compress: 'zip' as 'lz4' })).rejects.toThrow(/compress is zip/);
    await expect(Divider.create({ key, acceleration: 0 })).rejects.toThrow(/acceleration.*1 to/);
    await expect(Divider.create({ key, compress: 'high', acceleration: 2 })).rejects.toThrow(/acceleration.*high/);
    await expect(Divider.create({ key, batchPages: 257 })).rejects.toThrow(/batchPages.*1 to 256/);
    await expect(Divider.create({ key, slots: 8000, batchPages: 256 })).rejects.toThrow(/4 GiB/);
    const divider = await makeDivider();
    const batch = divider.acquire();
    for (const pages of [
      { vm: 64, base: 0, pages: 1 },
      { vm: 0, base: -1, pages: 1 },
      { vm: 0, base: 0, pages: 65 },
      { vm: 0, base: 0, pages: 2, deltas: [1, 1] },
      { vm: 0, base: 0, pages: 2, deltas: [0, Number.NaN] },
    ]) {
      expect(() => divider.divide(batch, pages)).toThrow(AbdmError);
    }
    expect(divider.counts.frames).toBe(0);
  });
});
