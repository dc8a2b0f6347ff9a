// A guest that checks all of its memory, busily: what has come of it is its memory, byte for byte, and whenever it is let go on here it never notices.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { runState } from '#abdm/host/qemu/monitor.js';
import { buildGuest, needsGuest, saidOn } from '../../qemu/guest/guest.js';
import { until } from '../../qemu/qemu.js';
import { Listener, memoryOf, openLeaving, startLeaving } from './source-qemus.js';

// A QEMU that emulates every instruction, on whatever machine this is.
const LIMIT_MS = 240_000;
/** What the processor sees there is not what the memory below is. */
const [HOLE, HOLE_END] = [0xa0000, 0x100000];

it('a busy guest comes as it is, and goes on wherever it was given up', { timeout: 2 * LIMIT_MS }, async ({ skip }) => {
  needsGuest(skip);
  const built = buildGuest(8);
  const serial = built.serial('here');
  const qemu = await startLeaving([], built.machine(serial));
  const goesOn = async () => {
    expect((await runState(qemu.qmp)).running).toBe(true);
    const { rounds } = saidOn(serial);
    await until(async () => saidOn(serial).rounds >= rounds + 2 || saidOn(serial).fails > 0, LIMIT_MS);
    expect(saidOn(serial)).toMatchObject({ boots: 1, fails: 0 });
  };
  await until(async () => saidOn(serial).rounds >= 1, LIMIT_MS);
  const guest = await openLeaving(qemu);
  const listener = new Listener();
  guest.listen(listener);

  // It is stopped first: without KVM, QEMU 7.2 loses what a guest writes while it is sent.
  await guest.stop();
  await listener.until(() => listener.has.size === guest.pages);
  const filename = join(qemu.directory, 'memory');
  const { bytes } = guest.regions[0]!;
  await qemu.qmp.execute('pmemsave', { val: 0, size: bytes, filename });
  const [here, there] = [memoryOf(guest), readFileSync(filename)];
  rmSync(filename);
  expect(here.subarray(0, HOLE).equals(there.subarray(0, HOLE))).toBe(true);
  expect(here.subarray(HOLE_END, bytes).equals(there.subarray(HOLE_END))).toBe(true);
  expect(new Set(here.subarray(HOLE_END, bytes)).size).toBe(256);
  await guest.resume();
  await goesOn();

  // In the midst of a round, while nobody reads.
  await guest.begin();
  await listener.until(() => listener.has.size > guest.pages / 4);
  guest.hold(true);
  await goesOn();
  expect(listener.has.size).toBeLessThan(guest.pages);
  await guest.resume();
  // After a round, when it may be stopped by QEMU itself.
  listener.rounds.length = 0;
  await guest.begin();
  await listener.until(() => listener.rounds.length > 0);
  await guest.stop();
  await guest.resume();
  await goesOn();

  await guest.stop();
  await listener.until(() => listener.has.size === guest.pages);
  const said = saidOn(serial);
  const ended = new Promise((resolve) => qemu.process.once('exit', resolve));
  await guest.release();
  await ended;
  expect(saidOn(serial)).toEqual(said);
  expect(listener.gone).toEqual([]);
});
