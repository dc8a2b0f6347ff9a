// Guests that run while they are moved, over true nodes and sockets: in every mode they go on where they stopped, with every page right, and never in two
// places.
import { afterEach, describe, expect, test } from 'vitest';
import { expectCompleted, Live, Pair } from './live-scene.js';
import { cleanUp } from './processes.js';

afterEach(cleanUp);

const RUNS = ({ type }: { type: string }) => type === 'running';

describe.each([
  ['directly', 0],
  ['over nodes', 2],
])('%s', (_, keepers) => {
  test.each(['stop', 'pre-copy', 'post-copy', 'hybrid', 'auto'])('in mode %s', async (mode) => {
    const pair = await Pair.of('vm', '--ops', '500');
    const live = await Live.of([pair], keepers);
    const { destination, to } = await live.listening();
    const source = live.eject(to, mode, '--rate', '8MB');
    const ran = await destination.event(RUNS);
    expect(ran).toMatchObject({ vm: 'vm', atMs: expect.any(Number) });
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expectCompleted(left, merged);
    expect(merged.summary).toMatchObject({ role: 'destination', mode, direct: keepers === 0 });
    const [vm] = merged.summary.vms;
    expect(vm).toMatchObject({ verified: true, outcome: 'completed', mode: mode === 'auto' ? null : mode });
    expect(vm.totalMigrationTimeMs).toBeGreaterThan(0);
    if (mode === 'post-copy') expect(vm.postcopyRequests).toBeGreaterThan(0);
    if (vm.postcopyRequests > 0) expect(vm.faults.p99Ms).toBeGreaterThanOrEqual(vm.faults.p50Ms);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });
});

describe('towards a destination that is slow', () => {
  test.each(['pre-copy', 'post-copy'])('in mode %s the guest runs long before its pages are there', async (mode) => {
    // Few operations: what a guest waits for is not held back by the rate.
    const pair = await Pair.of('vm', '--ops', '500');
    const live = await Live.of([pair], 2);
    const { destination, to } = await live.listening('--rate', '500KB');
    const left = await live.eject(to, mode).done;
    expectCompleted(left);
    await destination.event(RUNS);
    await pair.there.works(100);
    const { guests, faultsPerS } = await destination.event(({ guests }) => guests?.postcopyRequests > 0);
    expect([guests.running, typeof faultsPerS]).toEqual([1, 'number']);
    expect(destination.child.exitCode).toBeNull();
    const merged = await destination.done;
    expectCompleted(merged);
    expect(merged.summary.vms[0].postcopyRequests).toBeGreaterThan(0);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });
});
