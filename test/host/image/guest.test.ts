import { afterEach, expect, test } from 'vitest';
import type { GuestSink, GuestSource } from '#abdm/host/image/image.js';
import { cleanUp } from '../cli/processes.js';
import { GuestProcess, MIB } from '../guest/guests.js';

const PAGE = 4096;
const PAGES = (16 * MIB) / PAGE;

afterEach(cleanUp);

const hasBit = (bitmap: Uint8Array, page: number) => ((bitmap[page >> 3]! >> (page & 7)) & 1) === 1;
const pagesOf = (bitmap: Uint8Array) =>
  Array.from({ length: PAGES }, (_, page) => page).filter((page) => hasBit(bitmap, page));

function readAll(source: GuestSource): Buffer {
  const bytes = Buffer.alloc(source.bytes);
  source.read(0, source.pages, bytes, 0);
  return bytes;
}

/** Pages in an order of chance. */
function shuffled(pages: number[], seed = 7): number[] {
  let x = seed;
  for (let i = pages.length - 1; i > 0; i--) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    const j = x % (i + 1);
    [pages[i], pages[j]] = [pages[j]!, pages[i]!];
  }
  return pages;
}

function copy(from: Buffer, sink: GuestSink, pfn: number): void {
  sink.write(pfn, from, pfn * PAGE, PAGE);
}

test('what was written to is dirty, or was read afterwards', async () => {
  const guest = await GuestProcess.running();
  const source = await guest.source();
  expect(source).toMatchObject({ pages: PAGES, bytes: 16 * MIB, guestId: expect.stringMatching(/^[0-9a-f]{32}$/) });
  const copied = readAll(source);
  let rounds = 0;
  let dirtied = 0;
  const page = Buffer.alloc(PAGE);
  const round = async () => {
    const bitmap = new Uint8Array(PAGES / 8);
    await source.dirty(bitmap);
    for (const pfn of pagesOf(bitmap)) {
      dirtied++;
      source.read(pfn, 1, page, 0);
      page.copy(copied, pfn * PAGE);
    }
  };
  for (; rounds < 5; rounds++) {
    await guest.works();
    await round();
  }
  await source.stop();
  await round();
  expect(dirtied).toBeGreaterThan(500);
  expect(copied.equals(readAll(source))).toBe(true);
  // Nothing is dirty any more, and nothing changes.
  const none = new Uint8Array(PAGES / 8);
  await source.dirty(none);
  expect(pagesOf(none)).toEqual([]);
  await source.resume();
  await guest.works();
  await source.close();
  expect((await guest.ask('verify')).wrong).toBe(0);
});

test('a guest moves by hand, runs before its pages are there, and finds none of them wrong', async () => {
  const from = await GuestProcess.running('--pattern', 'zipf');
  await from.works();
  const to = await GuestProcess.waiting();
  const source = await from.source();
  const sink = await to.sink();
  const state = await source.stop();
  const memory = readAll(source);
  await sink.load(state);
  const faults: number[] = [];
  sink.onFault = (pfn) => faults.push(pfn);
  const rest = shuffled(Array.from({ length: PAGES }, (_, page) => page));
  for (const pfn of rest.splice(0, PAGES / 4)) copy(memory, sink, pfn);
  await sink.run();
  await source.release();
  let served = 0;
  const asked = new Set<number>();
  while (rest.length > 0) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    for (const pfn of faults.splice(0)) {
      expect(asked.has(pfn)).toBe(false);
      asked.add(pfn);
      if (hasBit(sink.present, pfn)) continue;
      served++;
      rest.splice(rest.indexOf(pfn), 1);
      copy(memory, sink, pfn);
    }
    for (const pfn of rest.splice(0, 8)) copy(memory, sink, pfn);
  }
  expect(served).toBeGreaterThan(10);
  await sink.commit();
  await to.works();
  expect(await to.ask('verify')).toMatchObject({ pages: PAGES, absent: 0, wrong: 0 });
  const left = await from.abdm.stop();
  const right = await to.abdm.stop();
  expect([left.code, right.code]).toEqual([0, 0]);
  // One after the other, without a gap: they are one guest.
  const [first, second] = [left.summary.ran.at(-1), right.summary.ran[0]];
  expect(second.fromOperation).toBe(first.toOperation);
  expect(second.beganAtMs).toBeGreaterThan(first.endedAtMs);
  expect(right.summary).toMatchObject({ wrongPages: 0, guestId: sink.guestId });
  expect(right.summary.faults.count).toBeGreaterThanOrEqual(served);
  expect(right.summary.faults.maxMs).toBeGreaterThan(0);
});
