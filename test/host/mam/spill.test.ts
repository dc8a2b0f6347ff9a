// Frames spill to nodes where that makes the source free sooner, and wait for the destination where it does not.
import { describe, expect, test } from 'vitest';
import { Spill } from '#abdm/host/mam/spill.js';

const FRAME = 64 * 1024;

interface Links {
  /** Bytes a millisecond: of the source's link; of the destination's, when. */
  line: number;
  destination: (ms: number) => number;
  /** Share of the source's link that straight frames get while nodes get some too. */
  share?: number;
  /** So many milliseconds' worth of frames are on their way to nodes. */
  ahead?: number;
  /** There is something to be sent. */
  waits?: (ms: number) => boolean;
  /** Frames are sent even if none waits. */
  keeps?: boolean;
  /** What is still to be sent, in bytes. */
  left?: (ms: number) => number;
}

/** Sends for `ms`. What was sent of what could have been, to nodes, and whether the destination's link counted as full. */
function send(links: Links, ms: number) {
  const { line, destination, share = 1 / 4, ahead = 0, waits = () => true, keeps = false, left } = links;
  let now = 5_000;
  const spill = new Spill(() => now);
  const sent = { straight: 0, nodes: 0 };
  const owed = { straight: 0, nodes: 0 };
  const trace: { ms: number; allowed: boolean; fills: boolean; isSlow: boolean }[] = [];
  /** Milliseconds for which nodes still get what was on its way. */
  let draining = 0;
  for (let at = 0; at < ms; at++, now++) {
    const most = destination(at);
    draining = spill.allowed ? ahead : Math.max(0, draining - 1);
    const rates =
      spill.allowed || draining > 0
        ? { straight: Math.min(most, line * share), nodes: line - Math.min(most, line * share) }
        : { straight: Math.min(most, line), nodes: 0 };
    if (!waits(at) && !keeps) rates.straight = rates.nodes = 0;
    for (const way of ['straight', 'nodes'] as const) {
      owed[way] += rates[way];
      for (; owed[way] >= FRAME; owed[way] -= FRAME) {
        sent[way] += FRAME;
        spill.stored(FRAME, way === 'straight');
      }
    }
    spill.look(waits(at), draining === 0, left?.(at));
    trace.push({ ms: at, allowed: spill.allowed, fills: spill.fills, isSlow: spill.isSlow });
  }
  return { sent, share: (sent.straight + sent.nodes) / (line * ms), trace };
}

const line = 120_000;

describe('a destination that is slower than the source: frames spill, and looking again costs little', () => {
  test.each([1.5, 2, 3, 4, 6.5, 50])('%s times', (times) => {
    const { share, trace } = send({ line, destination: () => line / times }, 10_000);
    expect(share).toBeGreaterThan(0.96);
    expect(trace.filter(({ ms, allowed }) => ms > 1_000 && !allowed).length).toBeLessThan(600);
    // Known but for the first moments, and for those of trials in which it gets all.
    expect(trace.filter(({ ms, isSlow }) => ms < 100 && isSlow)).toEqual([]);
    expect(trace.filter(({ ms, isSlow }) => ms > 1_000 && !isSlow).length).toBeLessThan(600);
  });

  test('and it is told that its link is full while what goes straight fills it', () => {
    const { trace } = send({ line, destination: () => line / 6.5 }, 10_000);
    for (const { ms, fills } of trace) expect(fills, `${ms}`).toBe(ms < 100 ? false : ms < 240 ? fills : true);
  });

  test('and it is not tried again when little is left to be sent, but is for the first time', () => {
    const trials = (totalMs: number) => {
      const { trace } = send({ line, destination: () => line / 6.5, left: (ms) => (totalMs - ms) * line }, totalMs);
      return trace.filter(({ allowed }, i) => !allowed && trace[i - 1]?.allowed).map(({ ms }) => ms);
    };
    expect(trials(1_000)).toHaveLength(1);
    expect(trials(9_000)).toHaveLength(1);
    expect(trials(12_000)).toHaveLength(2);
  });

  // A third of it with a quarter of the source's: what it does not ask of nodes meanwhile is lost for it.
  test.each([1.5, 3])(
    'but not where it, %s times slower, could have more than its part of the source’s link',
    (times) => {
      const { trace } = send({ line, destination: () => line / times }, 10_000);
      // But for what a trial leaves of its last moments.
      expect(trace.filter(({ ms, allowed, fills }) => ms > 1_000 && allowed && fills).length).toBeLessThan(300);
    },
  );
});

describe('a destination that is as fast: nodes get little', () => {
  test.each([1, 2])('%s times as fast', (times) => {
    const { sent, trace } = send({ line, destination: () => line * times }, 10_000);
    expect(sent.nodes / (sent.nodes + sent.straight)).toBeLessThan(0.028);
    // But for trials.
    const straight = trace.filter(({ ms, allowed, fills }) => ms > 5_000 && !allowed && fills);
    expect(straight.length).toBeGreaterThan(4_700);
    expect(trace.some(({ isSlow }) => isSlow)).toBe(false);
  });

  test('as long as it has all that there is, however much that is just then', () => {
    const { trace } = send(
      {
        line,
        destination: (ms) => (ms > 110 ? line / 1.8 : line),
        waits: (ms) => ms < 110 || ms % 80 < 10,
        keeps: true,
      },
      400,
    );
    expect(trace.at(-1)!.allowed).toBe(false);
  });

  test.each([50, 150])('though %i ms of frames are on their way to nodes when it is tried', (ahead) => {
    const { sent } = send({ line, destination: () => line, ahead }, 10_000);
    expect(sent.nodes / (sent.nodes + sent.straight)).toBeLessThan(0.1);
  });

  test('until it is not any more; and again when it is', () => {
    const slow = (ms: number) => ms > 3_000 && ms < 5_000;
    const { trace } = send({ line, destination: (ms) => (slow(ms) ? line / 5 : line) }, 20_000);
    expect(trace[2_990]!.allowed).toBe(false);
    expect(trace.filter(({ ms, allowed }) => ms > 3_400 && ms < 4_900 && !allowed).length).toBeLessThan(300);
    expect(trace.at(-1)!.allowed).toBe(false);
  });

  test('one that stands still has everything spill', () => {
    const { trace } = send({ line, destination: (ms) => (ms > 3_000 ? 0 : line) }, 6_000);
    expect(trace.filter(({ ms, allowed }) => ms > 3_300 && !allowed).length).toBeLessThan(700);
  });
});

test('a trial in which there is nothing more to be sent shows nothing', () => {
  const { trace } = send({ line, destination: () => line / 5, waits: (ms) => ms < 140 }, 1_000);
  expect(trace.some(({ allowed }) => !allowed)).toBe(true);
  expect(trace.at(-1)!.allowed).toBe(true);
});

test('without anything that waits, and without a destination, nothing is tried', () => {
  expect(send({ line, destination: () => line, waits: () => false }, 5_000).trace.every(({ allowed }) => allowed)).toBe(
    true,
  );
  let now = 0;
  const spill = new Spill(() => now);
  for (; now < 5_000; now++) {
    spill.stored(FRAME, false);
    spill.look(true, true);
    expect(spill.allowed).toBe(true);
    expect(spill.fills).toBe(false);
  }
});
