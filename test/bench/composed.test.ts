// The peers composed from npm do the whole job: what they divide they merge again to the same bytes, and they refuse what was damaged.
import { FRAME_PAGES, PAGE_BYTES } from 'abdm';
import { describe, expect, it } from 'vitest';
import { type Composition, hashWasmComposition, xxhashWasmComposition } from '../../bench/composed/compositions.js';
import { ComposedDivider } from '../../bench/composed/divider.js';
import { DUPLICATE, FrameRoom, LZ4, PAYLOAD_BYTE, RAW, TABLE, ZERO } from '../../bench/composed/layout.js';
import { ComposedMerger } from '../../bench/composed/merger.js';
import { seededPages } from '../pages.js';

const PAGES = 256;
const image = Buffer.from(seededPages(7, PAGES));
const views = Array.from({ length: PAGES }, (_, i) => image.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));

function divided(composition: Composition): FrameRoom[] {
  const divider = new ComposedDivider(composition);
  return Array.from({ length: PAGES / FRAME_PAGES }, (_, i) => {
    const room = new FrameRoom();
    divider.divide(views, i * FRAME_PAGES, FRAME_PAGES, i * FRAME_PAGES, room);
    return room;
  });
}

describe.each([
  ['hash-wasm', hashWasmComposition],
  ['xxhash-wasm', xxhashWasmComposition],
])('peers composed with %s', (_, compose) => {
  it('merge what they divided', async () => {
    const composition = await compose();
    const frames = divided(composition);
    const merger = new ComposedMerger(composition, PAGES, Buffer.alloc(image.length));
    expect(frames.map((frame) => merger.merge(frame))).toEqual(frames.map(() => FRAME_PAGES));
    expect(merger.image.equals(image)).toBe(true);
    expect(merger.merged.every((byte) => byte === 0xff)).toBe(true);
  });

  it('find zero pages and duplicates, and send raw what does not compress', async () => {
    const kinds = divided(await compose()).flatMap(({ words }) =>
      Array.from({ length: FRAME_PAGES }, (_, slot) => words[TABLE + 2 * slot]! >>> 16),
    );
    const zero = Buffer.alloc(PAGE_BYTES);
    const zeros = views.filter((view) => view.equals(zero)).length;
    const contents = new Set(views.map((view) => view.toString('latin1'))).size - 1;
    const count = (kind: number) => kinds.filter((one) => one === kind).length;
    expect(count(ZERO)).toBe(zeros);
    expect(count(DUPLICATE)).toBe(PAGES - zeros - contents);
    expect(count(RAW)).toBeGreaterThan(0);
    expect(count(LZ4)).toBeGreaterThan(0);
  });

  it('refuse a damaged frame', async () => {
    const composition = await compose();
    const [frame] = divided(composition);
    const merger = new ComposedMerger(composition, PAGES, Buffer.alloc(image.length));
    frame!.bytes[PAYLOAD_BYTE + 5]! ^= 1;
    expect(() => merger.merge(frame!)).toThrow('checksum');
  });
});
