// How fast something is, from how far it was: for people and for programs.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Meter, progressLine } from '#abdm/host/cli/progress.js';
import type { Status } from '#abdm/host/summary.js';

const STATUS: Status = {
  phase: 'gathering',
  doneBytes: 0,
  totalBytes: 100e6,
  wireBytes: 0,
  mergedBytes: 0,
};

test('a meter says how many pages guests begin to wait for in a second, where there are guests', async () => {
  expect(new Meter(() => STATUS).read().faultsPerS).toBeNull();
  const guests = { running: 1, postcopyRequests: 10, latelyP99Ms: 7.25 };
  const meter = new Meter(() => ({ ...STATUS, guests }));
  expect(meter.read().faultsPerS).toBe(0);
  const began = performance.now();
  await sleep(200);
  guests.postcopyRequests = 110;
  const { faultsPerS } = meter.read();
  const perS = 100_000 / (performance.now() - began);
  expect(faultsPerS).toBeGreaterThan(0.7 * perS);
  expect(faultsPerS).toBeLessThan(1.5 * perS);
});

test('people see which guests run, and how long they wait', () => {
  const speed = { bytesPerS: 0, etaMs: null, mergeEtaMs: null, faultsPerS: 35 };
  const line = (running: number, latelyP99Ms: number | null) =>
    progressLine('merge', { ...STATUS, ...speed, guests: { running, postcopyRequests: 9, latelyP99Ms } });
  expect(line(0, null)).toBe('merge: gathering 0 %, 0 B of 100.0 MB');
  expect(line(1, 7.25)).toBe('merge: gathering 0 %, 0 B of 100.0 MB; the guest runs here, 35 faults/s, p99 7.3 ms');
  expect(line(2, null)).toBe('merge: gathering 0 %, 0 B of 100.0 MB; 2 guests run here, 35 faults/s');
});
