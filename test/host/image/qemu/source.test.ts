// Real QEMUs without a kernel, whose guests leave, or go on.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeSetup } from '#abdm/host/image/qemu/setup.js';
import { decodeState } from '#abdm/host/image/qemu/state.js';
import { capabilities, migrationState, parameters, runState } from '#abdm/host/qemu/monitor.js';
import { needsQemu, until } from '../../qemu/qemu.js';
import { type Leaving, Listener, memoryOf, openLeaving, startLeaving } from './source-qemus.js';

const RAM = 4 * 1024 * 1024;

/** Its settings, and whether the guest runs. */
async function standing({ qmp }: Leaving) {
  return { capabilities: await capabilities(qmp), parameters: await parameters(qmp), run: await runState(qmp) };
}

/** What QEMU itself says its guest's memory is. */
async function savedBy({ qmp, directory }: Leaving): Promise<Buffer> {
  const filename = join(directory, 'memory');
  await qmp.execute('pmemsave', { val: 0, size: 640 * 1024, filename });
  return readFileSync(filename);
}

async function open(qemu: Leaving) {
  const guest = await openLeaving(qemu);
  const listener = new Listener();
  guest.listen(listener);
  return { guest, listener };
}

describe('a guest in QEMU', () => {
  it('is known before any of it leaves, and runs on', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const before = await standing(qemu);
    const { guest, listener } = await open(qemu);
    expect(guest.regions[0]).toMatchObject({ name: 'pc.ram', bytes: RAM, firstPfn: 0, address: 0 });
    expect(guest.pages * 4096).toBe(guest.bytes);
    expect(guest.guestId).toMatch(/^[0-9a-f]{32}$/);
    const setup = decodeSetup(guest.setup, guest.regions);
    expect(setup.configuration.machine).toMatch(/^pc-i440fx-/);
    expect(setup.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(setup.blocks.map(({ name }) => name)).toEqual(guest.regions.map(({ name }) => name));
    expect((await runState(qemu.qmp)).running).toBe(true);
    // A few pages at most, and none after that.
    const { size } = listener.has;
    expect(size).toBeLessThan(guest.pages / 2);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(listener.has.size).toBe(size);
    await guest.close();
    expect(await standing(qemu)).toEqual(before);
    expect((await migrationState(qemu.qmp)).status).toBe('cancelled');
    await expect(guest.stop()).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringContaining('open it again'),
    });
  });

  it('leaves as it stands when it is stopped: state first, then every page once', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const { guest, listener } = await open(qemu);
    const state = decodeState(await guest.stop());
    listener.isStill = true;
    expect(state.wasRunning).toBe(true);
    expect((await runState(qemu.qmp)).status).toBe('finish-migrate');
    await listener.until(() => listener.has.size === guest.pages);
    expect(
      memoryOf(guest)
        .subarray(0, 640 * 1024)
        .equals(await savedBy(qemu)),
    ).toBe(true);
    // All has come, and QEMU still waits for the word that it may go.
    expect((await migrationState(qemu.qmp)).status).toBe('postcopy-active');
    guest.want(5);
    const ended = new Promise((resolve) => qemu.process.once('exit', resolve));
    await guest.release();
    await ended;
    expect(qemu.process.exitCode).toBe(0);
    expect(listener.gone).toEqual([]);
    memoryOf(guest);
    await guest.release();
  });

  it('leaves in rounds, and stands still by itself if it has nothing to do', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const { guest, listener } = await open(qemu);
    await guest.begin();
    await listener.until(() => listener.rounds.at(-1) === 0);
    expect(listener.has.size).toBe(guest.pages);
    expect(decodeState(await guest.stop()).wasRunning).toBe(true);
    // Nobody but us lets it go on from here, even if we are lost.
    expect((await runState(qemu.qmp)).status).toBe('postmigrate');
    expect(
      memoryOf(guest)
        .subarray(0, 640 * 1024)
        .equals(await savedBy(qemu)),
    ).toBe(true);
    await guest.release();
  });
});

describe('a guest in QEMU goes on exactly as before', () => {
  type Phase = 'opened' | 'begun' | 'held' | 'converged' | 'converged and stopped' | 'stopped' | 'drained';
  const PHASES: Phase[] = ['opened', 'begun', 'held', 'converged', 'converged and stopped', 'stopped', 'drained'];
  const NOT_STOPPED: Phase[] = ['opened', 'begun', 'held', 'converged'];

  /** Large enough not to be done at once. */
  async function bring(phase: Phase) {
    const qemu = await startLeaving(
      [],
      ['-M', 'pc', '-m', phase.startsWith('converged') ? '4' : '64', '-nodefaults', '-vga', 'none'],
    );
    const before = await standing(qemu);
    const { guest, listener } = await open(qemu);
    if (phase === 'held') guest.hold(true);
    if (['begun', 'held'].includes(phase) || phase.startsWith('converged')) await guest.begin();
    if (phase.startsWith('converged')) await listener.until(() => listener.rounds.includes(0));
    if (['stopped', 'drained', 'converged and stopped'].includes(phase)) {
      await guest.stop();
      listener.isStill = true;
    }
    if (phase === 'drained') await listener.until(() => listener.has.size === guest.pages);
    return { qemu, before, guest, listener };
  }

  it.for(PHASES)('when it was %s, and leaves again', async (phase, { skip }) => {
    needsQemu(skip);
    const { qemu, before, guest, listener } = await bring(phase);
    await guest.resume();
    expect(await standing(qemu)).toEqual(before);
    listener.isStill = false;
    listener.awaited = 0;
    await guest.stop();
    expect(listener.awaited).toBeGreaterThanOrEqual(guest.pages);
    await listener.until(() => listener.has.size === guest.pages);
    expect(
      memoryOf(guest)
        .subarray(0, 640 * 1024)
        .equals(await savedBy(qemu)),
    ).toBe(true);
    await guest.resume();
    expect(await standing(qemu)).toEqual(before);
    expect(listener.gone).toEqual([]);
  });

  it.for(PHASES)('when it is closed, unless it was stopped: %s', async (phase, { skip }) => {
    needsQemu(skip);
    const { qemu, before, guest } = await bring(phase);
    await guest.close();
    const { run, ...settings } = await standing(qemu);
    expect(run.running).toBe(NOT_STOPPED.includes(phase));
    expect({ run: before.run, ...settings }).toEqual(before);
    if (!run.running) await qemu.qmp.execute('cont');
  });

  it.for(PHASES)('by a command, when it was abandoned: %s', async (phase, { skip }) => {
    needsQemu(skip);
    const { qemu, guest } = await bring(phase);
    guest.abandon();
    await until(
      async () => !['active', 'postcopy-active', 'cancelling'].includes((await migrationState(qemu.qmp)).status),
    );
    await until(async () => (await runState(qemu.qmp)).status !== 'finish-migrate');
    if (NOT_STOPPED.includes(phase)) return expect((await runState(qemu.qmp)).running).toBe(true);
    expect((await runState(qemu.qmp)).running).toBe(false);
    await qemu.qmp.execute('cont');
    expect((await runState(qemu.qmp)).running).toBe(true);
  });

  it('which is not at all, if it was paused', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving(['-S']);
    await qemu.qmp.execute('cont');
    await qemu.qmp.execute('stop');
    const { guest, listener } = await open(qemu);
    expect(decodeState(await guest.stop()).wasRunning).toBe(false);
    await listener.until(() => listener.has.size === guest.pages);
    await guest.resume();
    expect((await runState(qemu.qmp)).running).toBe(false);
    // A QEMU that was paused does not migrate twice by itself.
    const refused = { code: 'IMAGE', message: expect.stringMatching(/postmigrate.*'cont'/) };
    await expect(guest.stop()).rejects.toMatchObject(refused);
    await qemu.qmp.execute('cont');
    expect(decodeState(await guest.stop()).wasRunning).toBe(true);
  });
});
