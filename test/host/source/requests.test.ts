// What a source answers to whoever waits for pages at the destination.
import { expect, test } from 'vitest';
import type { Kept } from '#abdm/host/mam/ledger.js';
import type { Departure } from '#abdm/host/source/departure.js';
import { Outgoing } from '#abdm/host/source/outgoing.js';
import { type Answer, Requests } from '#abdm/host/source/requests.js';

/** A VM of so many pages, none of which was sent. */
function departing(pages: number) {
  const frames = new Map<number, Kept>();
  const scatter = { ledger: frames, mam: { destination: null } };
  const options = { vm: 0, image: { pages, bytes: pages * 4096 }, isStill: true, scatter: () => scatter, onTodo() {} };
  const outgoing = new Outgoing(options as unknown as ConstructorParameters<typeof Outgoing>[0]);
  outgoing.sendAll();
  return { outgoing, departure: { vm: 0, outgoing, error: null } as unknown as Departure };
}

const pfnsOf = (answer: Answer | null) =>
  answer && Array.from({ length: answer.pages.pages }, (_, i) => answer.pages.base + (answer.pages.deltas?.[i] ?? i));
const run = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

test('with all of the extent, once, and what lies behind it is sent next', () => {
  const { outgoing, departure } = departing(1000);
  const requests = new Requests();
  requests.ask(departure, [100, 103]);
  expect(requests.isEmpty).toBe(false);
  expect(pfnsOf(requests.next(false))).toEqual(run(96, 112));
  expect([requests.isEmpty, requests.next(false), requests.following()]).toEqual([true, null, null]);
  expect(outgoing.todo.take(4)).toEqual({ base: 112, pages: 4, deltas: undefined });
});

test('alone, and the rest of the extents follows, the last one first', () => {
  const { outgoing, departure } = departing(1000);
  const requests = new Requests();
  requests.ask(departure, [100, 103, 995]);
  expect(pfnsOf(requests.next(true))).toEqual([100, 103]);
  expect(pfnsOf(requests.next(true))).toEqual([995]);
  expect([requests.isEmpty, requests.next(true)]).toEqual([true, null]);
  expect(outgoing.unsentPages).toBe(997);
  // At the end of the image there are fewer.
  expect(pfnsOf(requests.following())).toEqual([...run(992, 995), ...run(996, 1000)]);
  expect(pfnsOf(requests.following())).toEqual([...run(96, 100), 101, 102, ...run(104, 112)]);
  expect(requests.following()).toBeNull();
});

test('who waits for another page of an extent that has not followed gets that alone too', () => {
  const { departure } = departing(64);
  const requests = new Requests();
  requests.ask(departure, [1]);
  expect(pfnsOf(requests.next(true))).toEqual([1]);
  requests.ask(departure, [3]);
  expect(pfnsOf(requests.next(true))).toEqual([3]);
  expect(pfnsOf(requests.following())).toEqual([0, 2, ...run(4, 16)]);
  expect(requests.following()).toBeNull();
});

test('of many that would follow the oldest do not', () => {
  const { outgoing, departure } = departing(1000);
  const requests = new Requests();
  for (let i = 0; i < 20; i++) {
    requests.ask(departure, [16 * i]);
    requests.next(true);
  }
  for (let i = 19; i >= 4; i--) expect(pfnsOf(requests.following())).toEqual(run(16 * i + 1, 16 * i + 16));
  expect(requests.following()).toBeNull();
  expect(outgoing.todo.has(1)).toBe(true);
});

test('what was sent but has not come is sent once more: alone, or with its extent', () => {
  for (const alone of [true, false]) {
    const { outgoing, departure } = departing(64);
    const requests = new Requests();
    outgoing.todo.take(20);
    requests.ask(departure, [5]);
    expect(pfnsOf(requests.next(alone))).toEqual(alone ? [5] : run(0, 16));
    expect(requests.following()).toBeNull();
    expect(outgoing.unsentPages).toBe(44);
  }
});

test('nothing follows while nothing of its VM is to be sent', () => {
  const { outgoing, departure } = departing(64);
  const requests = new Requests();
  requests.ask(departure, [5]);
  expect(pfnsOf(requests.next(true))).toEqual([5]);
  outgoing.hold();
  expect(requests.following()).toBeNull();
  expect(outgoing.unsentPages).toBe(63);
});
