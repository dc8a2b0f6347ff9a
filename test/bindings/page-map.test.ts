// The merger against the plain twin of its page map: versions that are expected, discarded, frozen and adopted, duplicates that wait, frames in any order and
// more than once, and a guest that writes to what is in place.
import { Divider, Merger, PAGE_BYTES, type PageSink } from 'abdm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { scale, seeded } from '../engine.js';
import { seededPages } from '../pages.js';
import { Contents } from './contents.js';
import { slotsOf } from './frames.js';
import { divideBatch, key, MemorySink, makeDivider, makeMerger, mergeFrame } from './library.js';
import { type ModelFrame, ModelMap } from './page-map.js';

const VMS = [37, 20];
const BATCH_PAGES = 8;
const contents = new Contents(40);

interface Made extends ModelFrame {
  bytes: Uint8Array;
}

/** Frames of rounds over memory that is written to between them; of each, those that were made of it: at first, and again. */
async function makeFrames(seed: number, batches: number): Promise<Made[][]> {
  const random = seeded(seed);
  const divider = await Divider.create({ key, dedupEntries: 100, batchPages: BATCH_PAGES, slots: 2, batches: 1 });
  const batch = divider.acquire();
  const frames: Made[][] = [];
  for (let i = 0; i < batches; i++) {
    const vm = random() % VMS.length;
    const base = random() % VMS[vm]!;
    const deltas: number[] = [];
    for (let delta = 0; base + delta < VMS[vm]! && deltas.length < BATCH_PAGES; delta += 1 + (random() % 2)) {
      deltas.push(delta);
    }
    const put = deltas.map((_, at) => {
      const content = random() % 5 === 0 ? 0 : 1 + (random() % 20);
      batch.bytes.set(contents.bytes(content), at * PAGE_BYTES);
      return content;
    });
    const pages = { vm, base, pages: deltas.length, deltas };
    if (random() % 12 === 0) divider.forget();
    const options = { alone: random() % 10 === 0, fetchableOnly: random() % 3 === 0 };
    const [made] = divider.divide(batch, pages, options);
    const again = divider.divideAgain(batch, pages, made!.id);
    if (random() % 3 === 0) divider.setUnfetchable(made!.id);
    frames.push(
      [made!, again].map(({ id, bytes, release }) => {
        const kept = { id, vm, slots: slotsOf(bytes), contents: put, bytes: bytes.slice() };
        release();
        return kept;
      }),
    );
  }
  return frames;
}

/** An image of numbers, that notes what is written to it. */
class NotingSink implements PageSink {
  readonly images: number[][];
  writes: string[] = [];
  reads = true;

  constructor(images: number[][]) {
    this.images = images;
  }
  write(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    for (let at = 0; at < bytes; at += PAGE_BYTES)
      this.#put(vm, pfn + at / PAGE_BYTES, contents.of(memory, offset + at));
  }
  zero(vm: number, pfn: number, pages: number): void {
    for (let i = 0; i < pages; i++) this.#put(vm, pfn + i, 0);
  }
  read(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    if (this.reads) memory.set(contents.bytes(this.images[vm]![pfn]!), offset);
    return this.reads;
  }
  #put(vm: number, pfn: number, content: number): void {
    this.images[vm]![pfn] = content;
    this.writes.push(`${vm}:${pfn}=${content}`);
  }
}

/** What no frame has, so that it is seen where it is not written over. */
const BEFORE = 40;
/** What the guest writes. */
const GUESTS = 39;

const pick = fc.nat();
/** One thing that happens to a merger. */
const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({ do: fc.constant('merge' as const), pick, again: fc.boolean(), reads: fc.boolean() }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('expect' as const), pick }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('discard' as const), pick, seed: pick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('freeze' as const), pick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('adopt' as const), pick, seed: pick }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('guest' as const), pick, seed: pick }) },
);

const sorted = <T>(items: Iterable<T>) => [...items].sort();

function randomBits(pages: number, seed: number) {
  const random = seeded(seed);
  const bitmap = Uint8Array.from({ length: Math.ceil(pages / 8) }, () => random());
  const set = Array.from({ length: pages }, (_, i) => i).filter((i) => (bitmap[i >> 3]! >> (i & 7)) & 1);
  return { bitmap, set };
}

describe('the page map', () => {
  test('is what the plain twin says, whatever comes in whichever order', { timeout: 60_000 * scale(1) }, async () => {
    const seen = { kept: 0, settled: 0, superseded: 0, wanted: 0 };
    const property = fc.asyncProperty(
      fc.nat(),
      fc.array(step, { minLength: 10, maxLength: 80 }),
      async (seed, steps) => {
        const frames = await makeFrames(seed, 16);
        const merger = await Merger.create({ key, vms: VMS.map((pages) => ({ pages })), slots: 1 });
        const sink = new NotingSink(VMS.map((pages) => new Array<number>(pages).fill(BEFORE)));
        const model = new ModelMap(VMS, () => BEFORE);
        const frozen = new Set<number>();
        for (const one of steps) {
          const superseded: number[] = [];
          const note = (frame: number) => superseded.push(frame);
          sink.writes = [];
          if (one.do === 'merge') {
            const frame = frames[one.pick % frames.length]![one.again ? 1 : 0]!;
            sink.reads = one.reads;
            const isKept = ({ id, vm }: Made, pfn: number) => model.vms[vm]![pfn]!.wanted < id;
            const { waitsFor } = mergeFrame(merger, frame.bytes, sink, note);
            const modelled = model.merge(frame, one.reads);
            expect(sorted(sink.writes)).toEqual(sorted(modelled.writes));
            expect(sorted(superseded)).toEqual(sorted(modelled.superseded));
            expect(sorted(waitsFor)).toEqual(sorted(modelled.waitsFor));
            const own = new Set(frame.slots.map(({ pfn }) => `${frame.vm}:${pfn}`));
            seen.settled += sink.writes.filter((write) => !own.has(write.split('=')[0]!)).length;
            // Later than what a guest runs on, and not put there.
            if (frozen.has(frame.vm)) seen.kept += frame.slots.filter(({ pfn }) => isKept(frame, pfn)).length;
          } else if (one.do === 'expect') {
            const frame = frames[one.pick % frames.length]![0]!;
            const pfns = Float64Array.from([...frame.slots.map(({ pfn }) => pfn), 0, 1]);
            const own = merger.expect(frame.id, frame.vm, pfns, frame.slots.length, note);
            expect({ own, superseded }).toEqual(model.expect(frame));
          } else if (one.do === 'discard') {
            const vm = one.pick % VMS.length;
            const first = one.seed % VMS[vm]!;
            const { bitmap, set } = randomBits(VMS[vm]! - first, one.seed);
            const floor = 1 + (one.pick % (frames.length + 2));
            merger.discard(vm, first, VMS[vm]! - first, bitmap, floor, note);
            expect(superseded).toEqual(
              model.discard(
                vm,
                set.map((i) => first + i),
                floor,
              ),
            );
          } else if (one.do === 'freeze') {
            merger.freeze(one.pick % VMS.length);
            model.freeze(one.pick % VMS.length);
            frozen.add(one.pick % VMS.length);
          } else if (one.do === 'adopt') {
            const vm = one.pick % VMS.length;
            const { bitmap, set } = randomBits(VMS[vm]!, one.seed);
            merger.adopt(vm, bitmap);
            model.adopt(vm, set);
          } else {
            const vm = one.pick % VMS.length;
            const pfn = one.seed % VMS[vm]!;
            sink.images[vm]![pfn] = model.vms[vm]![pfn]!.content = GUESTS;
          }
          seen.superseded += superseded.length;
          seen.wanted += merger.wanted.size;

          expect(sink.images).toEqual(model.vms.map((pages) => pages.map(({ content }) => content)));
          for (const [vm, pages] of model.vms.entries()) {
            expect(pages.map(({ pfn }) => merger.isMerged(vm, pfn))).toEqual(pages.map(({ inPlace }) => inPlace));
            expect(pages.map(({ pfn }) => merger.newest(vm, pfn))).toEqual(
              pages.map(({ pfn }) => model.newest(vm, pfn)),
            );
            const inPlace = pages.filter(({ inPlace }) => inPlace).length;
            expect(merger.mergedPages(vm)).toBe(inPlace);
          }
          expect(merger.complete).toBe(model.vms.flat().every(({ inPlace }) => inPlace));
          const ids = frames.map(([first]) => first!.id);
          expect(ids.filter((id) => merger.isAwaited(id))).toEqual(ids.filter((id) => model.isAwaited(id)));
          expect(sorted(merger.wanted)).toEqual(
            sorted(ids.filter((id) => model.merged.has(id) && model.isAwaited(id))),
          );
          expect(merger.frames).toBe(model.merged.size);
        }
      },
    );
    await fc.assert(property, { seed: 20, numRuns: scale(300) });
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(20);
  });

  test('takes large bitmaps, wherever its VMs begin', async () => {
    const pages = [3, 100_001, 9];
    const merger = await makeMerger(pages);
    const { bitmap, set } = randomBits(100_001, 3);
    merger.adopt(1, bitmap);
    expect(pages.map((_, vm) => merger.mergedPages(vm))).toEqual([0, set.length, 0]);
    expect(set.every((pfn) => merger.isMerged(1, pfn))).toBe(true);
    // Bits behind the last page are nobody's.
    merger.adopt(0, new Uint8Array([0xff, 0xff]));
    expect(pages.map((_, vm) => merger.mergedPages(vm))).toEqual([3, set.length, 0]);

    const first = 7;
    const discarded = randomBits(90_000, 4);
    merger.discard(1, first, 90_000, discarded.bitmap, 5, () => expect.fail('no frame was known'));
    const stay = new Set(set);
    for (const i of discarded.set) stay.delete(first + i);
    expect(merger.mergedPages(1)).toBe(stay.size);
    expect([...stay].every((pfn) => merger.isMerged(1, pfn))).toBe(true);
    expect(merger.newest(1, first + discarded.set[0]!)).toBe(0);

    const superseded: number[] = [];
    for (let at = 0; at < 64_000; at += 64) {
      const pfns = Array.from({ length: 64 }, (_, i) => at + i);
      expect(merger.expect(9 + at, 1, pfns, 64, () => expect.fail('no frame was known'))).toBe(64);
    }
    merger.discard(1, 0, 64_000, new Uint8Array(8_000).fill(255), 100_000, (frame) => superseded.push(frame));
    expect(superseded).toEqual(Array.from({ length: 64_000 }, (_, i) => 9 + i - (i % 64)));
  });

  test('refuses what is none of its pages', async () => {
    const merger = await makeMerger([10, 20]);
    const nobody = () => expect.fail('nothing was superseded');
    const all = new Uint8Array(8).fill(255);
    for (const wrong of [
      () => merger.expect(0, 0, [1], 1, nobody),
      () => merger.expect(2 ** 47, 0, [1], 1, nobody),
      () => merger.expect(1.5, 0, [1], 1, nobody),
      () => merger.expect(1, 2, [1], 1, nobody),
      () => merger.expect(1, 0, [9, 10], 2, nobody),
      () => merger.expect(1, 0, [1], 2, nobody),
      () => merger.expect(1, 0, [-1], 1, nobody),
      () =>
        merger.expect(
          1,
          1,
          Array.from({ length: 65 }, () => 1),
          65,
          nobody,
        ),
      () => merger.discard(0, 1, 10, all, 1, nobody),
      () => merger.discard(0, 0, 10, new Uint8Array(1), 1, nobody),
      () => merger.discard(0, 0, 10, all, 0, nobody),
      () => merger.discard(-1, 0, 10, all, 1, nobody),
      () => merger.discard(0, -1, 10, all, 1, nobody),
      () => merger.discard(0, 0.5, 8, all, 1, nobody),
      () => merger.adopt(1, new Uint8Array(2)),
      () => merger.adopt(2, all),
      () => merger.freeze(2),
      () => merger.newest(0, 10),
    ]) {
      expect(wrong).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
    }
    for (const [vm, pages] of [10, 20].entries()) {
      expect(merger.mergedPages(vm)).toBe(0);
      for (let pfn = 0; pfn < pages; pfn++) expect(merger.newest(vm, pfn)).toBe(0);
    }
  });

  test('never has a page written that a guest runs on, and still brings the others', async () => {
    const divider = await makeDivider();
    const old = seededPages(30, 64, ['text']);
    const later = seededPages(31, 64, ['random', 'zero']);
    const first = divideBatch(divider, old, { vm: 0, base: 0 });
    const second = divideBatch(divider, later, { vm: 0, base: 0 });
    const third = divideBatch(divider, old, { vm: 0, base: 0 });
    const merger = await makeMerger([64]);
    const sink = new MemorySink([64]);
    mergeFrame(merger, first[0]!.bytes, sink);
    // Before the guest runs it is said which pages come later; half of them.
    merger.discard(0, 0, 64, new Uint8Array(8).fill(0b01010101), 2, () => expect.fail('all had come'));
    merger.freeze(0);
    expect(merger.mergedPages(0)).toBe(32);
    for (const frame of [...second, ...first, ...third]) mergeFrame(merger, frame.bytes, sink);
    const expected = old.slice();
    for (let pfn = 0; pfn < 64; pfn += 2) expected.set(later.subarray(pfn * 4096, (pfn + 1) * 4096), pfn * 4096);
    expect(Buffer.compare(sink.images[0]!, expected)).toBe(0);
    expect(merger.complete).toBe(true);
  });
});
