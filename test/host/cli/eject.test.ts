// What abdm eject is told of guests: what it refuses before anybody is disturbed, and what it says when it is ended while one stands still.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { guestText, progressLine } from '#abdm/host/cli/progress.js';
import { parseShortTime } from '#abdm/host/cli/sizes.js';
import { summaryLines } from '#abdm/host/cli/summary.js';
import type { Summary, VmSummary } from '#abdm/host/summary.js';
import { GuestProcess } from '../guest/guests.js';
import { Landing } from '../source/landing.js';
import { Abdm, cleanUp, directory } from './processes.js';

afterEach(cleanUp);

describe('is a matter of usage', () => {
  test.each<[string[], RegExp]>([
    [['--mode', 'warp'], /warp.*choices/],
    [['--mode', 'post-copy'], /a is no guest.*--mode post-copy is for guests/],
    [['--mode', 'pre-copy'], /a is no guest/],
    [['--max-downtime', '50ms'], /--max-downtime and --rounds are for guests/],
    [['--rounds', '3'], /are for guests/],
    [['--rounds', '0'], /whole number from 1 to 1000/],
    [['--max-downtime', '50'], /a time such as 300ms or 2s/],
    [['--priority', 'b=2'], /--priority names b, which does not leave/],
    [['--priority', 'a=0'], /above 0/],
    [['--priority', 'a=2,a=3'], /a stands there twice/],
    [['--priority', 'a'], /NAME=WEIGHT/],
  ])('%j', async (flags, text) => {
    const path = join(directory(), 'in');
    writeFileSync(path, 'x');
    const { code, events } = await new Abdm(['eject', `a=file:${path}`, '--to', '127.0.0.1:1', ...flags]).done;
    expect(code).toBe(1);
    expect(events.at(-1)).toMatchObject({ type: 'error', code: 'USAGE', message: expect.stringMatching(text) });
  });

  test.each<[string[], RegExp]>([
    [['--mode', 'post-copy', '--rounds', '3'], /rounds are for auto, pre-copy and hybrid, not for post-copy/],
    [['--mode', 'hybrid', '--max-downtime', '1s'], /downtime is for auto and pre-copy, not for hybrid/],
  ])('of a guest, %j', async (flags, text) => {
    const guest = await GuestProcess.running();
    const eject = new Abdm(['eject', `a=guest:${guest.socket}`, '--to', '127.0.0.1:1', '--direct', ...flags]);
    const { code, events } = await eject.done;
    expect(code).toBe(1);
    expect(events.at(-1)).toMatchObject({ type: 'error', message: expect.stringMatching(text) });
    expect(await guest.ask('status')).toMatchObject({ state: 'running' });
  });

  test('that a parked guest cannot run anywhere while its pages follow', async () => {
    const guest = await GuestProcess.running();
    const key = join(directory(), 'key');
    const how = ['--park', '--vm-key', key, '--intermediates', '127.0.0.1:1', '--mode', 'hybrid'];
    const { code, events } = await new Abdm(['eject', `a=guest:${guest.socket}`, ...how]).done;
    expect([code, events.at(-1).message]).toEqual([1, expect.stringMatching(/parked, there is none/)]);
  });
});

test('a destination that has no guest for one: nothing has happened, and it runs on', async () => {
  const guest = await GuestProcess.running();
  const out = join(directory(), 'out');
  const merge = new Abdm(['merge', `a=file:${out}`, '--listen', '127.0.0.1:0']);
  const eject = new Abdm(['eject', `a=guest:${guest.socket}`, '--to', await merge.address(), '--direct']);
  const [left, merged] = await Promise.all([eject.done, merge.done]);
  expect([left.code, merged.code]).toEqual([2, 1]);
  expect(left.summary.reason.message).toMatch(/is a guest/);
  expect(await guest.ask('status')).toMatchObject({ state: 'running' });
});

describe('ended while a guest stands still, and nobody has it', () => {
  const stuck = async () => {
    const guest = await GuestProcess.running();
    // Takes everything, and never says that it has loaded it.
    const landing = await Landing.start({ loadMs: 1e6 });
    const eject = new Abdm(['eject', `a=guest:${guest.socket}`, '--to', landing.address, '--direct', '--mode', 'stop']);
    await expect.poll(() => landing.heard.includes('STATE 0'), { timeout: 20_000 }).toBe(true);
    return { guest, eject };
  };

  test('it goes on', async () => {
    const { guest, eject } = await stuck();
    const { code, summary } = await eject.stop('SIGTERM');
    expect([code, summary.outcome, summary.reason.code]).toEqual([2, 'aborted', 'CANCELLED']);
    expect(await guest.ask('status')).toMatchObject({ state: 'running' });
    await guest.works(200);
  });

  test('in a hurry, people are told that it does not', async () => {
    const { guest, eject } = await stuck();
    guest.abdm.child.kill('SIGSTOP');
    eject.signal('SIGTERM');
    await eject.event(({ type, reason }) => type === 'progress' && reason?.code === 'CANCELLED');
    const { code, events } = await eject.stop('SIGTERM');
    guest.abdm.child.kill('SIGCONT');
    const resume = `abdm guest --socket ${guest.socket} --ask resume`;
    expect([code, events.at(-1)]).toMatchObject([2, { type: 'notice', text: expect.stringContaining(resume) }]);
  });
});

test('what is shown of guests on their way', () => {
  const vm = { name: 'a', mode: null, state: 'running', round: 3, dirtyPages: 812 } as const;
  expect(guestText(vm)).toEqual(['a: round 3, 812 pages to send']);
  expect(guestText({ ...vm, mode: 'hybrid', state: 'accepted' })).toEqual(['a: hybrid, stopped, 812 pages to send']);
  expect(guestText({ ...vm, mode: 'post-copy', state: 'left' })).toEqual([
    'a: post-copy, runs there, 812 pages to send',
  ]);
  expect(guestText({ ...vm, mode: 'stop', round: 0 })).toEqual([]);
  const progress = { phase: 'dividing', doneBytes: 0, totalBytes: 10, wireBytes: 0, mergedBytes: null } as const;
  const speed = { bytesPerS: 0, etaMs: null, mergeEtaMs: null, faultsPerS: null };
  expect(progressLine('eject', { ...progress, ...speed, vms: [vm] })).toBe(
    'eject: dividing 0 %, 0 B of 10 B; a: round 3, 812 pages to send',
  );
});

test('what is summed up of them', () => {
  const vm: VmSummary = {
    name: 'a',
    imageBytes: 4096,
    pages: 1,
    zeroPages: 0,
    duplicatePages: 0,
    compressedPages: 0,
    normalPages: 1,
    exitTimeMs: 1200,
    totalMigrationTimeMs: null,
    downtimeMs: 84.4,
    verified: null,
    mode: 'post-copy',
    dirtySyncCount: 0,
    postcopyRequests: 12,
    faults: { p50Ms: 1, p99Ms: 5.13, maxMs: 7 },
    outcome: 'completed',
    reason: null,
  };
  const summary: Omit<Summary, 'vms'> = {
    type: 'summary',
    role: 'source',
    outcome: 'aborted',
    reason: { code: 'IMAGE', message: 'b is gone' },
    mode: 'auto',
    direct: true,
    exitTimeMs: 1200,
    totalMigrationTimeMs: null,
    wireBytes: { source: 1, destination: null },
    nodes: [],
    cpuSeconds: 1,
    peakRssBytes: 1,
  };
  const still = { ...vm, name: 'b', mode: 'stop', downtimeMs: null, postcopyRequests: 0, outcome: 'aborted' } as const;
  const lines = summaryLines({ ...summary, vms: [vm, { ...still, reason: summary.reason }] });
  expect(lines.slice(1)).toEqual([
    '  a: 4.1 KB in 1 pages: 0 zero, 0 duplicate, 0 compressed, 1 normal; post-copy, down for 84 ms, exit after 1.20 s, 12 faults (p99 5.1 ms)',
    '  b: 4.1 KB in 1 pages: 0 zero, 0 duplicate, 0 compressed, 1 normal',
    '    aborted: b is gone (IMAGE)',
    '  b is gone (IMAGE)',
  ]);
});

test('short times', () => {
  expect(['1ms', '300ms', '0.5s', '2S', '600s'].map(parseShortTime)).toEqual([1, 300, 500, 2000, 600_000]);
  for (const text of ['', '5', 'ms', '0ms', '-1s', '601s', '1m']) expect(() => parseShortTime(text), text).toThrow();
});
