// What a divided page may be a duplicate of, where not every frame can be fetched again: held against a plain history of all that was divided.
import { Divider, PAGE_BYTES } from 'abdm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { scale } from '../engine.js';
import { Contents } from './contents.js';
import { KIND, slotsOf } from './frames.js';
import { key, MemorySink, makeMerger, mergeFrame } from './library.js';

const PAGES = 64;
const contents = new Contents(30);

const batch = fc.record({
  contents: fc.array(fc.nat(24), { minLength: 1, maxLength: PAGES }),
  fetchableOnly: fc.boolean(),
  alone: fc.nat(7).map((n) => n === 0),
  /** Its frames go where they cannot be fetched from. */
  goesStraight: fc.boolean(),
  /** Before it. */
  forget: fc.nat(9).map((n) => n === 0),
});

interface Divided {
  id: number;
  contents: number[];
  /** Those that it holds itself. */
  sent: Set<number>;
  alone: boolean;
  fetchableOnly: boolean;
  goesStraight: boolean;
  bytes: Uint8Array;
}

describe('a divided page', () => {
  test('is a duplicate only of what it may be', async () => {
    const seen = { passedOver: 0, fetchable: 0, straight: 0, own: 0 };
    const property = fc.asyncProperty(fc.array(batch, { maxLength: 14 }), async (batches) => {
      const divider = await Divider.create({ key, dedupEntries: 2_000, batchPages: PAGES, slots: 1, batches: 1 });
      const room = divider.acquire();
      const history = new Map<number, Divided>();
      let forgotten = 0;
      for (const { contents: put, fetchableOnly, alone, goesStraight, forget } of batches) {
        if (forget) {
          divider.forget();
          forgotten = history.size;
        }
        for (const [i, content] of put.entries()) room.bytes.set(contents.bytes(content), i * PAGE_BYTES);
        const [frame, ...more] = divider.divide(room, { vm: 0, base: 0, pages: put.length }, { fetchableOnly, alone });
        expect(more).toEqual([]);
        const { id } = frame!;
        const bytes = frame!.bytes.slice();
        const slots = slotsOf(bytes);
        const sent = new Set(put.filter((_, i) => slots[i]!.kind >= KIND.lz4));
        history.set(id, { id, contents: put, sent, alone, fetchableOnly, goesStraight, bytes });
        const others = new Set<number>();
        for (const [i, { at }] of slots.entries()) {
          if (!at) continue;
          const origin = history.get(at.frame)!;
          expect(origin.contents[at.slot]).toBe(put[i]);
          expect([KIND.lz4, KIND.raw]).toContain(slotsOf(origin.bytes)[at.slot]!.kind);
          expect(origin.alone || alone).toBe(false);
          expect(at.frame).toBeGreaterThan(forgotten);
          if (at.frame === id) seen.own++;
          else {
            others.add(at.frame);
            if (fetchableOnly) expect(origin.goesStraight).toBe(false);
            seen[origin.goesStraight ? 'straight' : 'fetchable']++;
          }
        }
        expect([...frame!.references].sort()).toEqual([...others].sort());
        // And it is one wherever it may be: the table has room for all.
        for (const [i, content] of put.entries()) {
          if (content === 0 || alone || slots[i]!.at) continue;
          const elsewhere = [...history.values()].filter(
            (one) => one.id > forgotten && one.id < id && !one.alone && one.sent.has(content),
          );
          expect(put.indexOf(content)).toBe(i);
          expect(elsewhere.every((one) => fetchableOnly && one.goesStraight)).toBe(true);
          seen.passedOver += elsewhere.length > 0 ? 1 : 0;
        }
        if (goesStraight) divider.setUnfetchable(id);
        frame!.release();
      }
      await provesItself([...history.values()]);
    });
    await fc.assert(property, { seed: 4, numRuns: scale(100) });
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(50);
  });

  /** Whoever has the fetchable frames alone has all that those of them need which were meant to be fetched. */
  async function provesItself(frames: readonly Divided[]): Promise<void> {
    const merger = await makeMerger([PAGES]);
    const sink = new MemorySink([PAGES]);
    const kept = frames.filter(({ fetchableOnly, alone, goesStraight }) => !goesStraight && (fetchableOnly || alone));
    const later = new Map(frames.filter(({ goesStraight }) => !goesStraight).map((frame) => [frame.id, frame]));
    const expected = sink.images[0]!.slice();
    for (const { bytes, contents: put } of kept) {
      const { waitsFor } = mergeFrame(merger, bytes, sink);
      for (const id of waitsFor) expect(later.has(id)).toBe(true);
      for (const [i, content] of put.entries()) expected.set(contents.bytes(content), i * PAGE_BYTES);
      // It is in a later frame than what it refers to: that one may bring its own pages without harm.
      for (const id of waitsFor) mergeFrame(merger, later.get(id)!.bytes, sink);
      for (let i = 0; i < put.length; i++) expect(merger.isMerged(0, i)).toBe(true);
      for (const [i] of put.entries()) {
        const at = i * PAGE_BYTES;
        expect(contents.of(sink.images[0]!, at)).toBe(put[i]);
      }
    }
    expect(merger.wanted.size).toBe(0);
  }

  test('is none of an alone frame, and no later one is of it', async () => {
    const divider = await Divider.create({ key, dedupEntries: 100, batchPages: 4, slots: 1 });
    const room = divider.acquire();
    for (let i = 0; i < 4; i++) room.bytes.set(contents.bytes(1 + (i >> 1)), i * PAGE_BYTES);
    const kindsOf = (options: object) => {
      const [frame] = divider.divide(room, { vm: 0, base: 0, pages: 4 }, options);
      frame!.release();
      return slotsOf(frame!.bytes).map(({ kind, at }) => at?.frame ?? kind);
    };
    expect(kindsOf({ alone: true })).not.toContain(KIND.duplicate);
    expect(kindsOf({ alone: true, fetchableOnly: true })).not.toContain(KIND.duplicate);
    const third = kindsOf({});
    expect([third[1], third[3]]).toEqual([3, 3]);
    expect(kindsOf({})).toEqual([3, 3, 3, 3]);
    expect(() => divider.setUnfetchable(5)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    divider.setUnfetchable(3);
    expect(kindsOf({})).toEqual([3, 3, 3, 3]);
    const sixth = kindsOf({ fetchableOnly: true });
    expect([sixth[1], sixth[3]]).toEqual([6, 6]);
    expect(kindsOf({})).toEqual([6, 6, 6, 6]);
    divider.forget();
    const eighth = kindsOf({});
    expect([eighth[1], eighth[3]]).toEqual([8, 8]);
    room.release();
  });
});
