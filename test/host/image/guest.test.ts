// A guest as an image, with real guests: processes that write to their memory while it is read, and run while it is written.
import { statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import type { GuestSink, TrackedGuest } from '#abdm/host/image/image.js';
import { openSource, parseImage } from '#abdm/host/image/parse.js';
import { cleanUp, directory } from '../cli/processes.js';
import { GuestProcess, MIB } from '../guest/guests.js';
import { type Child, nodeChild } from '../temp.js';

const PAGE = 4096;
const PAGES = (16 * MIB) / PAGE;

afterEach(cleanUp);

const hasBit = (bitmap: Uint8Array, page: number) => ((bitmap[page >> 3]! >> (page & 7)) & 1) === 1;
const pagesOf = (bitmap: Uint8Array) =>
  Array.from({ length: bitmap.length * 8 }, (_, page) => page).filter((page) => hasBit(bitmap, page));

function readAll(source: TrackedGuest): Buffer {
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
  sink.settle!();
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

/** A migration by hand up to here: the guest runs at its destination, with the pages of `present` and no others. */
async function halfMoved(present: (pfn: number) => boolean) {
  const from = await GuestProcess.running('--pattern', 'streaming');
  await from.works();
  const to = await GuestProcess.waiting();
  const source = await from.source();
  const state = await source.stop();
  const memory = readAll(source);
  await source.release();
  await source.close();
  const sink = await to.sink();
  await sink.load(state);
  for (let pfn = 0; pfn < PAGES; pfn++) if (present(pfn)) copy(memory, sink, pfn);
  return { to, sink, memory };
}

/** What another process does with a guest until it is killed; it has printed a line by then. */
function killedMigrator(work: string): Promise<Child> {
  const url = (path: string) => JSON.stringify(new URL(`../../../dist/host/${path}`, import.meta.url).href);
  return nodeChild(`(async () => {
    const { openGuest } = await import(${url('image/guest.js')});
    const { openWaitingGuest } = await import(${url('image/guestsink.js')});
    ${work}
    console.log('ready');
  })()`);
}

async function kill({ process, ended }: Child): Promise<void> {
  process.kill('SIGKILL');
  await ended;
}

describe('when whoever migrates it dies', () => {
  test('a guest that ran runs on', async () => {
    const guest = await GuestProcess.running();
    await kill(await killedMigrator(`const source = await openGuest('${guest.socket}')`));
    await guest.works();
    // And it can be migrated by the next one.
    await (await guest.source()).close();
  });

  test('a guest that was stopped stays stopped, until the operator lets it go on', async () => {
    const guest = await GuestProcess.running();
    const dead = await killedMigrator(`const source = await openGuest('${guest.socket}'); await source.stop()`);
    await kill(dead);
    const { operation } = await guest.ask('status');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await guest.ask('status')).toMatchObject({ state: 'stopped', operation, migrator: false });
    await guest.ask('resume');
    await guest.works();
  });

  test('a guest that was let go of while it stood still stays so', async () => {
    const guest = await GuestProcess.running();
    await guest.works();
    const source = await guest.source();
    await source.stop();
    await source.close();
    await source.close();
    expect(await guest.ask('status')).toMatchObject({ state: 'stopped' });
    await expect(source.resume()).rejects.toMatchObject({ code: 'IMAGE' });
    // Whoever migrates it next gets the same state, and may let it go on.
    const next = await guest.source();
    expect((await next.stop()).length).toBeGreaterThan(0);
    // What was written before it was opened is in what is read.
    const none = new Uint8Array(PAGES / 8);
    await next.dirty(none);
    expect(pagesOf(none)).toEqual([]);
    await next.resume();
    await guest.works();
    await next.close();
  });

  test('a guest that waits for pages waits, and the next one hears of them and goes on from what is there', async () => {
    const { to, sink, memory } = await halfMoved((pfn) => pfn % 2 === 0);
    await sink.run();
    await expect.poll(async () => (await to.ask('status')).waitingFor).toBe(4);
    await sink.leave?.();
    const { operation } = await to.ask('status');
    await expect(to.sink()).rejects.toMatchObject({ code: 'IMAGE', message: expect.stringMatching(/has run already/) });
    await expect(to.sink(32 * MIB, 'keep')).rejects.toMatchObject({ code: 'IMAGE' });
    await expect(to.source()).rejects.toMatchObject({ message: expect.stringMatching(/2048 pages have not come/) });
    expect(await to.ask('status')).toMatchObject({
      state: 'running',
      operation,
      waitingFor: 4,
      absentPages: PAGES / 2,
    });

    const next = await to.sink(16 * MIB, 'keep');
    expect(next).toMatchObject({ guestId: sink.guestId, hasRun: true });
    expect(pagesOf(next.present)).toEqual(Array.from({ length: PAGES / 2 }, (_, i) => 2 * i));
    const faults: number[] = [];
    next.onFault = (pfn) => faults.push(pfn);
    await expect.poll(() => faults.length).toBe(4);
    await expect(next.commit()).rejects.toMatchObject({ message: expect.stringMatching(/2048 pages have not come/) });
    for (let pfn = 1; pfn < PAGES; pfn += 2) copy(memory, next, pfn);
    await next.commit();
    await to.works();
    expect(await to.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    // It is a guest like any other now: it can leave.
    const source = await to.source();
    expect(source.guestId).toBe(sink.guestId);
    await source.close();
  });

  test('pages that it had written before it was killed are there', async () => {
    const { to, sink, memory } = await halfMoved(() => false);
    await sink.leave?.();
    const path = join(directory(), 'memory');
    writeFileSync(path, memory);
    const dead = await killedMigrator(`
      const memory = require('node:fs').readFileSync('${path}');
      const sink = await openWaitingGuest('${to.socket}', memory.length, 'keep');
      for (let pfn = 0; pfn < 1000; pfn++) sink.write(pfn, memory, pfn * 4096, 4096);
      sink.settle();
      // Not settled: as if it had not been written.
      sink.write(2000, memory, 2000 * 4096, 4096);
    `);
    await kill(dead);
    const next = await to.sink(16 * MIB, 'keep');
    // It waits as it did before, and not to be taken for one that has run.
    expect(next.hasRun).toBe(false);
    expect(pagesOf(next.present)).toEqual(Array.from({ length: 1000 }, (_, pfn) => pfn));
    await next.run();
    for (let pfn = 1000; pfn < PAGES; pfn++) copy(memory, next, pfn);
    await next.commit();
    await to.works();
    expect(await to.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
  });
});

describe('pages', () => {
  test('that were taken back are waited for', async () => {
    const { to, sink, memory } = await halfMoved(() => true);
    sink.forget(8, 17);
    sink.forget(4095, 1);
    expect(pagesOf(sink.present)).toHaveLength(PAGES - 18);
    // What is left of them may be anything.
    const rubbish = Buffer.alloc(18 * PAGE, 0xaa);
    await to.plant(8 * PAGE, rubbish.subarray(0, 17 * PAGE));
    await sink.run();
    await expect.poll(async () => (await to.ask('status')).waitingFor).toBeGreaterThan(0);
    expect(await to.ask('verify')).toMatchObject({ absent: 18, wrong: 0 });
    for (const pfn of [...Array(17).keys()].map((i) => i + 8)) copy(memory, sink, pfn);
    copy(memory, sink, 4095);
    await sink.commit();
    await to.works(5000);
    expect(await to.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
  });

  test('are there when that is settled, and not before, however far from each other they are', async () => {
    const guest = await GuestProcess.waiting();
    const bytes = 2048 * MIB;
    const sink = await guest.sink(bytes);
    const some = [0, 9, 32_768, 32_777, 70_000, 300_000, 524_287, 5];
    for (const pfn of some) sink.zero(pfn, 1);
    sink.settle!();
    sink.zero(100, 1);
    // Who comes next has what was settled.
    await sink.leave?.();
    const next = await guest.sink(bytes, 'keep');
    expect(pagesOf(next.present)).toEqual([...some].sort((a, b) => a - b));
    await next.leave?.();
  });

  test('that are zero are holes where nothing was, and zeros where something was', async () => {
    const guest = await GuestProcess.waiting();
    const sink = await guest.sink();
    const before = Buffer.alloc(16 * MIB);
    sink.zero(0, PAGES);
    const { blocks } = statSync((await guest.ask('status')).memory as string);
    expect(blocks).toBe(0);
    expect(pagesOf(sink.present)).toHaveLength(PAGES);
    const rubbish = Buffer.alloc(40 * PAGE, 0xaa);
    sink.write(100, rubbish, 0, rubbish.length);
    rubbish.copy(before, 100 * PAGE);
    sink.zero(90, 30);
    before.fill(0, 90 * PAGE, 120 * PAGE);
    expect((await guest.memory()).equals(before)).toBe(true);
    const page = Buffer.alloc(PAGE + 3);
    sink.read(130, page, 3);
    expect(page.subarray(3).equals(rubbish.subarray(0, PAGE))).toBe(true);
    // Also where somebody else has written it.
    await sink.leave?.();
    const next = await guest.sink(16 * MIB, 'keep');
    next.zero(0, PAGES);
    expect((await guest.memory()).equals(Buffer.alloc(16 * MIB))).toBe(true);
    for (const wrong of [
      () => next.zero(PAGES, 1),
      () => next.write(-1, page, 0, PAGE),
      () => next.forget(0, PAGES + 1),
    ]) {
      expect(wrong).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
    }
    await next.leave?.();
  });

  test.each([
    ['damaged on the way', /^byte 4095 is \d+; in version \d+ it should be \d+$/],
    ['of an earlier round', /^(version \d+; it should be \d+|as it was before it was first written; .*)$/],
  ])('one %s is found', async (how, what) => {
    const from = await GuestProcess.running();
    await from.works();
    const source = await from.source();
    const early = readAll(source);
    await from.works(3000);
    const state = await source.stop();
    const memory = readAll(source);
    const to = await GuestProcess.waiting();
    const sink = await to.sink();
    await sink.load(state);
    let planted = 0;
    for (let pfn = 0; pfn < PAGES; pfn++) {
      const isStale = !early
        .subarray(pfn * PAGE, (pfn + 1) * PAGE)
        .equals(memory.subarray(pfn * PAGE, (pfn + 1) * PAGE));
      if (isStale) planted++;
      if (how === 'of an earlier round') copy(early, sink, pfn);
      else {
        if (isStale) memory[(pfn + 1) * PAGE - 1]! ^= 0x80;
        copy(memory, sink, pfn);
      }
    }
    expect(planted).toBeGreaterThan(100);
    await sink.run();
    const { code, summary, events } = await to.abdm.done;
    expect({ code, wrongPages: summary.wrongPages }).toEqual({ code: 4, wrongPages: 1 });
    expect(events.find(({ type }) => type === 'wrong').what).toMatch(what);
    await sink.leave?.();
  });
});

describe('a guest that waits', () => {
  test('waits for another one when it is discarded, and not when it has run', async () => {
    const { to, sink, memory } = await halfMoved(() => true);
    await expect.poll(async () => (await to.ask('status')).state).toBe('loaded');
    await sink.discard();
    await sink.discard();
    expect(await to.ask('status')).toMatchObject({ state: 'waiting', memoryBytes: 0 });
    const second = await to.sink();
    expect(second).toMatchObject({ guestId: sink.guestId, hasRun: false });
    expect(pagesOf(second.present)).toEqual([]);
    await second.leave?.();

    const other = await halfMoved(() => true);
    await other.sink.run();
    await other.sink.discard();
    await other.to.works();
    expect(await other.to.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    expect(memory.length).toBe(16 * MIB);
  });

  test('takes its execution state again before it runs, and never after', async () => {
    const from = await GuestProcess.running();
    const source = await from.source();
    const early = await source.stop();
    await source.resume();
    await from.works();
    const late = await source.stop();
    expect(late.length).toBeGreaterThan(0);
    const memory = readAll(source);
    const to = await GuestProcess.waiting();
    const sink = await to.sink();
    await sink.load(early);
    await sink.load(late);
    for (let pfn = 0; pfn < PAGES; pfn++) copy(memory, sink, pfn);
    await sink.run();
    await sink.run();
    // A page that it runs on is never written again.
    const again = expect.objectContaining({
      code: 'INTERNAL',
      message: expect.stringMatching(/^page 5 of guest .* again$/),
    });
    for (const write of [() => copy(memory, sink, 5), () => sink.zero(5, 1), () => sink.forget(5, 1)]) {
      expect(write).toThrow(again);
    }
    await expect(sink.load(late)).rejects.toMatchObject({ code: 'IMAGE' });
    await sink.commit();
    expect(await to.ask('verify')).toMatchObject({ wrong: 0 });
    await source.release();
    await source.close();
  });

  test('may be whole before it runs', async () => {
    const { to, sink } = await halfMoved(() => true);
    await sink.commit();
    await sink.run();
    await to.works();
    // Nobody holds it any more.
    await (await to.source()).close();
    expect(await to.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
  });
});

describe('a guest that vanishes', () => {
  test('from under its source: every further question fails, and says what is gone', async () => {
    const guest = await GuestProcess.running();
    const source = await guest.source();
    await guest.abdm.stop('SIGKILL');
    const gone = expect.objectContaining({
      code: 'IMAGE',
      message: expect.stringMatching(/^guest .*guest.sock: gone/),
    });
    await expect(source.dirty(new Uint8Array(PAGES / 8))).rejects.toEqual(gone);
    await expect(source.stop()).rejects.toEqual(gone);
    expect(() => source.read(0, 1, Buffer.alloc(PAGE), 0)).toThrow(gone);
    await source.close();
    await expect(guest.source()).rejects.toMatchObject({ code: 'IMAGE' });
  });

  test('when it is told to run: it is known whether it has, once it is surely dead', async () => {
    const { to, sink } = await halfMoved(() => true);
    to.abdm.signal('SIGSTOP');
    const running = expect(sink.run()).rejects.toMatchObject({ code: 'IMAGE' });
    // It will come to it when it goes on.
    expect(await sink.mayHaveRun()).toBe(true);
    // Asked while it dies, too.
    to.abdm.signal('SIGKILL');
    await running;
    expect(await sink.mayHaveRun()).toBe(false);

    const other = await halfMoved(() => true);
    await other.sink.run();
    await other.to.abdm.stop('SIGKILL');
    expect(await other.sink.mayHaveRun()).toBe(true);
  });

  test('from under its sink: it is said once, and nothing is written any more', async () => {
    const guest = await GuestProcess.waiting();
    const sink = await guest.sink();
    const said: Error[] = [];
    sink.onGone = (error) => said.push(error);
    await guest.abdm.stop('SIGKILL');
    await expect.poll(() => said.length).toBe(1);
    const gone = expect.objectContaining({ code: 'IMAGE', message: expect.stringMatching(/gone/) });
    expect(said[0]).toEqual(gone);
    expect(() => sink.write(0, Buffer.alloc(PAGE), 0, PAGE)).toThrow(gone);
    expect(() => sink.zero(0, 1)).toThrow(gone);
    await expect(sink.load(Buffer.alloc(10))).rejects.toEqual(gone);
    await sink.discard();
    expect(said).toHaveLength(1);
  });
});

test.each([
  ['no JSON', 'hello\n'],
  ['no size', '{"ok":true,"guest":"a","memory":"/dev/zero"}\n'],
  ['a memory that is not there', '{"ok":true,"guest":"a","bytes":4096,"memory":"/nowhere"}\n'],
  ['what nobody asked', '{"ok":true,"guest":"a","bytes":4096,"memory":"/dev/zero"}\n{"ok":true}\n'],
  ['a body of 1 TiB', '{"ok":true,"body":1099511627776}\n'],
  ['a fault nowhere', '{"fault":[-1]}\n'],
  ['nothing', ''],
])('one that is no guest and says %s is not believed', async (_, answer) => {
  const path = join(directory(), 'socket');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => (answer === '' ? socket.destroy() : socket.write(answer)));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => {
    server.close();
  });
  const asked = (async () => {
    const source = (await openSource(parseImage(`vm=guest:${path}`))) as TrackedGuest;
    await source.stop();
  })();
  await expect(asked).rejects.toMatchObject({ code: 'IMAGE', message: expect.stringContaining(path) });
});
