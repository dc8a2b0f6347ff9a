// Execution states in parts, as a source sends them, and as nobody should.
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { StateCollector, stateVm } from '#abdm/host/destination/execution-state.js';
import { stateBodies, stateBody } from './fake-guest.js';

const bytes = (count: number) => new Uint8Array(count);

describe('an execution state', () => {
  test.each([1, 255_999, 256_000, 256_001, 700_000])('of %i bytes comes out as it went in', (count) => {
    const state = new Uint8Array(randomBytes(count));
    const bodies = stateBodies(7, state);
    const collector = new StateCollector();
    for (let times = 0; times < 2; times++) {
      const taken = bodies.map((body) => collector.take(body));
      expect(taken.slice(0, -1).every((one) => one === null)).toBe(true);
      expect(Buffer.compare(taken.at(-1)!, state)).toBe(0);
    }
    expect(bodies.map(stateVm)).toEqual(bodies.map(() => 7));
  });

  test('is that of the bodies, not of the memory they came in', () => {
    const collector = new StateCollector();
    const [first, second] = stateBodies(0, new Uint8Array(256_001).fill(5));
    collector.take(first!);
    first!.fill(9);
    const state = collector.take(second!)!;
    second!.fill(9);
    expect(state.every((byte) => byte === 5)).toBe(true);
  });

  test('that was cut off is begun anew', () => {
    const collector = new StateCollector();
    const [first] = stateBodies(0, bytes(600_000).fill(1));
    collector.take(first!);
    const state = new Uint8Array(randomBytes(300_000));
    const [one, two] = stateBodies(0, state);
    expect(collector.take(one!)).toBeNull();
    expect(Buffer.compare(collector.take(two!)!, state)).toBe(0);
  });

  test.each<[string, Uint8Array[], RegExp]>([
    ['no part', [stateBody(0, 0, 0, bytes(1))], /0 parts/],
    ['too many parts', [stateBody(0, 0, 264, bytes(256_000))], /264 parts/],
    ['another part first', [stateBody(0, 1, 2, bytes(1))], /part 1 of 2 is not the next/],
    [
      'a part left out',
      [stateBody(0, 0, 3, bytes(256_000)), stateBody(0, 2, 3, bytes(1))],
      /part 2 of 3 is not the next/,
    ],
    [
      'a part twice',
      [stateBody(0, 0, 3, bytes(256_000)), stateBody(0, 1, 3, bytes(256_000)), stateBody(0, 1, 3, bytes(256_000))],
      /part 1 of 3 is not the next/,
    ],
    [
      'a part behind the last',
      [stateBody(0, 0, 1, bytes(5)), stateBody(0, 1, 1, bytes(5))],
      /part 1 of 1 is not the next/,
    ],
    ['a short piece before the last', [stateBody(0, 0, 2, bytes(255_999))], /255999 bytes/],
    ['a long last piece', [stateBody(0, 0, 1, bytes(256_001))], /256001 bytes/],
    ['something in what is reserved', [stateBody(0, 0, 1, bytes(5), 1)], /reserved/],
  ])('with %s is refused', (_, bodies, message) => {
    const collector = new StateCollector();
    const take = () => bodies.map((body) => collector.take(body));
    expect(take).toThrow(expect.objectContaining({ code: 'PROTOCOL', message: expect.stringMatching(message) }));
  });

  test('is at most 64 MiB', () => {
    const collector = new StateCollector();
    const piece = bytes(256_000);
    for (let part = 0; part < 262; part++) expect(collector.take(stateBody(0, part, 263, piece))).toBeNull();
    expect(() => collector.take(stateBody(0, 262, 263, piece))).toThrow(/67328000 bytes/);
  });
});
