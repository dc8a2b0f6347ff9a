// LZ4 through a window: against a slow decoder with a window, whole and damaged, and at every edge of its memory.
import { describe, expect, it } from 'vitest';
import { type RawEngine, rawEngine, scale, seeded } from '../engine.js';
import { KINDS, page, type Random } from '../pages.js';
import { damage, keepsEndRules } from './lz4-blocks.js';
import { plainDecompress } from './lz4-peers.js';

const PAGE = 4096;
const CANARY = 0xa5;
const engine = rawEngine(1 << 20);
const memoryEnd = engine.bytes.length;
const canaries = new Uint8Array(4 * PAGE).fill(CANARY);
/** Windows, blocks, and what blocks decode to. */
const [windowPtr, blockPtr, outPtr] = [engine.free + 3, engine.free + 0x50001, engine.free + 0x60005];

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const isUntouched = (from: number, to: number) =>
  same(engine.bytes.subarray(from, to), canaries.subarray(0, Math.max(0, to - from)));

/** A page as it follows others in a frame: new, or much like one of them. */
function nextPage(window: readonly Uint8Array[], random: Random): Uint8Array {
  const like = window[random() % Math.max(1, window.length)];
  if (!like || random() % 3 > 0) return page(KINDS[random() % KINDS.length]!, random);
  const made = like.slice();
  // Some bytes of it elsewhere, some others new.
  made.copyWithin(random() % PAGE, random() % PAGE, PAGE);
  for (let n = random() % 40; n > 0; n--) made[random() % PAGE] = random();
  return made;
}

type Compressor = (windowPtr: number, srcPtr: number, bytes: number, dstPtr: number, capacityBytes: number) => number;

const COMPRESSORS = {
  lz4Compress:
    (by: RawEngine): Compressor =>
    (...block) =>
      by.lz4Compress(...block, 1),
  lz4CompressHigh:
    (by: RawEngine): Compressor =>
    (...block) =>
      by.lz4CompressHigh(...block),
};

/** The block of each page of a window that begins at `at`; null where it does not fit. */
function compressBy(compressor: Compressor, pages: readonly Uint8Array[], capacity = PAGE, at = windowPtr) {
  return pages.map((data, i) => {
    engine.bytes.set(data, at + i * PAGE);
    const bytes = compressor(at, at + i * PAGE, PAGE, blockPtr, capacity);
    return bytes === 0 ? null : engine.bytes.slice(blockPtr, blockPtr + bytes);
  });
}

function makeWindow(pages: number, random: Random): Uint8Array[] {
  const made: Uint8Array[] = [];
  while (made.length < pages) made.push(nextPage(made, random));
  return made;
}

/** More rounds may take longer. */
const timeout = Math.max(60_000, scale(60_000));

describe.each(Object.entries(COMPRESSORS))('%s', { timeout }, (_, of) => {
  const compressor = of(engine);
  const compress = (pages: readonly Uint8Array[], capacity?: number, at?: number) =>
    compressBy(compressor, pages, capacity, at);

  it('makes blocks that decode through the window, of pages of all kinds', () => {
    const random = seeded(71);
    for (let round = 0; round < scale(150); round++) {
      const pages = makeWindow(1 + (random() % 64), random);
      const blocks = compress(pages);
      const window = Buffer.concat(pages);
      pages.forEach((data, i) => {
        const block = blocks[i];
        // Decoded where the pages before it were, or copied if one does not compress.
        if (!block) {
          engine.bytes.set(data, outPtr + i * PAGE);
          return;
        }
        const expected = plainDecompress(block, PAGE, window.subarray(0, i * PAGE));
        if (!expected || !same(expected, data)) expect.fail(`round ${round}, page ${i}: the slow decoder reads it not`);
        if (!keepsEndRules(block, PAGE)) expect.fail(`round ${round}, page ${i}: its end`);
        engine.bytes.set(block, blockPtr);
        const to = outPtr + i * PAGE;
        if (!engine.lz4DecompressInWindow(outPtr, blockPtr, block.length, to, PAGE))
          expect.fail(`page ${i} is refused`);
        if (!same(engine.bytes.subarray(to, to + PAGE), data))
          expect.fail(`round ${round}, page ${i}: ours reads it not`);
      });
    }
  });

  it('makes less of pages that repeat each other, as far back as an offset can say', () => {
    const random = seeded(72);
    const noise = Array.from({ length: 17 }, () => page('random', random));
    const [first] = noise as [Uint8Array];
    const sizes = compress([...noise.slice(0, 16), Buffer.concat([first.subarray(1), first.subarray(0, 1)])]);
    expect(sizes.slice(0, 16)).toEqual(new Array(16).fill(null));
    // One page later by 16 pages: 65,536 bytes are too far, 65,535 are not.
    expect(sizes[16]!.length).toBeLessThan(40);
    expect(compress([...noise.slice(0, 16), first])[16]).toBeNull();
    expect(compress([first, first, ...noise.slice(1, 16), first]).map((block) => block?.length ?? 0)[1]).toBeLessThan(
      40,
    );
  });

  it('remembers nothing of another window, and works alike at any address', () => {
    const random = seeded(73);
    const pages = makeWindow(20, random);
    const blocks = compress(pages);
    compress(makeWindow(64, random));
    for (const shift of [0, 1, 2, 7, 8, 16, 33, 4096]) {
      compress(pages, PAGE, engine.free + shift).forEach((block, i) => {
        expect(block === null ? null : Buffer.from(block), `page ${i}`).toEqual(blocks[i] && Buffer.from(blocks[i]));
      });
    }
  });

  it('makes the blocks of a fresh engine, whatever was entered for another window', () => {
    const fresh = rawEngine(1 << 20);
    for (let seed = 100; seed < 120; seed++) {
      const random = seeded(seed);
      // Noise is entered less and less densely, and densely again after a match. Pieces of it follow where it was entered only for the other window.
      const noise = page('random', random);
      const dense = noise.slice().fill(0, 0, 2000);
      const pieces = page('random', random);
      for (let at = 0; at < 10; at++) pieces.set(noise.subarray(2000 + 3 * at, 2008 + 3 * at), 400 * at);
      compress([dense]);
      const [, block] = compress([noise, pieces], PAGE + 64);
      fresh.bytes.set(noise, windowPtr);
      fresh.bytes.set(pieces, windowPtr + PAGE);
      of(fresh)(windowPtr, windowPtr, PAGE, blockPtr, PAGE + 64);
      const bytes = of(fresh)(windowPtr, windowPtr + PAGE, PAGE, blockPtr, PAGE + 64);
      expect(same(block!, fresh.bytes.subarray(blockPtr, blockPtr + bytes))).toBe(true);
    }
  });

  it('needs exactly what it returns, and writes nothing past what it is given', () => {
    const random = seeded(74);
    for (let round = 0; round < scale(20); round++) {
      const size = [0, 1, 12, 21, 22, 40, 300, PAGE][round % 8]!;
      const before = makeWindow(round % 3, random);
      const srcPtr = windowPtr + before.length * PAGE;
      const data = page(KINDS[random() % KINDS.length]!, random, size);
      /** Compresses the window up to the page, and then that with this capacity. */
      const run = (capacity: number) => {
        compress(before);
        engine.bytes.set(data, srcPtr);
        engine.bytes.fill(CANARY, blockPtr - 64, blockPtr + 2 * PAGE);
        return compressor(windowPtr, srcPtr, size, blockPtr, capacity);
      };
      const least = run(PAGE + 64);
      expect(least).toBeGreaterThan(0);
      for (let capacity = Math.max(0, least - 300); capacity <= least + 300; capacity += random() % 7 ? 1 : 29) {
        expect(run(capacity)).toBe(capacity < least ? 0 : least);
        expect(isUntouched(blockPtr - 64, blockPtr) && isUntouched(blockPtr + capacity, blockPtr + capacity + 64)).toBe(
          true,
        );
      }
    }
  });

  it('works at the very end of the memory', () => {
    const random = seeded(75);
    for (let round = 0; round < scale(100); round++) {
      const pages = makeWindow(1 + (random() % 8), random);
      const at = memoryEnd - pages.length * PAGE;
      const window = Buffer.concat(pages);
      compress(pages, PAGE, at).forEach((block, i) => {
        if (block) expect(same(plainDecompress(block, PAGE, window.subarray(0, i * PAGE))!, pages[i]!)).toBe(true);
      });
    }
  });

  it('makes blocks that decode even of pages in any order, some twice, some left out, in changed windows', () => {
    const random = seeded(76);
    for (let round = 0; round < scale(3_000); round++) {
      const i = random() % 64;
      const at = windowPtr + (random() % 3) * PAGE + (random() % 2);
      if (random() % 2) engine.bytes.set(nextPage([], random), at + i * PAGE);
      const bytes = compressor(at, at + i * PAGE, PAGE, blockPtr, PAGE);
      if (bytes === 0) continue;
      const window = engine.bytes.subarray(at, at + i * PAGE);
      const data = plainDecompress(engine.bytes.slice(blockPtr, blockPtr + bytes), PAGE, window);
      expect(data !== null && same(data, engine.bytes.subarray(at + i * PAGE, at + i * PAGE + PAGE))).toBe(true);
    }
  });
});

describe('lz4CompressHigh', () => {
  it('refuses pages that are too large or lie outside a window', () => {
    engine.bytes.fill(0, windowPtr, windowPtr + 70 * PAGE);
    const tried = (srcPtr: number, bytes = PAGE) => engine.lz4CompressHigh(windowPtr, srcPtr, bytes, blockPtr, PAGE);
    expect(tried(windowPtr, PAGE + 1)).toBe(0);
    expect(tried(windowPtr, 0xffffffff)).toBe(0);
    expect(tried(windowPtr - 1)).toBe(0);
    expect(tried(windowPtr + 63 * PAGE + 1)).toBe(0);
    expect(tried(windowPtr + 64 * PAGE)).toBe(0);
    expect(tried(windowPtr + 63 * PAGE)).toBeGreaterThan(0);
  });
});

describe('lz4DecompressInWindow', { timeout }, () => {
  it('keeps within window and output, and agrees with the slow decoder, on damaged blocks', () => {
    const random = seeded(77);
    const pages = makeWindow(17, random);
    const window = Buffer.concat(pages);
    const valid = compressBy(COMPRESSORS.lz4CompressHigh(engine), pages).flatMap((block, i) =>
      block ? [{ block, i }] : [],
    );
    engine.bytes.fill(CANARY, engine.free);
    let decoded = 0;
    for (let round = 0; round < scale(100_000); round++) {
      const { block, i } = valid[random() % valid.length]!;
      const damaged = damage(block, valid[random() % valid.length]!.block, random);
      // In turn: output in the middle, output at the very end of the memory, block at the very end. The window is at times shorter than it was.
      const dstPtr = round % 3 === 1 ? memoryEnd - PAGE : outPtr + i * PAGE + (random() % 16);
      const srcPtr = round % 3 === 2 ? memoryEnd - damaged.length : blockPtr + (random() % 16);
      const bytes = random() % 8 === 0 ? random() % (i * PAGE + 1) : i * PAGE;
      const before = window.subarray(i * PAGE - bytes, i * PAGE);
      engine.bytes.set(before, dstPtr - bytes);
      engine.bytes.set(damaged, srcPtr);
      const got = engine.lz4DecompressInWindow(dstPtr - bytes, srcPtr, damaged.length, dstPtr, PAGE);
      const expected = plainDecompress(damaged, PAGE, before);
      if (got !== (expected === null ? 0 : 1)) expect.fail(`damaged block ${round}: ${got}`);
      if (expected && !same(engine.bytes.subarray(dstPtr, dstPtr + PAGE), expected))
        expect.fail(`block ${round} differs`);
      if (!same(engine.bytes.subarray(dstPtr - bytes, dstPtr), before))
        expect.fail(`block ${round} wrote to the window`);
      if (expected) decoded++;
      engine.bytes.fill(CANARY, dstPtr - bytes, dstPtr + PAGE).fill(CANARY, srcPtr, srcPtr + damaged.length);
      if (
        !isUntouched(dstPtr + PAGE, Math.min(dstPtr + PAGE + 64, memoryEnd)) ||
        !isUntouched(dstPtr - bytes - 64, dstPtr - bytes)
      ) {
        expect.fail(`damaged block ${round} wrote outside its output`);
      }
    }
    expect(engine.bytes.subarray(engine.free).every((byte) => byte === CANARY)).toBe(true);
    expect(decoded).toBeGreaterThan(0);
  });
});
