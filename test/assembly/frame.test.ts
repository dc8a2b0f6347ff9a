// The frame's reader against a slow one, and the merge of frames that somebody forged who has the key: a divider with a mistake in it, say.
import { describe, expect, test } from 'vitest';
import { BATCH_PFNS_PTR, MAX_FRAME_BYTES, RESULT_PTR } from '#abdm/bindings/abi.js';
import { type RawEngine, rawEngine, scale, seeded } from '../engine.js';
import { isFrame } from '../oracle/frame.js';
import { seededPages } from '../pages.js';
import { plainDecompress } from './lz4-peers.js';

const PAGES = 24;
const TAG_KEY_PTR = 0x2400 + 4160;
const HEADER_BYTES = 40;
const BAD_LZ4 = 7;

/** An engine with a map of `PAGES` pages, and where things lie in it: canaries between them. */
function makeEngine() {
  const engine = rawEngine(4 << 20);
  const [table, newest, merged, pages, frame, out] = [0, 1, 2, 3, 4, 5].map((i) => engine.free + i * 0x80000) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  for (let i = 0; i < 32; i++) engine.bytes[pages + i] = i * 7;
  engine.setKey(pages);
  engine.dedupInit(table, 64);
  engine.mapInit(newest, merged);
  engine.mapVm(0, 0, PAGES);
  return { engine, newest, merged, pages, frame, out };
}

/** The frame of seeded pages, as the engine divides them. */
function divided(at: ReturnType<typeof makeEngine>, withIds = 1, acceleration = 1): Uint8Array {
  const { engine, pages, frame, out } = at;
  engine.bytes.set(seededPages(61, PAGES, ['zero', 'text', 'random', 'duplicate', 'heap']), pages);
  const view = new DataView(engine.bytes.buffer);
  for (let i = 0; i < PAGES; i++) view.setUint32(BATCH_PFNS_PTR + 4 * i, i, true);
  expect(engine.divide(pages, PAGES, 0, 0, 7, frame, MAX_FRAME_BYTES, acceleration, PAGES, withIds, out)).toBe(1);
  return engine.bytes.slice(frame, frame + view.getUint32(RESULT_PTR + 28, true));
}

/** Writes the sums that fit the rest of the frame. */
function mend(engine: RawEngine, ptr: number, bytes: number, tagged: boolean): void {
  const view = new DataView(engine.bytes.buffer, ptr, bytes);
  const [pages, ids, duplicates] = [28, 30, 32].map((at) => view.getUint16(at, true)) as [number, number, number];
  const meta = HEADER_BYTES + pages * 8 + ids * 16 + duplicates * 8;
  if (tagged && meta + 16 < bytes) engine.sipHash128(TAG_KEY_PTR, ptr, meta, ptr + meta);
  engine.xxh3(ptr, bytes - 8, ptr + bytes - 8);
}

/** Changes a frame somewhere, mostly in header and tables, by values that are likely to hurt. */
function forge(frame: Uint8Array, next: () => number): Uint8Array {
  const meta = HEADER_BYTES + PAGES * 8 + (next() % 3 === 0 ? PAGES * 24 : 0);
  let out = frame.slice();
  for (let times = 1 + (next() % 3); times > 0; times--) {
    const at = next() % meta;
    const value = [0, 1, 2, 3, 0xff, 0x10, 0x40, next() & 0xff][next() % 8]!;
    if (next() % 4 === 0) out[at]! ^= 1 << (next() % 8);
    else out[at] = value;
  }
  if (next() % 8 === 0) {
    const resized = new Uint8Array(Math.max(64, out.length + (next() % 4000) - 2000));
    resized.set(out.subarray(0, resized.length));
    out = resized;
    new DataView(out.buffer).setUint32(24, out.length, true);
  }
  return out;
}

/** The pages of a frame, null for zero pages; null if one of them does not decode. */
function slowPages(frame: Uint8Array, payload: number): (Uint8Array | null)[] | null {
  const view = new DataView(frame.buffer);
  const pages: (Uint8Array | null)[] = [];
  let window = new Uint8Array(0);
  for (let slot = 0, from = payload; slot < PAGES; slot++) {
    const kind = frame[HEADER_BYTES + 8 * slot + 2];
    const bytes = frame.subarray(from, from + view.getUint16(HEADER_BYTES + 8 * slot + 4, true));
    from += bytes.length;
    const page = kind === 0 ? null : kind === 3 ? bytes : plainDecompress(bytes, 4096, window);
    if (kind !== 0 && !page) return null;
    pages.push(page);
    if (page) window = Buffer.concat([window, page]);
  }
  return pages;
}

describe('a frame that was changed by somebody who mends its sums', () => {
  for (const [withIds, acceleration] of [
    [1, 1],
    [0, 1],
    [1, 0],
    [0, 0],
  ] as const) {
    const how = `${withIds ? '' : ', without content ids'}${acceleration ? '' : ', with high ratio'}`;
    test(`is accepted exactly where the slow reader accepts it${how}`, () => {
      const at = makeEngine();
      const { engine, frame } = at;
      const good = divided(at, withIds, acceleration);
      const next = seeded(62 + withIds);
      let accepted = 0;
      for (let i = 0; i < scale(50_000); i++) {
        const forged = forge(good, next);
        engine.bytes.set(forged, frame);
        mend(engine, frame, forged.length, false);
        const verdict = engine.frameCheck(frame, forged.length);
        if (isFrame(forged) !== (verdict === 0)) throw new Error(`forgery ${i}: the engine says ${verdict}`);
        if (verdict === 0) accepted++;
      }
      expect(accepted).toBeGreaterThan(0);
    });
  }

  test.each([
    ['', 1],
    [', with high ratio', 0],
  ] as const)(
    'never takes the merge out of bounds, and brings no page but those that its content ids name%s',
    (_, acceleration) => {
      const at = makeEngine();
      const { engine, frame, out, newest, merged } = at;
      const good = divided(at, 1, acceleration);
      const next = seeded(64);
      const view = new DataView(engine.bytes.buffer);
      let mergedFrames = 0;
      for (let i = 0; i < scale(30_000); i++) {
        const forged = forge(good, next);
        engine.bytes.fill(0, newest, newest + PAGES * 8 + 64).fill(0, merged, merged + 64);
        engine.bytes.set(forged, frame);
        mend(engine, frame, forged.length, true);
        const before = engine.bytes.slice(frame, frame + forged.length);
        const error = engine.merge(frame, forged.length, out);
        const untouched = engine.bytes
          .subarray(newest + PAGES * 8, newest + PAGES * 8 + 64)
          .every((byte) => byte === 0);
        if (!untouched || engine.bytes[merged + Math.ceil(PAGES / 8)] !== 0)
          throw new Error(`forgery ${i}: left the page map`);
        if (Buffer.compare(before, engine.bytes.subarray(frame, frame + forged.length)) !== 0) {
          throw new Error(`forgery ${i}: the frame was written to`);
        }
        if (error !== 0) {
          if (engine.bytes[merged] !== 0) throw new Error(`forgery ${i}: refused, and merged all the same`);
          continue;
        }
        mergedFrames++;
        for (let slot = 0; slot < view.getUint32(RESULT_PTR + 4, true); slot++) {
          const place = view.getUint32(RESULT_PTR + 64 + 4 * slot, true);
          if (place === 0) continue;
          const named = view.getUint32(RESULT_PTR + 704 + 4 * slot, true);
          if (engine.hasContent(place, named) !== 1)
            throw new Error(`forgery ${i}: slot ${slot} is not what it is named`);
        }
      }
      expect(mergedFrames).toBeGreaterThan(0);
    },
  );

  test('decodes to what the slow decoder makes of its window, where no content ids vouch for it', () => {
    const at = makeEngine();
    const { engine, frame, out, newest } = at;
    const good = divided(at, 0);
    const payload = HEADER_BYTES + PAGES * 8 + 16;
    const next = seeded(66);
    const view = new DataView(engine.bytes.buffer);
    const room = engine.bytes.subarray(out - 4096, out + PAGES * 4096 + 4096);
    let refused = 0;
    for (let i = 0; i < scale(5_000); i++) {
      const forged = good.slice();
      for (let times = 1 + (next() % 4); times > 0; times--) {
        forged[payload + (next() % (forged.length - 8 - payload))] = next() % 2 ? next() : 0xff;
      }
      engine.bytes.set(forged, frame);
      mend(engine, frame, forged.length, true);
      room.fill(0xa5);
      engine.bytes.fill(0, newest, newest + PAGES * 8);
      const error = engine.merge(frame, forged.length, out);
      const pages = slowPages(forged, payload);
      const canary = [...room.subarray(0, 4096), ...room.subarray(4096 * (PAGES + 1))];
      if (canary.some((byte) => byte !== 0xa5)) throw new Error(`forgery ${i}: wrote outside its output`);
      if (error !== (pages ? 0 : BAD_LZ4)) throw new Error(`forgery ${i}: ${error}`);
      if (!pages) refused++;
      pages?.forEach((page, slot) => {
        const place = view.getUint32(RESULT_PTR + 64 + 4 * slot, true);
        if (page && Buffer.compare(page, engine.bytes.subarray(place, place + 4096)) !== 0)
          throw new Error(`forgery ${i}: slot ${slot} is something else`);
      });
    }
    expect(refused).toBeGreaterThan(0);
    expect(refused).toBeLessThan(scale(5_000));
  });

  test('is refused if its blocks refer to a window and its header says that there is none', () => {
    for (const withIds of [1, 0]) {
      const at = makeEngine();
      const { engine, frame, out } = at;
      const changed = divided(at, withIds);
      changed[5]! ^= 2;
      engine.bytes.set(changed, frame);
      mend(engine, frame, changed.length, true);
      expect(engine.merge(frame, changed.length, out)).toBe(BAD_LZ4);
      // And with a window it is not.
      engine.bytes[frame + 5]! ^= 2;
      mend(engine, frame, changed.length, true);
      expect(engine.merge(frame, changed.length, out)).toBe(0);
    }
  });
});
