// Real QEMUs without a kernel, whose guests leave, or go on.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { decodeSetup } from '#abdm/host/image/qemu/setup.js';
import { decodeState } from '#abdm/host/image/qemu/state.js';
import { capabilities, migrationState, parameters, runState, setCapabilities } from '#abdm/host/qemu/monitor.js';
import { scale, seeded } from '../../../engine.js';
import { skipped } from '../../../skipped.js';
import { needsQemu, needsQemu10, until } from '../../qemu/qemu.js';
import { nodeChild, tempDir } from '../../temp.js';
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
    // QEMU 10 calls it either.
    expect((await migrationState(qemu.qmp)).status).toMatch(/cancelled|failed/);
    await expect(guest.stop()).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringContaining('open it again'),
    });
  });

  it('does not begin to leave by itself, also from a QEMU 10', async ({ skip }) => {
    const { listener } = await open(await startLeaving([], undefined, needsQemu10(skip)));
    const { size } = listener.has;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(listener.has.size).toBe(size);
  });

  it('leaves as it stands when it is stopped: state first, then every page once', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const { guest, listener } = await open(qemu);
    const state = decodeState(await guest.stop());
    listener.isStill = true;
    expect(state.wasRunning).toBe(true);
    // It stands still; where sockets took all of it already, QEMU is done as well.
    expect(['finish-migrate', 'postmigrate']).toContain((await runState(qemu.qmp)).status);
    await listener.until(() => listener.has.size === guest.pages);
    expect(
      memoryOf(guest)
        .subarray(0, 640 * 1024)
        .equals(await savedBy(qemu)),
    ).toBe(true);
    // All has come, and QEMU is still there.
    await until(async () => (await migrationState(qemu.qmp)).status === 'completed');
    expect((await runState(qemu.qmp)).status).toBe('postmigrate');
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

it('nothing comes while whoever reads is behind, until the guest is stopped', async ({ skip }) => {
  needsQemu(skip);
  const qemu = await startLeaving([], ['-M', 'pc', '-m', '64', '-nodefaults', '-vga', 'none']);
  const { guest, listener } = await open(qemu);
  const pause = () => new Promise((resolve) => setTimeout(resolve, 30));
  const came = listener.onPage.bind(listener);
  listener.onPage = (pfn) => {
    came(pfn);
    if (listener.has.size % 3000 === 0) {
      guest.hold(true);
      holds++;
    }
  };
  let holds = 0;
  await guest.begin();
  for (let held = 0; held < 4; held = holds) {
    await listener.until(() => holds > held);
    await pause();
    // Of a read that has begun, the rest; then nothing.
    const had = listener.has.size;
    await pause();
    expect(listener.has.size).toBe(had);
    guest.hold(false);
  }
  guest.hold(true);
  await guest.stop();
  guest.hold(true);
  await listener.until(() => listener.has.size === guest.pages);
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

  // Of a QEMU 7.2 that was cancelled in the midst of its pages, one in fifty never let its guest go on.
  it('again and again, whenever it is', async ({ skip }) => {
    needsQemu(skip);
    const { qemu, before, guest, listener } = await bring('opened');
    const random = seeded(5);
    const moment = () => new Promise((resolve) => setTimeout(resolve, random() % 20));
    for (let i = 0; i < scale(20); i++) {
      listener.isStill = false;
      if (random() % 3 === 0) await guest.begin();
      await moment();
      await guest.stop();
      if (random() % 2 === 0) await moment();
      await guest.resume();
      expect(await standing(qemu)).toEqual(before);
    }
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
    guest.abandon!();
    await until(
      async () => !['active', 'postcopy-active', 'cancelling'].includes((await migrationState(qemu.qmp)).status),
    );
    await until(async () => (await runState(qemu.qmp)).status !== 'finish-migrate');
    if (NOT_STOPPED.includes(phase)) return expect((await runState(qemu.qmp)).running).toBe(true);
    expect((await runState(qemu.qmp)).running).toBe(false);
    await qemu.qmp.execute('cont');
    expect((await runState(qemu.qmp)).running).toBe(true);
  });

  it('by a command, when whoever had it was killed once all had come', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const source = new URL('../../../../dist/host/image/qemu/source.js', import.meta.url);
    const script = `import('${source}').then(async ({ openQemu }) => {
      const guest = await openQemu('${qemu.path}');
      const missing = new Set(Array(guest.pages).keys());
      guest.listen({ onPage: (pfn) => missing.delete(pfn), onAwaited() {} });
      await guest.stop();
      while (missing.size > 0) await new Promise((resolve) => setTimeout(resolve, 100));
      setTimeout(() => console.log('all'), 100);
    })`;
    const child = await nodeChild(script);
    child.process.kill('SIGKILL');
    await child.ended;
    await until(async () => (await runState(qemu.qmp)).status === 'postmigrate');
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

describe('a guest in QEMU that cannot leave', () => {
  /** Refused, and everything is as it was. */
  async function refused(qemu: Leaving, what: RegExp, path = qemu.path) {
    const before = await standing(qemu);
    await expect(openLeaving({ path })).rejects.toMatchObject({ code: 'IMAGE', message: expect.stringMatching(what) });
    expect(await standing(qemu)).toEqual(before);
  }

  it('is refused with the capability that is in the way', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const names = [
      ...['multifd', 'compress', 'xbzrle', 'x-ignore-shared', 'release-ram', 'pause-before-switchover'],
      ...['block', 'dirty-bitmaps'],
    ];
    const known = await capabilities(qemu.qmp);
    for (const name of names.filter((name) => known.has(name))) {
      await setCapabilities(qemu.qmp, { [name]: true });
      await refused(qemu, new RegExp(`capability ${name} on: .*; turn it off`));
      await setCapabilities(qemu.qmp, { [name]: false });
    }
    await qemu.qmp.execute('migrate-set-parameters', { 'tls-creds': 'none-such' });
    await refused(qemu, /tls-creds/);
  });

  it('is refused with the state that it is in', async ({ skip }) => {
    needsQemu(skip);
    await refused(await startLeaving(['-incoming', 'defer']), /state inmigrate; it waits for a guest itself/);
    const qemu = await startLeaving([], ['-M', 'pc', '-m', '64', '-nodefaults', '-vga', 'none']);
    const { guest } = await open(qemu);
    await qemu.qmp.execute('migrate_cancel');
    await until(async () => (await migrationState(qemu.qmp)).status === 'cancelled');
    await guest.close();
    await qemu.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 10 });
    await qemu.qmp.execute('migrate', { uri: 'exec:sleep 10' });
    await until(async () => (await migrationState(qemu.qmp)).status === 'active');
    await refused(qemu, /migration under way already: it is active; .*migrate_cancel/);
    await qemu.qmp.execute('migrate_cancel');
  });

  it('is refused with the device that is in the way', async ({ skip }) => {
    needsQemu(skip);
    const disk = ['-drive', 'if=none,id=disk,file=null-co://,format=raw', '-device', 'nvme,drive=disk,serial=1'];
    await refused(await startLeaving(disk), /cannot migrate: .*nvme.*; remove that from the guest/);
  });

  it('is refused with what only its stream says, and goes on', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    await setCapabilities(qemu.qmp, { 'dirty-bitmaps': true });
    // A monitor that does not say so.
    const path = join(qemu.directory, 'lies');
    const lie = '{"state": false, "capability": "dirty-bitmaps"}';
    const server = createServer((socket) => {
      const real = connect(qemu.path);
      socket.pipe(real);
      real.on('data', (data) => socket.write(`${data}`.replace(lie.replace('false', 'true'), lie)));
      for (const one of [socket, real]) one.on('close', () => [socket, real].map((other) => other.destroy()));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    onTestFinished(() => void server.close());
    const sockets = tempDir();
    vi.stubEnv('TMPDIR', sockets);
    onTestFinished(() => void vi.unstubAllEnvs());
    await refused(qemu, /dirty bitmaps, which is not understood; turn/, path);
    expect(readdirSync(sockets)).toEqual([]);
  });

  it('is not there, or not a QEMU', async () => {
    const path = join(tempDir(), 'qmp');
    const missing = { code: 'IMAGE', message: expect.stringContaining('-qmp unix:') };
    await expect(openLeaving({ path })).rejects.toMatchObject(missing);
  });
});

describe('a QEMU that dies', () => {
  const LARGE = ['-M', 'pc', '-m', '64', '-nodefaults', '-vga', 'none'];

  it.for(['opened', 'held', 'stopping'])('before all has come, is gone: %s', async (phase, { skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving([], LARGE);
    const { guest, listener } = await open(qemu);
    if (phase === 'held') {
      guest.hold(true);
      await guest.begin();
    }
    // Stopped by a signal, it does not send its state.
    if (phase === 'stopping') qemu.process.kill('SIGSTOP');
    const stopping = phase === 'stopping' ? guest.stop() : null;
    stopping?.catch(() => {});
    qemu.process.kill('SIGKILL');
    await listener.until(() => listener.gone.length > 0);
    const gone = { code: 'IMAGE', message: expect.stringContaining(qemu.path) };
    expect(listener.gone).toMatchObject([gone]);
    await expect(stopping ?? guest.stop()).rejects.toMatchObject(gone);
    await expect(guest.begin()).rejects.toMatchObject(gone);
    await expect(guest.resume()).rejects.toMatchObject(gone);
    expect(() => memoryOf(guest)).toThrow(expect.objectContaining(gone));
    const late = new Listener();
    guest.listen(late);
    expect(late.gone).toEqual(listener.gone);
    expect(listener.gone.length).toBe(1);
  });

  it('after all has come, harms nothing but that it cannot go on', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startLeaving();
    const { guest, listener } = await open(qemu);
    await guest.stop();
    await listener.until(() => listener.has.size === guest.pages);
    const memory = memoryOf(guest);
    qemu.process.kill('SIGKILL');
    await new Promise((resolve) => qemu.process.once('exit', resolve));
    expect(memoryOf(guest).equals(memory)).toBe(true);
    guest.want(0);
    await expect(guest.resume()).rejects.toMatchObject({ code: 'IMAGE' });
    expect(listener.gone).toEqual([]);
    await guest.release();
  });
});

it('a page that is asked for comes before others', async ({ skip }) => {
  needsQemu(skip);
  const qemu = await startLeaving([], ['-M', 'pc', '-m', '256', '-nodefaults', '-vga', 'none']);
  const { guest, listener } = await open(qemu);
  const order: number[] = [];
  const came = listener.onPage.bind(listener);
  listener.onPage = (pfn) => {
    order.push(pfn);
    came(pfn);
  };
  await guest.stop();
  const wanted = 60_000;
  guest.want(wanted);
  guest.want(wanted);
  // So much had come before it was asked for that nothing can be said otherwise.
  const before = listener.has.size;
  await listener.until(() => listener.has.has(wanted));
  expect(before).toBeLessThan(wanted / 2);
  expect(order.indexOf(wanted)).toBeLessThan(wanted / 2 + before);
  await guest.resume();
});

/** Sets some aside, for as long as the test goes on. */
function needsHugePages(pages: number, skip: (note: string) => void): void {
  const path = '/proc/sys/vm/nr_hugepages';
  try {
    const before = Number(readFileSync(path, 'latin1'));
    writeFileSync(path, `${before + pages}`);
    onTestFinished(() => writeFileSync(path, `${before}`));
    if (Number(readFileSync(path, 'latin1')) === before + pages) return;
  } catch {
    // Nobody but root may.
  }
  skipped(skip, 'there are no huge pages');
}

it('a page of a huge page is asked for with all of it', async ({ skip }) => {
  needsQemu(skip);
  needsHugePages(32, skip);
  const memory = 'memory-backend-memfd,id=ram,size=64M,hugetlb=on,hugetlbsize=2M';
  const qemu = await startLeaving(
    [],
    ['-M', 'pc,memory-backend=ram', '-m', '64', '-object', memory, '-nodefaults', '-vga', 'none'],
  );
  const { guest, listener } = await open(qemu);
  const [ram, ...others] = decodeSetup(guest.setup, guest.regions).blocks;
  expect(ram).toEqual({ name: 'ram', bytes: 64 * 1024 * 1024, hostPageBytes: 2 ** 21 });
  expect(new Set(others.map(({ hostPageBytes }) => hostPageBytes))).toEqual(new Set([4096]));
  await guest.stop();
  listener.isStill = true;
  guest.want(guest.regions[0]!.pages - 1);
  await listener.until(() => listener.has.size === guest.pages);
  expect(
    memoryOf(guest)
      .subarray(0, 640 * 1024)
      .equals(await savedBy(qemu)),
  ).toBe(true);
  await guest.resume();
  expect((await runState(qemu.qmp)).running).toBe(true);
});
