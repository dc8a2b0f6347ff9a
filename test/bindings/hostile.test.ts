// Frames that were damaged or forged: each is refused, or yields exactly the original pages. Nothing of a refused frame reaches the sink.
import { AbdmError, MAX_FRAME_BYTES, PAGE_BYTES } from 'abdm';
import { createXXHash3 } from 'hash-wasm';
import { describe, expect, test } from 'vitest';
import { scale, seeded } from '../engine.js';
import { seededPages } from '../pages.js';
import { divideImage, type KeptFrame, MemorySink, makeDivider, makeMerger, mergeFrame } from './library.js';

const PAGES = 48;
const image = seededPages(21, PAGES);

/** Puts the checksum right again, as somebody would who forges a frame. */
const hasher = await createXXHash3();
function withChecksum(frame: Uint8Array): Uint8Array {
  const end = frame.length - 8;
  const digest = hasher.init().update(frame.subarray(0, end)).digest('binary');
  frame.set(digest.reverse(), end);
  return frame;
}

function mutate(frame: Uint8Array, next: () => number): Uint8Array {
  const out = frame.slice();
  const meta = 40 + PAGES * 32;
  switch (next() % 6) {
    case 0: // any byte
      out[next() % out.length]! ^= 1 + (next() % 255);
      return out;
    case 1: // any byte of header and tables, checksum mended
      out[next() % meta]! ^= 1 + (next() % 255);
      return withChecksum(out);
    case 2: // any byte, checksum mended
      out[next() % (out.length - 8)]! ^= 1 + (next() % 255);
      return withChecksum(out);
    case 3: // cut off
      return out.slice(0, next() % out.length);
    case 4: {
      // a piece copied elsewhere
      const length = 1 + (next() % 64);
      const from = next() % (out.length - length);
      out.copyWithin(next() % (out.length - length), from, from + length);
      return next() % 2 ? out : withChecksum(out);
    }
    default: {
      // cut off or lengthened, length and checksum mended
      const bytes = 64 + (next() % (out.length + 500));
      const resized = new Uint8Array(Math.min(bytes, MAX_FRAME_BYTES));
      resized.set(out.subarray(0, resized.length));
      new DataView(resized.buffer).setUint32(24, resized.length, true);
      return withChecksum(resized);
    }
  }
}

describe('a frame', () => {
  test.each(['lz4', 'high'] as const)(
    'that was changed in any way is refused, or yields exactly the original pages: %s',
    { timeout: scale(60_000) },
    async (compress) => {
      const next = seeded(22);
      const frames: KeptFrame[] = divideImage(await makeDivider({ compress }), image);
      expect(frames).toHaveLength(1);
      const frame = frames[0]!.bytes;
      let merger = await makeMerger([PAGES]);
      const sink = new MemorySink([PAGES]);
      let refused = 0;
      for (let i = 0; i < scale(100_000); i++) {
        const changed = mutate(frame, next);
        try {
          mergeFrame(merger, changed, sink);
        } catch (error) {
          if (!(error instanceof AbdmError)) throw error;
          refused++;
          if (sink.writes !== 0) throw new Error(`mutation ${i}: a refused frame reached the sink`);
          continue;
        }
        if (Buffer.compare(sink.images[0]!, image) !== 0) throw new Error(`mutation ${i}: merged something else`);
        sink.images[0]!.fill(0xee);
        sink.writes = 0;
        merger = await makeMerger([PAGES]);
      }
      expect(refused).toBeGreaterThan(scale(99_000));
      // And after all that the merger still merges what is right.
      mergeFrame(merger, frame, sink);
      expect(Buffer.compare(sink.images[0]!, image)).toBe(0);
    },
  );

  test('names what is wrong with it', async () => {
    const [frame] = divideImage(await makeDivider(), image);
    const merger = await makeMerger([PAGES]);
    const sink = new MemorySink([PAGES]);
    const forged = (change: (bytes: Uint8Array) => void, mend = true) => {
      const bytes = frame!.bytes.slice();
      change(bytes);
      return mend ? withChecksum(bytes) : bytes;
    };
    const cases: [string, Uint8Array][] = [
      ['FRAME_MALFORMED', new Uint8Array(0)],
      ['FRAME_MALFORMED', frame!.bytes.subarray(0, 100)],
      ['FRAME_MALFORMED', forged((b) => b.set([0x58], 0))],
      ['FRAME_MALFORMED', forged((b) => b.set([2], 4))],
      ['FRAME_MALFORMED', forged((b) => b.set([0, 0, 0, 0, 0, 0, 0, 0], 8))],
      ['FRAME_MALFORMED', forged((b) => b.set([65], 28))],
      ['FRAME_MALFORMED', forged((b) => b.set([9], 42))],
      ['FRAME_CHECKSUM', forged((b) => b.set([b.at(-20)! ^ 1], b.length - 20), false)],
      ['FRAME_TAG', forged((b) => b.set([7], 16))],
      ['FRAME_TAG', forged((b) => b.set([1], 6))],
    ];
    for (const [code, bytes] of cases) {
      expect(() => mergeFrame(merger, bytes, sink), code).toThrow(expect.objectContaining({ code }));
    }
    // A payload byte that still decodes is found by the content id: raw pages always decode.
    const raw = divideImage(await makeDivider(), seededPages(23, 4, ['random']))[0]!.bytes;
    raw[raw.length - 100]! ^= 1;
    expect(() => mergeFrame(merger, withChecksum(raw), sink)).toThrow(
      expect.objectContaining({ code: 'CONTENT_MISMATCH' }),
    );
    // A frame of another migration.
    const other = divideImage(await makeDivider({ key: new Uint8Array(32) }), image)[0]!;
    expect(() => mergeFrame(merger, other.bytes, sink)).toThrow(expect.objectContaining({ code: 'FRAME_TAG' }));
    // Pages or VMs that the migration does not have.
    const beyond = divideImage(await makeDivider(), seededPages(24, PAGES + 1))[0]!;
    expect(() => mergeFrame(merger, beyond.bytes, sink)).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
    const stranger = divideImage(await makeDivider(), image, 1)[0]!;
    expect(() => mergeFrame(merger, stranger.bytes, sink)).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
    expect(sink.writes).toBe(0);
    expect(sink.images[0]!.every((byte) => byte === 0xee)).toBe(true);
    expect(merger.mergedPages(0)).toBe(0);
  });

  test('of the largest size fits its bound exactly', async () => {
    const frames = divideImage(await makeDivider(), seededPages(25, 64, ['random']));
    expect(frames[0]!.bytes.length).toBe(40 + 64 * (8 + 16) + 16 + 64 * PAGE_BYTES + 8);
  });
});
