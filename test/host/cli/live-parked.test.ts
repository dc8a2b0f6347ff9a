// Guests that are parked: they stop, everything of them lies at nodes, and they go on where somebody takes them in; once.
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { GuestProcess } from '../guest/guests.js';
import { expectCompleted, Live, Pair } from './live-scene.js';
import { Abdm, cleanUp, directory } from './processes.js';

afterEach(cleanUp);

const RUNS = ({ type }: { type: string }) => type === 'running';
const MERGED = (bytes: number) => (event: { type: string; mergedBytes: number }) =>
  event.type === 'progress' && event.mergedBytes > bytes;

/** A guest that has left for nodes. */
async function parked(mode: string) {
  const pair = await Pair.of('vm', '--ops', '1000');
  const live = await Live.of([pair], 3);
  const key = join(directory(), 'vm.vmkey');
  const park = ['--park', '--vm-key', key, '--replicas', '2', '--intermediates', live.list];
  const left = await new Abdm(['eject', pair.from, '--mode', mode, ...park]).done;
  expectCompleted(left);
  expect((await pair.here.ask('status')).state).toBe('left');
  const merge = (to: string, ...args: string[]) =>
    new Abdm(['merge', `vm=guest:${to}`, '--parked', '--vm-key', key, '--intermediates', live.list, ...args]);
  return { pair, live, merge };
}

test.each(['stop', 'pre-copy'])(
  'in mode %s: it runs where it is taken in, at once, and its pages follow',
  async (mode) => {
    const { pair, merge } = await parked(mode);
    const destination = merge(pair.there.socket, '--rate', '4MB');
    await destination.event(RUNS);
    await pair.there.works(50);
    expect(destination.child.exitCode).toBeNull();
    const merged = await destination.done;
    expectCompleted(merged);
    expect(merged.summary.vms[0].postcopyRequests).toBeGreaterThan(0);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  },
);

test('it is taken in once: when it runs, and whoever took it in is killed, nobody else gets it, ever', async () => {
  const { pair, live, merge } = await parked('pre-copy');
  const first = merge(pair.there.socket, '--rate', '2MB');
  await first.event(RUNS);
  await first.event(MERGED(1e6));
  await first.stop('SIGKILL');
  const other = await GuestProcess.waiting();
  const { code, summary } = await merge(other.socket).done;
  expect([code, summary.reason.code]).toEqual([2, 'CLAIMED']);
  expect((await other.ask('status')).state).toBe('waiting');
  // One of the nodes that granted it is gone: the others still know.
  await live.nodes[0]!.stop('SIGKILL');
  expectCompleted(await merge(pair.there.socket).done);
  await pair.expectThere();
  expect(await pair.end()).toEqual({ here: 1, there: 1 });
});
