// Guests that leave a QEMU of one version and go on in one of another: the system's (7.2 on Debian 12) and 10, which need not be installed.
import { afterEach, describe, expect, test } from 'vitest';
import { runState } from '#abdm/host/qemu/monitor.js';
import { needsQemu, needsQemu10 } from '../qemu/qemu.js';
import { expectCompleted } from './live-scene.js';
import { cleanUp, intermediates } from './processes.js';
import { AT, ended, incoming, type Machine, MIB, Move, memoryOf, RAM_MB, source, stays } from './qemu-scene.js';

afterEach(cleanUp);

/** One that both know. */
const MACHINE = ['-M', 'pc-i440fx-7.2', '-m', `${RAM_MB}`, '-nodefaults', '-vga', 'std'];

describe.each([
  ["the system's", '10'],
  ['10', "the system's"],
  ['10', '10'],
])('from %s to %s', (from, to) => {
  test.for(['post-copy', 'pre-copy'])('mode %s brings every byte', async (mode, { skip }) => {
    needsQemu(skip);
    const ten = needsQemu10(skip);
    const here = await source(MACHINE, from === '10' ? ten : undefined);
    // It stands still, so that both memories can be held against each other.
    await here.qmp.execute('stop');
    const before = await memoryOf(here);
    expect(before.subarray(AT, AT + MIB).equals(Buffer.alloc(MIB))).toBe(false);
    const there = await incoming(MACHINE, to === '10' ? ten : undefined);
    const { list } = await intermediates(2);
    await arrives(here, there, '--mode', mode, '--intermediates', list);
    expect(await runState(there.qmp)).toMatchObject({ running: false });
    expect((await memoryOf(there)).equals(before)).toBe(true);
    await there.qmp.execute('cont');
    expect(await runState(there.qmp)).toMatchObject({ running: true });
  });
});

test('a guest of 10 runs on where it is if its state is refused, and can leave again', async ({ skip }) => {
  needsQemu(skip);
  const ten = needsQemu10(skip);
  const machine = [...MACHINE, '-device', 'virtio-rng-pci'];
  const here = await source(machine, ten);
  const content = seeded(await memoryOf(here));
  // Without the device, which is found when the guest stands still here: post-copy has begun.
  const move = await Move.begin(here, await incoming(MACHINE), '--mode', 'post-copy', '--direct');
  const [left, merged] = await Promise.all([move.eject.done, move.merge.done]);
  expect([left.code, merged.code]).toEqual([2, 2]);
  expect(left.summary).toMatchObject({ outcome: 'aborted', vms: [{ outcome: 'aborted' }] });
  await stays(here);
  const there = await incoming(machine);
  await arrives(here, there, '--mode', 'post-copy', '--direct');
  expect(await runState(there.qmp)).toMatchObject({ running: true });
  expect(seeded(await memoryOf(there)).equals(content)).toBe(true);
});

/** The firmware writes to none of this. */
const seeded = (memory: Buffer) => memory.subarray(AT, AT + 16 * MIB);

async function arrives(here: Machine, there: Machine, ...args: string[]): Promise<void> {
  const { eject, merge } = await Move.begin(here, there, ...args);
  const [left, merged] = await Promise.all([eject.done, merge.done]);
  expectCompleted(left, merged);
  expect(merged.summary.vms[0]).toMatchObject({ verified: true });
  await ended(here);
}
