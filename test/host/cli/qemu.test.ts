// Guests of real QEMUs that leave with `abdm eject` and arrive with `abdm merge`: every byte of their memory, in every mode, whoever dies.
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { migrationState, runState } from '#abdm/host/qemu/monitor.js';
import { buildGuest, needsGuest, saidOn } from '../qemu/guest/guest.js';
import { needsQemu, until } from '../qemu/qemu.js';
import { expectCompleted } from './live-scene.js';
import { Abdm, cleanUp, directory, intermediates } from './processes.js';
import { AT, ended, incoming, MIB, Move, memoryOf, RAM_MB, source, start, stays } from './qemu-scene.js';

afterEach(cleanUp);

const GUEST_MS = 240_000;

describe.each([
  ['directly', 0],
  ['over nodes', 2],
])('%s', (_, keepers) => {
  test.for(['stop', 'pre-copy', 'post-copy', 'hybrid', 'auto'])('mode %s brings every byte', async (mode, { skip }) => {
    needsQemu(skip);
    const here = await source();
    // It stands still, so that both memories can be held against each other.
    await here.qmp.execute('stop');
    const before = await memoryOf(here);
    expect(before.subarray(AT, AT + MIB).equals(Buffer.alloc(MIB))).toBe(false);
    const there = await incoming();
    const { list } = await intermediates(keepers);
    const way = keepers === 0 ? ['--direct'] : ['--intermediates', list];
    const { eject, merge } = await Move.begin(here, there, '--mode', mode, ...way);
    const [left, merged] = await Promise.all([eject.done, merge.done]);
    expectCompleted(left, merged);
    expect(merged.summary.vms[0]).toMatchObject({ name: 'vm', verified: true });
    await ended(here);
    // It stood still before, and does now.
    expect(await runState(there.qmp)).toMatchObject({ running: false });
    expect((await memoryOf(there)).equals(before)).toBe(true);
    await there.qmp.execute('cont');
    expect(await runState(there.qmp)).toMatchObject({ running: true });
  });
});

test('a guest that runs goes on at the destination, and its pages follow from nodes after the source is gone', async ({
  skip,
}) => {
  needsQemu(skip);
  const here = await source();
  const there = await incoming();
  const { list, nodes } = await intermediates(3);
  // Slow enough for eight seconds of pages: a busy machine may take some of them to end the source.
  const move = new Move(there, '--listen', '127.0.0.1:0', '--rate', '1MB');
  const eject = new Abdm([
    ...['eject', `vm=qemu:${here.socket}`, '--to', await move.merge.address(), '--mode', 'post-copy'],
    ...['--intermediates', list, '--replicas', '2'],
  ]);
  expectCompleted(await eject.done);
  await ended(here);
  expect(await runState(there.qmp)).toMatchObject({ running: true });
  expect(move.merge.child.exitCode).toBeNull();
  nodes[0]!.signal('SIGKILL');
  const merged = await move.merge.done;
  expect(merged.summary).toMatchObject({ outcome: 'completed', vms: [{ verified: true }] });
  const content = await memoryOf(there);
  expect(content.subarray(AT, AT + 4 * MIB).equals(content.subarray(AT + 12 * MIB, AT + 16 * MIB))).toBe(true);
  expect(content.subarray(AT, AT + MIB).equals(Buffer.alloc(MIB))).toBe(false);
});

test('a guest is parked while no host has it, and goes on elsewhere', async ({ skip }) => {
  needsQemu(skip);
  const here = await source();
  await here.qmp.execute('stop');
  const before = await memoryOf(here);
  const { list } = await intermediates(2);
  const key = join(directory(), 'vm.vmkey');
  const left = await new Abdm(['eject', `vm=qemu:${here.socket}`, '--park', '--intermediates', list, '--vm-key', key])
    .done;
  expect([left.code, left.summary.outcome]).toEqual([0, 'completed']);
  await ended(here);
  const there = await incoming();
  const { merge } = new Move(there, '--parked', '--vm-key', key, '--intermediates', list);
  expectCompleted(await merge.done);
  expect((await memoryOf(there)).equals(before)).toBe(true);
});

describe('it runs on where it is', () => {
  test.for(['post-copy', 'pre-copy', 'stop'])(
    'in mode %s, if the other QEMU is of another machine',
    async (mode, { skip }) => {
      needsQemu(skip);
      const here = await source();
      const there = await incoming(['-M', 'q35', '-m', `${RAM_MB}`, '-nodefaults', '-vga', 'std']);
      const { eject, merge } = await Move.begin(here, there, '--mode', mode, '--direct');
      const [left, merged] = await Promise.all([eject.done, merge.done]);
      expect([left.code, merged.code]).toEqual([2, 2]);
      expect(left.summary).toMatchObject({ outcome: 'aborted', vms: [{ outcome: 'aborted' }] });
      expect(left.summary.reason.message).toMatch(/machine|QEMU/i);
      await stays(here);
    },
  );

  test('if the other QEMU dies before it runs there; another one then takes it', async ({ skip }) => {
    needsQemu(skip);
    const here = await source();
    const { list } = await intermediates(2);
    const first = await incoming();
    const move = await Move.begin(here, first, '--mode', 'pre-copy', '--intermediates', list, '--rate', '4MB');
    await move.eject.event(({ type, wireBytes }) => type === 'progress' && wireBytes > 0);
    first.process.kill('SIGKILL');
    const [left] = await Promise.all([move.eject.done, move.merge.done]);
    expect(left.summary).toMatchObject({ outcome: 'aborted' });
    await stays(here);
    const second = await incoming();
    const again = await Move.begin(here, second, '--mode', 'post-copy', '--intermediates', list);
    expectCompleted(...(await Promise.all([again.eject.done, again.merge.done])));
    await ended(here);
    expect(await runState(second.qmp)).toMatchObject({ running: true });
  });

  test('if it is cancelled', async ({ skip }) => {
    needsQemu(skip);
    const here = await source();
    const there = await incoming();
    const { list } = await intermediates(2);
    const { eject, merge } = await Move.begin(
      here,
      there,
      '--mode',
      'pre-copy',
      '--intermediates',
      list,
      '--rate',
      '4MB',
    );
    await eject.event(({ type, wireBytes }) => type === 'progress' && wireBytes > 0);
    eject.signal('SIGTERM');
    await Promise.all([eject.done, merge.done]);
    await stays(here);
    expect((await migrationState(here.qmp)).status).toMatch(/cancelled|failed/);
  });

  test('if nobody is there', async ({ skip }) => {
    needsQemu(skip);
    const here = await source();
    const left = await new Abdm(['eject', `vm=qemu:${here.socket}`, '--to', '127.0.0.1:1', '--direct']).done;
    expect(left.code).toBe(2);
    await stays(here);
  });
});

test.for(['post-copy', 'pre-copy', 'hybrid', 'stop'])(
  'a guest that checks its memory, and writes to all of it, goes on bit for bit: %s',
  { timeout: 2 * GUEST_MS },
  async (mode, { skip }) => {
    needsGuest(skip);
    const guest = buildGuest(32);
    const [a, b] = [guest.serial('here'), guest.serial('there')];
    const here = await start([], guest.machine(a));
    await until(async () => saidOn(a).rounds >= 1, GUEST_MS);
    const there = await start(['-incoming', 'defer'], guest.machine(b));
    const { list } = await intermediates(3);
    const way = ['--mode', mode, '--intermediates', list, '--replicas', '2'];
    const { eject, merge } = await Move.begin(here, there, ...way);
    expectCompleted(...(await Promise.all([eject.done, merge.done])).map((outcome) => ({ ...outcome, stderr: '' })));
    await ended(here);
    await until(async () => saidOn(b).rounds >= 3 || saidOn(b).fails > 0, GUEST_MS);
    expect(saidOn(a)).toMatchObject({ boots: 1, fails: 0 });
    expect(saidOn(b)).toMatchObject({ boots: 0, fails: 0 });
  },
);
