// What a source decides by: whose turn it is, when rounds end, how fast it goes, and what it says of a VM that stands still.
import { afterEach, describe, expect, test, vi } from 'vitest';
import { discardBodies, stateBodies } from '#abdm/host/source/bodies.js';
import { Pace } from '#abdm/host/source/pace.js';
import { Rounds } from '#abdm/host/source/rounds.js';
import { Schedule } from '#abdm/host/source/schedule.js';
import { MessageType, maxBodyBytes } from '#abdm/host/wire/messages.js';

const contender = (name: string, weight = 1) => ({ name, weight, isReady: true, isPressing: false, needsQuiet: false });

describe('turns', () => {
  const run = (schedule: Schedule<ReturnType<typeof contender>>, turns: number, bytes = 100) => {
    const sent: Record<string, number> = {};
    for (let i = 0; i < turns; i++) {
      const one = schedule.next()!;
      sent[one.name] = (sent[one.name] ?? 0) + 1;
      schedule.sent(one, bytes);
    }
    return sent;
  };

  test('are shared by weight, in bytes', () => {
    const [a, b] = [contender('a', 3), contender('b')];
    expect(run(new Schedule([a, b]), 400)).toEqual({ a: 300, b: 100 });
    // Whose frames are twice as large has half as many.
    const schedule = new Schedule([contender('c'), contender('d')]);
    const sent: Record<string, number> = { c: 0, d: 0 };
    for (let i = 0; i < 300; i++) {
      const one = schedule.next()!;
      sent[one.name]!++;
      schedule.sent(one, one.name === 'c' ? 200 : 100);
    }
    expect(sent).toEqual({ c: 100, d: 200 });
  });

  test('go to nobody who has nothing to send, and he does not catch up', () => {
    const [a, b] = [contender('a'), contender('b')];
    const schedule = new Schedule([a, b]);
    b.isReady = false;
    expect(run(schedule, 100)).toEqual({ a: 100 });
    b.isReady = true;
    const { a: more, b: his } = run(schedule, 100);
    expect(Math.abs(more! - his!)).toBeLessThanOrEqual(2);
    a.isReady = b.isReady = false;
    expect(schedule.next()).toBeNull();
  });

  test('go first to whose guest stands still until then', () => {
    const [a, b] = [contender('a'), contender('b')];
    const schedule = new Schedule([a, b]);
    run(schedule, 10);
    b.isPressing = true;
    expect(run(schedule, 50)).toEqual({ b: 50 });
    b.isPressing = false;
    expect(run(schedule, 40)).toEqual({ a: 40 });
  });

  test('go to nobody where what is on its way has to arrive first', () => {
    const [a, b] = [contender('a'), contender('b')];
    const schedule = new Schedule([a, b]);
    b.needsQuiet = true;
    expect(schedule.next()).toBeNull();
    a.isPressing = true;
    expect(schedule.next()).toBe(a);
  });
});

describe('rounds', () => {
  const limits = { rounds: 5, maxDowntimeMs: 300 };

  test('end when the rest fits', () => {
    const rounds = new Rounds(1000, limits);
    expect(rounds.over(500, 1000)).toBe('again');
    expect(rounds.over(250, 300.5)).toBe('again');
    expect(rounds.over(125, 300)).toBe('fits');
    expect(rounds.done).toBe(3);
  });

  test('end at their limit', () => {
    const rounds = new Rounds(1000, limits);
    for (let i = 0; i < 4; i++) expect(rounds.over(500, 1e4)).toBe('again');
    expect(rounds.over(500, 1e4)).toBe('limit');
    expect(new Rounds(1000, { ...limits, rounds: 1 }).over(1, 300)).toBe('fits');
  });

  test('of a guest that wrote to nothing are over, whatever the link is like', () => {
    expect(new Rounds(1000, limits).over(0, Number.POSITIVE_INFINITY)).toBe('fits');
    expect(new Rounds(1000, limits).over(1, Number.POSITIVE_INFINITY)).toBe('again');
  });

  test.each([
    [[1000, 900, 810, 729], true],
    [[1000, 100, 99, 89], true],
    // As much as two rounds before, or a little less.
    [[1000, 100, 99, 90], false],
    [[1000, 100, 100, 100], false],
    [[1000, 950, 901], false],
    [[1000, 950], true],
    [[1000, 100, 50, 200], false],
  ])('of %j dirty pages converge: %s', ([first, ...dirty], converges) => {
    const rounds = new Rounds(first!, { ...limits, rounds: 100 });
    for (const pages of dirty) rounds.over(pages!, 1e6);
    expect(rounds.converges).toBe(converges);
  });
});

describe('the pace', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  const clock = () => {
    let now = 1000;
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    return (ms: number) => {
      now += ms;
    };
  };

  test('is what is acknowledged while there is something to send', () => {
    const pass = clock();
    const pace = new Pace();
    expect([pace.msFor(0), pace.msFor(1)]).toEqual([0, Number.POSITIVE_INFINITY]);
    pace.sent();
    for (let i = 0; i < 50; i++) {
      pass(10);
      pace.acknowledged(1000, false);
    }
    expect(pace.msFor(1000)).toBe(10);
    // For a long time there is nothing; then a little, which says nothing.
    pace.acknowledged(1000, true);
    pass(10_000);
    pace.sent();
    pass(50);
    pace.acknowledged(10, true);
    expect(pace.msFor(1000)).toBe(10);
  });

  test('is that of the only frames there are, if there are few', () => {
    const pass = clock();
    const pace = new Pace();
    pace.sent();
    pass(5);
    pace.acknowledged(5000, true);
    expect(pace.msFor(1000)).toBe(1);
  });
});

describe('what is said of a VM that stands still', () => {
  test('DISCARD names its pages, a quarter of a million at a time, and only where there are any', () => {
    const pages = 600_000;
    const bitmap = new Uint8Array(Math.ceil(pages / 8));
    for (const pfn of [0, 9, 599_999]) bitmap[pfn >> 3]! |= 1 << (pfn & 7);
    const found: number[][] = [];
    const bodies = [...discardBodies(7, pages, bitmap, 2 ** 33 + 5)];
    for (const body of bodies) {
      const view = new DataView(body.buffer);
      expect([view.getUint16(0, true), view.getUint16(2, true)]).toEqual([7, 0]);
      const [count, first] = [view.getUint32(4, true), Number(view.getBigUint64(8, true))];
      expect(view.getBigUint64(16, true)).toBe(2n ** 33n + 5n);
      expect(body.byteLength).toBe(24 + Math.ceil(count / 8));
      expect(body.byteLength).toBeLessThanOrEqual(maxBodyBytes(MessageType.DISCARD));
      for (let i = 0; i < count; i++) if (body[24 + (i >> 3)]! & (1 << (i & 7))) found.push([first, first + i]);
    }
    expect(found).toEqual([
      [0, 0],
      [0, 9],
      [524_288, 599_999],
    ]);
    expect([...discardBodies(0, 100, new Uint8Array(13), 1)]).toEqual([]);
  });

  test.each([1, 256_000, 256_001, 1_000_000])('STATE brings %i bytes in parts', (bytes) => {
    const state = Uint8Array.from({ length: bytes }, (_, i) => (i * i) >> 3);
    const pieces: Uint8Array[] = [];
    for (const [header, piece] of stateBodies(3, state)) {
      const view = new DataView(header.buffer);
      expect([0, 2, 4, 6].map((at) => view.getUint16(at, true))).toEqual([
        3,
        pieces.length,
        Math.ceil(bytes / 256_000),
        0,
      ]);
      expect(header.byteLength + piece.byteLength).toBeLessThanOrEqual(maxBodyBytes(MessageType.STATE));
      pieces.push(piece);
    }
    expect(Buffer.compare(Buffer.concat(pieces), state)).toBe(0);
  });
});
