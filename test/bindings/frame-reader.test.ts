// Pages read out of single frames: the same bytes as those that were divided, wherever the content lies.
import { type AbdmError, FrameReader, PAGE_BYTES } from 'abdm';
import { describe, expect, test } from 'vitest';
import { seededPages } from '../pages.js';
import { divideImage, type KeptFrame, key, makeDivider } from './library.js';

const image = seededPages(31, 700);

async function make(options = {}) {
  const frames = divideImage(await makeDivider(options), image);
  const reader = await FrameReader.create(key, [{ pages: 700 }], 2);
  const byId = new Map(frames.map((frame) => [frame.id, frame]));
  const load = (frame: KeptFrame) => {
    const slot = reader.acquire();
    slot.bytes.set(frame.bytes);
    return { slot, frame: reader.read(slot, frame.bytes.length) };
  };
  return { frames, reader, byId, load };
}

describe('a page that is read out of a frame', () => {
  test.each(['lz4', 'none', 'high'] as const)('is the one that was divided, compress %s', async (compress) => {
    const { frames, byId, load } = await make({ compress });
    const kinds = { zero: 0, bytes: 0, elsewhere: 0 };
    // Backwards: nothing depends on what was read before.
    for (const kept of [...frames].reverse()) {
      const { slot, frame } = load(kept);
      expect([frame.id, frame.vm]).toEqual([kept.id, 0]);
      for (const [i, pfn] of frame.pfns.entries()) {
        expect(pfn).toBe(kept.base + i);
        const page = frame.page(i);
        kinds[page.kind]++;
        const wanted = image.subarray(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES);
        if (page.kind === 'zero') expect(wanted.every((byte) => byte === 0)).toBe(true);
        else if (page.kind === 'bytes') expect(Buffer.compare(page.bytes, wanted)).toBe(0);
        else {
          const other = load(byId.get(page.frame)!);
          const content = other.frame.page(page.slot);
          if (content.kind !== 'bytes') throw new Error('a duplicate of what is no content');
          expect(Buffer.compare(content.bytes, wanted)).toBe(0);
          expect(content.contentId).toEqual(page.contentId);
          other.slot.release();
        }
      }
      slot.release();
    }
    expect(Math.min(kinds.zero, kinds.bytes, kinds.elsewhere)).toBeGreaterThan(20);
  });

  test('is proven: a changed frame is refused, and so is one of another image', async () => {
    const { frames, reader } = await make();
    const slot = reader.acquire();
    const { bytes } = frames[0]!;
    const refused = (length: number) => {
      try {
        reader.read(slot, length);
      } catch (error) {
        return (error as AbdmError).code;
      }
      return 'read';
    };
    slot.bytes.set(bytes);
    expect(refused(bytes.length)).toBe('read');
    expect(refused(bytes.length - 1)).toBe('FRAME_MALFORMED');
    slot.bytes[bytes.length - 20]! ^= 1;
    expect(refused(bytes.length)).toBe('FRAME_CHECKSUM');
    const small = await FrameReader.create(key, [{ pages: 3 }]);
    const other = small.acquire();
    other.bytes.set(bytes);
    expect(() => small.read(other, bytes.length)).toThrow('outside');
    const stranger = (await FrameReader.create(new Uint8Array(32), [{ pages: 700 }])) as FrameReader;
    const third = stranger.acquire();
    third.bytes.set(bytes);
    expect(() => stranger.read(third, bytes.length)).toThrow('key');
  });

  test('has its slots: more frames than that at a time are refused', async () => {
    const { reader } = await make();
    reader.acquire();
    const second = reader.acquire();
    expect(() => reader.acquire()).toThrow('release one first');
    second.release();
    reader.acquire();
    await expect(FrameReader.create(new Uint8Array(31), [{ pages: 1 }])).rejects.toThrow('32');
  });
});
