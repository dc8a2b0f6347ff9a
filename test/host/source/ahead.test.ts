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

test.each([
  ['over nodes', false, 1],
  ['directly', true, 2],
])(
  'as usual until a guest may run there, less from then on, and least while it asks for pages: %s',
  (_, direct, frames) => {
    const said: Lead[] = [];
    const quiet = { ms: 30, frames: 2 };
    const inFaults = { ms: 4, frames };
    const ahead = new Ahead({ setAhead: (lead: Lead) => said.push(lead) } as unknown as Scatter, direct);
    ahead.fault();
    expect(said).toEqual([]);
    ahead.bound();
    ahead.bound();
    expect([said, ahead.isAsked]).toEqual([[quiet], false]);
    for (let i = 0; i < 10; i++) {
      ahead.fault();
      vi.advanceTimersByTime(400);
    }
    expect([said, ahead.isAsked]).toEqual([[quiet, inFaults], true]);
    vi.advanceTimersByTime(200);
    expect([said, ahead.isAsked]).toEqual([[quiet, inFaults, quiet], false]);
    ahead.fault();
    expect(said).toEqual([quiet, inFaults, quiet, inFaults]);
  },
);
