// In which order a source makes frames and gives them away.
import { expect, onTestFinished, test } from 'vitest';
import { FRAME_PAGES, PAGE_BYTES } from '#abdm/bindings/abi.js';
import { AbdmError } from '#abdm/bindings/errors.js';
import { Framer } from '#abdm/host/mam/framer.js';
import type { Frame, Scatter } from '#abdm/host/mam/scatter.js';
import type { Departure } from '#abdm/host/source/departure.js';
import { Division, type DivisionOptions } from '#abdm/host/source/division.js';
import { Todo } from '#abdm/host/source/todo.js';
import { RateLimit } from '#abdm/host/wire/rate.js';

/** Divides so many frames of pages that are all different; what it did, an `m` for each frame that is made and a `g` for each that is given away. */
async function divide(
  frames: number,
  how: { isKnown?: boolean; isAsked?: boolean; isLarge?: boolean; unreadable?: number; wanted?: number[] } = {},
) {
  const { isKnown = true, isAsked = false, isLarge = false, unreadable = Number.POSITIVE_INFINITY, wanted = [] } = how;
  const todo = new Todo(frames * FRAME_PAGES);
  todo.addAll();
  const did: string[] = [];
  const image = {
    read(pfn: number, pages: number, memory: Uint8Array) {
      if (pfn >= unreadable) throw new AbdmError('IMAGE', 'it is gone');
      did.push('m');
      const words = new Uint32Array(memory.buffer, memory.byteOffset, (pages * PAGE_BYTES) / 4);
      for (let i = 0; i < pages; i++) words.fill(pfn + i + 1, i * 1024, (i + 1) * 1024);
    },
  };
  const departure = {
    ...{ vm: 0, weight: 1, image, isPressing: false, needsQuiet: false },
    get isReady() {
      return todo.count > 0;
    },
    outgoing: {
      ...{ todo, awaited: new Todo(todo.pages), isAlone: false, newest: () => undefined },
      readable: (pfns: readonly number[]) => ({ base: Math.min(...pfns), pages: 16, deltas: undefined }),
      sent: (made: readonly Frame[]) => did.push(...made.map(() => 's')),
    },
    summary: { zeroPages: 0, duplicatePages: 0, compressedPages: 0, normalPages: 0 },
    fail() {
      did.push('f');
      todo.clear();
    },
  };
  const key = new Uint8Array(32);
  const compress = isLarge ? 'none' : 'lz4';
  const framer = await Framer.create({ key, compress, sealed: false, withMeta: false, onFree: () => {} });
  const division = new Division({
    departures: [departure as unknown as Departure],
    framer,
    scatter: {
      put: () => did.push('g'),
      urgent: () => did.push('u'),
      canAccompany: () => true,
      isSlow: false,
    } as unknown as Scatter,
    limit: new RateLimit(),
    pace: { isKnown, sent: () => {} } as DivisionOptions['pace'],
    ahead: { isAsked } as DivisionOptions['ahead'],
    fetchable: false,
    signal: new AbortController().signal,
  });
  onTestFinished(() => division.end());
  division.requests.ask(departure as unknown as Departure, wanted);
  const over = division.run();
  while (todo.count > 0) await new Promise((resolve) => setImmediate(resolve));
  division.end();
  await over;
  return did.join('').replaceAll(/(?<=[gu])s/g, '');
}

test('several are made, and then given away', async () => {
  expect(await divide(20)).toBe('mmmmmmmmggggggggmmmmmmmmggggggggmmmmgggg');
});

test('one at a time where they are large, while nobody is known to take more, or while somebody waits for pages', async () => {
  expect(await divide(5, { isLarge: true })).toBe('mg'.repeat(5));
  expect(await divide(5, { isKnown: false })).toBe('mg'.repeat(5));
  expect(await divide(5, { isAsked: true })).toBe('mg'.repeat(5));
});

test('a VM is over when its pages cannot be read, and what was made of it before has been given away', async () => {
  expect(await divide(20, { unreadable: 11 * FRAME_PAGES })).toBe('mmmmmmmmggggggggmmmgggf');
});

test('what somebody waits for is given away before anything else is made', async () => {
  expect(await divide(3, { wanted: [70, 130] })).toBe('mumummmggg');
});
