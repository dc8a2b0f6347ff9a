// How much may be on its way to a destination in front of what its guest waits for.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Scatter } from '#abdm/host/mam/scatter.js';
import { Ahead } from '#abdm/host/source/ahead.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('as usual until a guest may run there, less from then on, and least while it asks for pages', () => {
  const said: number[] = [];
  const ahead = new Ahead({ setAhead: (ms: number) => said.push(ms) } as unknown as Scatter);
  ahead.fault();
  expect(said).toEqual([]);
  ahead.bound();
  ahead.bound();
  expect([said, ahead.isAsked]).toEqual([[30], false]);
  for (let i = 0; i < 10; i++) {
    ahead.fault();
    vi.advanceTimersByTime(400);
  }
  expect([said, ahead.isAsked]).toEqual([[30, 4], true]);
  vi.advanceTimersByTime(200);
  expect([said, ahead.isAsked]).toEqual([[30, 4, 30], false]);
  ahead.fault();
  expect(said).toEqual([30, 4, 30, 4]);
});
