// The whole way: a guest that checks every page it touches, in a process of its own, leaves with abdm eject over real nodes to abdm merge, in each mode.

import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Abdm, cleanUp, directory, intermediates } from '../cli/processes.js';
import { GuestProcess } from '../guest/guests.js';

afterEach(cleanUp);

const PAGES = 4096;
const BUSY = ['--memory', '16M', '--ops', '4000', '--writes', '0.5', '--working-set', '4M'];

async function leave(count: number, keepers: number, how: readonly string[], guest: readonly string[] = BUSY) {
  const sources: GuestProcess[] = [];
  const places: GuestProcess[] = [];
  for (let i = 0; i < count; i++) {
    sources.push(new GuestProcess(...guest, '--seed', `${i + 1}`));
    places.push(await GuestProcess.waiting());
    await sources[i]!.is('running');
  }
  const list = keepers > 0 ? (await intermediates(keepers)).list : '';
  const images = (of: GuestProcess[]) => of.map(({ socket }, i) => `vm${i}=guest:${socket}`);
  const merge = new Abdm(['merge', ...images(places), '--listen', '127.0.0.1:0']);
  const via = keepers > 0 ? ['--intermediates', list] : ['--direct'];
  const eject = new Abdm(['eject', ...images(sources), '--to', await merge.address(), ...via, ...how]);
  return { sources, places, merge, eject };
}

/** Both ends are done, each guest runs on at the destination, and there is nothing in its memory that it did not write. */
async function expectArrived({ sources, places, merge, eject }: Awaited<ReturnType<typeof leave>>) {
  const [left, merged] = await Promise.all([eject.done, merge.done]);
  expect([left.code, left.summary.reason, merged.code, merged.summary.reason]).toEqual([0, null, 0, null]);
  for (const [i, place] of places.entries()) {
    expect(await place.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    await place.works(200);
    const [before, after] = await Promise.all([sources[i]!.abdm.stop(), place.abdm.stop()]);
    expect(after.summary).toMatchObject({ wrongPages: 0 });
    // What it did here ends where it begins there, in operations and in time.
    const [ranHere, ranThere] = [before.summary.ran.at(-1), after.summary.ran[0]];
    expect(ranThere.fromOperation).toBe(ranHere.toOperation);
    expect(ranThere.beganAtMs).toBeGreaterThanOrEqual(ranHere.endedAtMs);
  }
  return left;
}

describe.each([
  ['directly', 0],
  ['over two nodes', 2],
])('%s', (_, keepers) => {
  test.each(['stop', 'pre-copy', 'post-copy', 'hybrid', 'auto'])('in mode %s', async (mode) => {
    const scene = await leave(1, keepers, ['--mode', mode, '--rate', '40MB']);
    const { summary } = await expectArrived(scene);
    expect(summary.vms[0]).toMatchObject({ outcome: 'completed', name: 'vm0' });
    if (mode !== 'stop') expect(summary.vms[0].downtimeMs).toBeGreaterThan(0);
  });

  test('a gang', async () => {
    const scene = await leave(
      3,
      keepers,
      ['--mode', 'post-copy', '--rate', '40MB', '--priority', 'vm0=4'],
      [...BUSY, '--common', '0.5'],
    );
    const { summary } = await expectArrived(scene);
    // What all of them have leaves once.
    const sent = summary.vms.reduce((sum: number, vm: { normalPages: number }) => sum + vm.normalPages, 0);
    expect(sent).toBeLessThan(0.8 * 3 * PAGES);
  });
});

/** One of two guests is killed while both leave. */
const loseOne = async (scene: Awaited<ReturnType<typeof leave>>) => {
  await scene.eject.event(({ type, wireBytes }) => type === 'progress' && wireBytes > 4e6);
  await scene.sources[0]!.abdm.stop('SIGKILL');
};

describe('one of two whose guest is killed while they leave', () => {
  test.each([
    ['pre-copy', 0],
    ['stop', 2],
    ['auto', 2],
  ])('in mode %s over %i nodes fails alone, and the other arrives', async (mode, keepers) => {
    const scene = await leave(2, keepers, ['--mode', mode, '--rate', '10MB']);
    await loseOne(scene);
    const left = await scene.eject.done;
    expect(left.code).toBe(2);
    expect(left.summary).toMatchObject({
      outcome: 'aborted',
      reason: { code: 'IMAGE' },
      vms: [{ outcome: 'aborted' }, { outcome: 'completed', reason: null }],
    });
    const merged = await scene.merge.done;
    expect(merged.summary.vms).toMatchObject([{ outcome: 'aborted' }, { outcome: 'completed' }]);
    expect(await scene.places[1]!.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    expect(await scene.places[0]!.ask('status')).toMatchObject({ state: 'waiting', operation: 0 });
  });

  test('parked, is not taken in from the nodes, and the other is', async () => {
    const dir = directory();
    const { list } = await intermediates(2);
    const sources = [await GuestProcess.running(...BUSY), await GuestProcess.running(...BUSY, '--seed', '2')];
    const places = [await GuestProcess.waiting(), await GuestProcess.waiting()];
    const images = (of: GuestProcess[]) => of.map(({ socket }, i) => `vm${i}=guest:${socket}`);
    const key = ['--vm-key', join(dir, 'vm.key')];
    const how = ['--park', ...key, '--intermediates', list, '--mode', 'stop', '--rate', '10MB'];
    const eject = new Abdm(['eject', ...images(sources), ...how]);
    await loseOne({ sources, eject } as never);
    expect((await eject.done).summary).toMatchObject({
      parked: true,
      vms: [{ outcome: 'aborted' }, { outcome: 'completed' }],
    });
    const merge = new Abdm(['merge', ...images(places), '--parked', ...key, '--intermediates', list]);
    expect((await merge.done).summary.vms).toMatchObject([{ outcome: 'aborted' }, { outcome: 'completed' }]);
    expect(await places[1]!.ask('verify')).toMatchObject({ absent: 0, wrong: 0 });
    await places[1]!.works(200);
    expect(await places[0]!.ask('status')).toMatchObject({ state: 'waiting', operation: 0 });
  });
});
