// How much may be on its way to a destination in front of what its guest waits for.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Lead, Scatter } from '#abdm/host/mam/scatter.js';
import { Ahead } from '#abdm/host/source/ahead.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const quiet: Lead[] = [{ ms: 30, frames: 2 }];
const faults: Lead[] = [
  { ms: 8, frames: 2 },
  { ms: 8, frames: 2 },
];
const withTime: Lead[] = [
  { ms: 8, frames: 2 },
  { ms: 0, frames: 1 },
];

test('as usual until a guest may run there, less from then on, and least while it asks for pages', () => {
  const said: Lead[][] = [];
  const ahead = new Ahead({ setAhead: (...leads: Lead[]) => said.push(leads) } as unknown as Scatter);
  ahead.fault(true);
  expect(said).toEqual([]);
  ahead.bound();
  ahead.bound();
  expect([said, ahead.isAsked]).toEqual([[quiet], false]);
  for (let i = 0; i < 10; i++) {
    ahead.fault(false);
    vi.advanceTimersByTime(400);
  }
  expect([said, ahead.isAsked]).toEqual([[quiet, faults], true]);
  ahead.fault(true);
  ahead.fault(true);
  expect(said.slice(2)).toEqual([withTime]);
  vi.advanceTimersByTime(600);
  expect([said.slice(3), ahead.isAsked]).toEqual([[quiet], false]);
  ahead.fault(true);
  expect(said.slice(4)).toEqual([withTime]);
});
