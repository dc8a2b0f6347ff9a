// Frames spill to nodes where that makes the source free sooner, and wait for the destination where it does not.
import { describe, expect, test } from 'vitest';
import { Spill } from '#abdm/host/mam/spill.js';

const FRAME = 64 * 1024;

interface Links {
  /** Bytes a millisecond: of the source's link; of the destination's, when. */
  line: number;
  /** So long the source is only half as fast, for it has just begun. */
  beginsMs?: number;
  destination: (ms: number) => number;
  /** Share of the source's link that straight frames get while nodes get some too; while those get little. */
  share?: number;
  littleShare?: number;
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
  const {
    line: fullLine,
    beginsMs = 0,
    destination,
    share = 1 / 4,
    littleShare = 0.8,
    ahead = 0,
    waits = () => true,
    keeps = false,
    left,
  } = links;
  let now = 5_000;
  const spill = new Spill(() => now);
  const sent = { straight: 0, nodes: 0 };
  const owed = { straight: 0, nodes: 0 };
  const trace: { ms: number; nodesGet: Spill['nodesGet']; fills: boolean; isSlow: boolean }[] = [];
  /** Milliseconds for which nodes still get what was on its way. */
  let draining = 0;
  for (let at = 0; at < ms; at++, now++) {
    const most = destination(at);
    const line = at < beginsMs ? fullLine / 2 : fullLine;
    const { nodesGet } = spill;
    draining = nodesGet === 'all' ? ahead : Math.max(0, draining - 1);
    const part = nodesGet === 'all' || draining > 0 ? share : nodesGet === 'little' ? littleShare : 1;
    const straight = Math.min(most, line * part);
    const rates = { straight, nodes: part < 1 ? line - straight : 0 };
    if (!waits(at) && !keeps) rates.straight = rates.nodes = 0;
    for (const way of ['straight', 'nodes'] as const) {
      owed[way] += rates[way];
      for (; owed[way] >= FRAME; owed[way] -= FRAME) {
        sent[way] += FRAME;
        spill.stored(FRAME, way === 'straight');
      }
    }
    spill.look(waits(at), draining === 0, left?.(at));
    trace.push({ ms: at, nodesGet: spill.nodesGet, fills: spill.fills, isSlow: spill.isSlow });
  }
  return { sent, share: (sent.straight + sent.nodes) / (fullLine * ms), trace };
}

const line = 120_000;

describe('a destination that is slower than the source: frames spill, and looking again costs little', () => {
  test.each([1.5, 2, 3, 4, 6.5, 50])('%s times', (times) => {
    const { share, trace } = send({ line, destination: () => line / times }, 10_000);
    expect(share).toBeGreaterThan(0.96);
    expect(trace.filter(({ ms, nodesGet }) => ms > 1_000 && nodesGet !== 'all').length).toBeLessThan(600);
    // Known but for the first moments, and for those of trials in which it gets all.
    expect(trace.filter(({ ms, isSlow }) => ms < 100 && isSlow)).toEqual([]);
    expect(trace.filter(({ ms, isSlow }) => ms > 1_000 && !isSlow).length).toBeLessThan(600);
  });

  test.each([4, 6.5, 50])('and where it is %s times, trials cost nothing: it never gets all of the link', (times) => {
    const { share, trace } = send({ line, destination: () => line / times }, 10_000);
    expect(share).toBeGreaterThan(0.99);
    expect(trace.filter(({ nodesGet }) => nodesGet === 'nothing')).toEqual([]);
  });

  test('and what it was seen to take is what it can take, though hosts were slow when it was tried', () => {
    const rate = (ms: number) => line / (ms < 600 ? 12 : ms < 1_200 ? 6 : 9);
    const { trace } = send({ line, destination: rate }, 1_600);
    expect([500, 900, 1_500].map((ms) => trace[ms]!.fills)).toEqual([true, true, false]);
  });

  test('and it is told that its link is full while what goes straight fills it', () => {
    const { trace } = send({ line, destination: () => line / 6.5 }, 10_000);
    for (const { ms, fills } of trace) expect(fills, `${ms}`).toBe(ms < 100 ? false : ms < 240 ? fills : true);
  });

  test('and it is not tried again when little is left to be sent, but is for the first time', () => {
    const trials = (totalMs: number) => {
      const { trace } = send({ line, destination: () => line / 6.5, left: (ms) => (totalMs - ms) * line }, totalMs);
      return trace.filter(({ nodesGet }, i) => nodesGet !== 'all' && trace[i - 1]?.nodesGet === 'all').length;
    };
    expect([1_000, 4_000, 6_000].map(trials)).toEqual([1, 2, 3]);
  });

  test('but not where nothing waits for it: then it has room for what nodes have', () => {
    const waits = (ms: number) => ms < 5_000 || ms > 6_000;
    const { trace } = send({ line, destination: () => line / 6.5, waits, keeps: true }, 7_000);
    const full = (from: number, to: number) => trace.slice(from, to).filter(({ fills }) => fills).length;
    expect([full(4_000, 5_000), full(5_050, 6_000), full(6_200, 7_000)]).toEqual([1_000, 0, 800]);
  });

  test('and when it is tried: what it asks of nodes would make it look slow', () => {
    const { trace } = send({ line, destination: () => line / 3 }, 10_000);
    const tried = trace.filter(({ ms, nodesGet }) => ms > 200 && nodesGet === 'little');
    expect(tried.length).toBeGreaterThan(50);
    expect(tried.every(({ fills }) => fills)).toBe(true);
  });

  // A third of it with a quarter of the source's: what it does not ask of nodes meanwhile is lost for it.
  test.each([1.5, 3])(
    'but not where it, %s times slower, could have more than its part of the source’s link',
    (times) => {
      const { trace } = send({ line, destination: () => line / times }, 10_000);
      // But for what a trial leaves of its last moments.
      const full = trace.filter(({ ms, nodesGet, fills }) => ms > 1_000 && nodesGet === 'all' && fills);
      expect(full.length).toBeLessThan(300);
    },
  );
});

test('a destination of half, which is as fast as a source that has just begun, is found out as soon as that is faster', () => {
  const { trace } = send({ line, beginsMs: 250, destination: () => line / 2 }, 2_000);
  expect(trace.filter(({ ms, nodesGet }) => ms < 700 && nodesGet === 'nothing').length).toBeLessThan(150);
});

describe('a destination that is as fast: nodes get little', () => {
  test.each([1, 2])('%s times as fast', (times) => {
    const { sent, trace } = send({ line, destination: () => line * times }, 10_000);
    expect(sent.nodes / (sent.nodes + sent.straight)).toBeLessThan(0.028);
    // But for trials.
    const straight = trace.filter(({ ms, nodesGet, fills }) => ms > 5_000 && nodesGet === 'nothing' && fills);
    expect(straight.length).toBeGreaterThan(4_700);
    expect(trace.some(({ isSlow }) => isSlow)).toBe(false);
  });

  test('as long as it has all that there is, however much that is just then', () => {
    const { trace } = send(
      {
        line,
        destination: (ms) => (ms > 110 ? line / 1.8 : line),
        waits: (ms) => ms < 110 || (ms + 40) % 80 < 10,
        keeps: true,
      },
      400,
    );
    expect(trace.at(-1)!.nodesGet).toBe('nothing');
  });

  test.each([50, 150])('though %i ms of frames are on their way to nodes when it is tried', (ahead) => {
    const { sent } = send({ line, destination: () => line, ahead }, 10_000);
    expect(sent.nodes / (sent.nodes + sent.straight)).toBeLessThan(0.1);
  });

  test('until it is not any more; and again when it is', () => {
    const slow = (ms: number) => ms > 3_000 && ms < 5_000;
    const { trace } = send({ line, destination: (ms) => (slow(ms) ? line / 5 : line) }, 20_000);
    expect(trace[2_990]!.nodesGet).toBe('nothing');
    expect(trace.filter(({ ms, nodesGet }) => ms > 3_400 && ms < 4_900 && nodesGet === 'nothing').length).toBeLessThan(
      300,
    );
    expect(trace.at(-1)!.nodesGet).toBe('nothing');
  });

  test('one that stands still has everything spill', () => {
    const { trace } = send({ line, destination: (ms) => (ms > 3_000 ? 0 : line) }, 6_000);
    expect(trace.filter(({ ms, nodesGet }) => ms > 3_300 && nodesGet !== 'all').length).toBeLessThan(700);
  });
});

test('a trial in which there is nothing more to be sent shows nothing', () => {
  const { trace } = send({ line, destination: () => line / 5, waits: (ms) => ms < 140 }, 1_000);
  expect(trace.some(({ nodesGet }) => nodesGet === 'little')).toBe(true);
  expect(trace.at(-1)!.nodesGet).toBe('all');
});

test('without anything that waits, and without a destination, nothing is tried', () => {
  const { trace } = send({ line, destination: () => line, waits: () => false }, 5_000);
  expect(trace.every(({ nodesGet }) => nodesGet === 'all')).toBe(true);
  let now = 0;
  const spill = new Spill(() => now);
  for (; now < 5_000; now++) {
    spill.stored(FRAME, false);
    spill.look(true, true);
    expect(spill.nodesGet).toBe('all');
    expect(spill.fills).toBe(false);
  }
});
