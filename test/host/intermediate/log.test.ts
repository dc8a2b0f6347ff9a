import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BankPool } from '#abdm/host/intermediate/banks.js';
import { FrameLog, type Place, roomFor } from '#abdm/host/intermediate/log.js';

const MiB = 2 ** 20;

it('never hands out the same byte twice, and gives all room back, whatever the order of commits and rollbacks', () => {
  const step = fc.record({
    bytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 270_336 })),
    end: fc.nat(9),
    which: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const pool = new BankPool(20 * MiB, 448 * 1024);
      const log = new FrameLog(pool);
      const open: Place[] = [];
      const kept: Place[] = [];
      for (const { bytes, end, which } of steps) {
        const place = log.reserve(bytes);
        if (place === null) expect(pool.freeBytes).toBeLessThan(roomFor(bytes));
        else open.push(place);
        if (end < 4 || open.length === 0) continue;
        const [done] = open.splice(which % open.length, 1);
        if (end < 7) log.rollback(done!);
        else {
          log.commit(done!);
          kept.push(done!);
        }
      }
      const all = [...open, ...kept].sort((a, b) => a.bank - b.bank || a.ptr - b.ptr);
      for (const [i, place] of all.entries()) {
        const next = all[i + 1];
        expect(place.ptr % 64).toBe(0);
        expect(place.ptr).toBeGreaterThanOrEqual(448 * 1024);
        expect(place.ptr + place.bytes).toBeLessThanOrEqual(pool.bankBytes);
        if (next && next.bank === place.bank) expect(next.ptr).toBeGreaterThanOrEqual(place.ptr + place.bytes);
      }
      expect(pool.usedBytes).toBe(all.reduce((sum, { bytes }) => sum + roomFor(bytes), 0));
      log.drop();
      expect(log.reserve(1)).toBe(null);
      for (const place of open) {
        expect(pool.usedBytes).toBeGreaterThan(0);
        log.rollback(place);
      }
      expect(pool.usedBytes).toBe(0);
    }),
    { numRuns: 100 },
  );
});

it('uses the room of rolled back frames again: a flood of cut frames does not make it grow', () => {
  const pool = new BankPool(20 * MiB);
  const log = new FrameLog(pool);
  let highest = 0;
  for (let i = 0; i < 2000; i++) {
    const cut = log.reserve(270_336)!;
    const small = log.reserve(100)!;
    highest = Math.max(highest, small.ptr + small.bank * pool.bankBytes, cut.ptr + cut.bank * pool.bankBytes);
    log.commit(small);
    log.rollback(cut);
  }
  expect(highest).toBeLessThan(4 * MiB);
  expect(log.holes).toBeLessThan(5);
});

it('takes a frame that was rolled back at the tail as if it had never been', () => {
  const pool = new BankPool(20 * MiB);
  const log = new FrameLog(pool);
  const [a, b, c] = [log.reserve(1000)!, log.reserve(1000)!, log.reserve(1000)!];
  log.rollback(b);
  expect(log.holes).toBe(1);
  log.rollback(c);
  log.rollback(a);
  expect(log.holes).toBe(0);
  expect(log.reserve(200_000)!.ptr).toBe(a.ptr);
});

it('goes on in another bank when one is full, and leaves no part of it unused', () => {
  const pool = new BankPool(40 * MiB);
  const log = new FrameLog(pool);
  let frames = 0;
  let last: Place | null = null;
  for (let place = log.reserve(270_336); place !== null; place = log.reserve(270_336)) {
    log.commit(place);
    last = place;
    frames++;
  }
  expect(last!.bank).toBeGreaterThan(1);
  expect(frames).toBe(Math.floor((40 * MiB) / roomFor(270_336)));
  const place = log.reserve(1000)!;
  expect(place.bank).toBe(0);
});
