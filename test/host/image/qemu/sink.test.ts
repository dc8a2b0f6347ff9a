// A guest of a real QEMU, without a kernel, comes to another one page by page.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { countBits, hasBit } from '#abdm/host/guest/bits.js';
import type { GuestSink } from '#abdm/host/image/image.js';
import { openIncomingQemu } from '#abdm/host/image/qemu/sink.js';
import { migrationState, runState } from '#abdm/host/qemu/monitor.js';
import { seeded } from '../../../engine.js';
import { Drained, parse } from '../../qemu/events.js';
import { needsQemu, record, SMALL, startQemu, until } from '../../qemu/qemu.js';
import { tempDir } from '../../temp.js';
import { FakeQemu } from './fake-qemu.js';
import { gone, opened, Standing, small, type Waiting, waiting } from './sink-scene.js';

const MIB = 1024 * 1024;
const JUNK = new Uint8Array(4096).fill(0x5a);

/** One that stands still at both ends, so that all of its memory can be looked at; noise in most of it. */
async function still(seed: number): Promise<Standing> {
  const { drained } = await small();
  const random = seeded(seed);
  const block = drained.blocks.findIndex(({ name }) => name === 'pc.ram');
  const pages = drained.pages.map((its) => new Map(its));
  for (let offset = MIB; offset < 4 * MIB; offset += 4096) {
    const bytes = Buffer.alloc(4096);
    for (let at = 0; at < 4096; at += 4) bytes.writeUInt32LE(random() >>> 0, at);
    pages[block]!.set(offset, random() % 4 === 0 ? null : bytes);
  }
  return new Standing(Object.assign(new Drained(), { ...drained, pages }), false);
}

/** Compares the memory that a QEMU has above the first MiB. */
async function checkMemory(qemu: Waiting, { drained }: Standing): Promise<void> {
  const path = join(tempDir(), 'memory');
  writeFileSync(path, '');
  await qemu.qmp.execute('pmemsave', { val: MIB, size: 3 * MIB, filename: path });
  const memory = readFileSync(path);
  const pages = drained.pages[drained.blocks.findIndex(({ name }) => name === 'pc.ram')]!;
  for (let offset = MIB; offset < 4 * MIB; offset += 4096) {
    const page = memory.subarray(offset - MIB, offset - MIB + 4096);
    if (!page.equals(pages.get(offset) ?? new Uint8Array(4096))) throw new Error(`page ${offset} is not what it was`);
  }
}

const statusOf = async ({ qmp }: Waiting) => (await runState(qmp)).status;
const isOver = ({ process }: Waiting) => process.exitCode !== null || process.signalCode !== null;
const bringAll = (guest: Standing, sink: GuestSink) => {
  for (let pfn = 0; pfn < guest.pages; pfn++) guest.copy(sink, pfn);
};

describe('a guest', () => {
  it('has all of its memory before it runs, and stands still until it is told to', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    expect(sink).toMatchObject({ guestId: expect.stringMatching(/^[0-9a-f]{32}$/), hasRun: false, isWriteOnly: true });
    for (const pfn of guest.shuffled(1)) guest.copy(sink, pfn);
    await sink.load(guest.state);
    await until(async () => (await statusOf(qemu)) === 'paused');
    expect(await sink.mayHaveRun()).toBe(false);
    await sink.run();
    expect(await statusOf(qemu)).toBe('running');
    expect(await sink.mayHaveRun()).toBe(true);
    await sink.commit();
    expect((await migrationState(qemu.qmp)).status).toBe('completed');
    expect(await statusOf(qemu)).toBe('running');
    // Its monitor is free for others.
    await expect(openIncomingQemu(qemu.path, guest.shape)).rejects.toThrow('(it is "running")');
    await sink.discard();
    expect(await statusOf(qemu)).toBe('running');
  });

  it('runs before its memory is there', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    const rest = guest.rest(sink, guest.shuffled(2), 5);
    await sink.load(guest.state);
    await sink.run();
    expect(await rest).toBeGreaterThan(0);
    await sink.commit();
    expect(await statusOf(qemu)).toBe('running');
  });

  it('that stood still goes on standing still, also when all of it is there', async ({ skip }) => {
    needsQemu(skip);
    const guest = await still(3);
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    bringAll(guest, sink);
    await sink.load(guest.state);
    await sink.commit();
    await sink.run();
    expect(await statusOf(qemu)).toBe('paused');
    await checkMemory(qemu, guest);
    await sink.discard();
    expect(await statusOf(qemu)).toBe('paused');
  });

  it('of another machine, with devices that have memory of their own, comes as well', async ({ skip }) => {
    needsQemu(skip);
    const devices = ['e1000', 'virtio-net-pci', 'virtio-rng-pci', 'virtio-balloon-pci', 'qemu-xhci', 'VGA'];
    const more = devices.flatMap((device) => ['-device', device]);
    const machine = ['-M', 'q35', '-m', '16', '-smp', '2', '-nodefaults', ...more];
    const guest = new Standing(parse(await record(true, machine), new Drained()));
    for (const half of [0, guest.pages / 2]) {
      const qemu = await waiting(machine);
      const sink = await opened(qemu.path, guest.shape);
      const order = guest.shuffled(8);
      for (const pfn of order.slice(0, half)) guest.copy(sink, pfn);
      const rest = guest.rest(sink, order);
      await sink.load(guest.state);
      await sink.run();
      await rest;
      await sink.commit();
      expect(await statusOf(qemu)).toBe('running');
    }
  });

  it.for([4, 5, 6])('gets the last version of each page, whatever came before: seed %d', async (seed, { skip }) => {
    needsQemu(skip);
    const guest = await still(seed);
    const random = seeded(seed);
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    const order = guest.shuffled(seed);
    const some = () => random() % guest.pages;
    for (let n = 0; n < 3000; n++) {
      const pfn = some();
      if (random() % 3 === 0) sink.forget(pfn, 1 + (random() % Math.min(20, guest.pages - pfn)));
      else if (random() % 2 === 0) sink.write(pfn, JUNK, 0, 4096);
      else sink.zero(pfn, 1 + (random() % Math.min(20, guest.pages - pfn)));
    }
    // Some get what they are to have at the end; what was not, is forgotten.
    const right = new Set(order.slice(0, Math.floor(guest.pages / 2)));
    for (let pfn = 0; pfn < guest.pages; pfn++) if (!right.has(pfn)) sink.forget(pfn, 1);
    for (const pfn of right) guest.copy(sink, pfn);
    expect(countBits(sink.present)).toBe(right.size);
    const rest = guest.rest(sink, order, 1);
    await sink.load(guest.state);
    await rest;
    await sink.run();
    await sink.commit();
    expect(order.every((pfn) => hasBit(sink.present, pfn))).toBe(true);
    await checkMemory(qemu, guest);
  });

  it('is written in batches, across its blocks', async ({ skip }) => {
    needsQemu(skip);
    const guest = await still(7);
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    const batch = Buffer.alloc(64 * 4096);
    const bring = (from: number, end: number) => {
      for (let pfn = from; pfn < end; pfn++) batch.set(guest.page(pfn) ?? new Uint8Array(4096), (pfn - from) * 4096);
      sink.write(from, batch, 0, (end - from) * 4096);
    };
    const half = Math.floor(guest.pages / 128) * 64;
    for (let pfn = 0; pfn < half; pfn += 64) bring(pfn, pfn + 64);
    const faults: number[] = [];
    const loaded = sink.load(guest.state);
    await new Promise((resolve) => setTimeout(resolve, 20));
    sink.onFault = (pfn) => faults.push(pfn);
    for (let pfn = half; pfn < guest.pages; pfn += 64) bring(pfn, Math.min(guest.pages, pfn + 64));
    await loaded;
    await sink.run();
    await sink.commit();
    await checkMemory(qemu, guest);
  });
});

describe('a QEMU', () => {
  it.for([
    {
      what: 'runs a guest',
      how: [],
      message: /does not wait for a guest \(it is "running"\); start it anew with -incoming/,
    },
    { what: 'stands still', how: ['-S'], message: /\(it is "prelaunch"\)/ },
    {
      what: 'listens already',
      how: ['-incoming', 'tcp:127.0.0.1:0'],
      message: /refuses migrate-incoming: .*; start it anew with -incoming defer/,
    },
  ])('that $what is refused, and left alone', async ({ how, message }, { skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting(undefined, how);
    const before = await statusOf(qemu);
    const refused = { code: 'IMAGE', message: expect.stringMatching(message) };
    await expect(openIncomingQemu(qemu.path, guest.shape)).rejects.toMatchObject(refused);
    expect(await statusOf(qemu)).toBe(before);
  });

  it('that has another guest already is refused', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small(false);
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    bringAll(guest, sink);
    await sink.load(guest.state);
    await sink.run();
    await sink.commit();
    await expect(openIncomingQemu(qemu.path, guest.shape)).rejects.toThrow(
      'does not wait for a guest (it is "paused")',
    );
  });

  it.for([
    { what: 'machine', machine: ['-M', 'q35', '-m', '4', '-nodefaults', '-vga', 'none'] },
    { what: 'memory', machine: ['-M', 'pc', '-m', '8', '-nodefaults', '-vga', 'none'] },
    { what: 'blocks', machine: ['-M', 'none', '-m', '4'] },
  ])('with another $what is refused before a page has come', async ({ machine }, { skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting(machine);
    const message =
      /QEMU at .* has ended.*; start it anew with what the guest has: machine pc-i440fx-.*pc\.ram of 4194304 bytes/;
    const refused = { code: 'IMAGE', message: expect.stringMatching(message) };
    await expect(openIncomingQemu(qemu.path, guest.shape)).rejects.toMatchObject(refused);
    await until(async () => isOver(qemu));
  });

  it('without a device of the guest does not load it, and says so', async ({ skip }) => {
    needsQemu(skip);
    const machine = [...SMALL, '-device', 'virtio-rng-pci'];
    const guest = new Standing(parse(await record(false, machine), new Drained()));
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    bringAll(guest, sink);
    const lost = gone(sink);
    const failed = {
      code: 'IMAGE',
      message: expect.stringMatching(/has ended.*; start it anew with .* the devices of the guest/),
    };
    await expect(sink.load(guest.state)).rejects.toMatchObject(failed);
    expect(await lost).toMatchObject(failed);
    expect(await sink.mayHaveRun()).toBe(false);
  });

  it('that was killed is gone, and its guest starts elsewhere', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    const lost = gone(sink);
    guest.copy(sink, 0);
    qemu.process.kill('SIGKILL');
    const failed = { code: 'IMAGE', message: expect.stringMatching(/has ended.*run the same command again/) };
    expect(await lost).toMatchObject(failed);
    expect(() => sink.zero(1, 1)).toThrow(expect.objectContaining(failed));
    await expect(sink.load(guest.state)).rejects.toMatchObject(failed);
    expect(await gone(sink)).toMatchObject(failed);
    expect(await sink.mayHaveRun()).toBe(false);
  });

  it('that is killed while it loads does not have the guest', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    qemu.process.kill('SIGSTOP');
    const loaded = expect(sink.load(guest.state)).rejects.toThrow(/has ended/);
    qemu.process.kill('SIGKILL');
    await loaded;
    expect(await sink.mayHaveRun()).toBe(false);
  });

  it('that is killed when its guest runs has lost what had not come', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    const rest = guest.rest(sink, guest.shuffled(2).slice(0, guest.pages / 2), 1);
    await sink.load(guest.state);
    await sink.run();
    await rest;
    const lost = gone(sink);
    qemu.process.kill('SIGKILL');
    expect((await lost).message).toMatch(/has ended.*may have run, and has lost what had not come of its memory/);
    expect(await sink.mayHaveRun()).toBe(true);
  });

  it('that may not do what post-copy needs is refused with what to do', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await new FakeQemu().begin();
    qemu.refuses.set('migrate-set-capabilities', 'Postcopy is not supported');
    const message = /refuses migrate-set-capabilities: Postcopy is not supported; .*vm\.unprivileged_userfaultfd = 1/;
    const refused = { code: 'IMAGE', message: expect.stringMatching(message) };
    await expect(openIncomingQemu(qemu.path, guest.shape)).rejects.toMatchObject(refused);
    expect(qemu.asked).not.toContain('migrate-incoming');
  });

  it('that lets go of the connection says why', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await new FakeQemu().begin();
    const sink = await opened(qemu.path, guest.shape);
    const lost = gone(sink);
    qemu.stream!.destroy();
    expect((await lost).message).toMatch(/has let go of the migration \(failed: its reason\); start it anew/);
  });
});

describe('what is let go of', () => {
  it.for(['discard', 'leave'] as const)('before it has run is ended: %s', async (how, { skip }) => {
    needsQemu(skip);
    const guest = await small();
    for (const isLoaded of [false, true]) {
      const qemu = await waiting();
      const temp = tempDir();
      vi.stubEnv('TMPDIR', temp);
      const sink = await opened(qemu.path, guest.shape);
      vi.unstubAllEnvs();
      // Nothing is left where others could find it, whatever becomes of us.
      expect(readdirSync(temp)).toEqual([]);
      let toldGone = false;
      sink.onGone = () => {
        toldGone = true;
      };
      guest.copy(sink, 0);
      if (isLoaded) {
        const rest = guest.rest(sink, guest.shuffled(2).slice(0, guest.pages / 2), 1);
        await sink.load(guest.state);
        await rest;
      }
      await sink[how]!();
      await sink.discard();
      await until(async () => isOver(qemu));
      expect(toldGone).toBe(false);
    }
  });

  it('once it runs is left alone', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    const rest = guest.rest(sink, guest.shuffled(2).slice(0, guest.pages / 2), 1);
    await sink.load(guest.state);
    await sink.run();
    await rest;
    await sink.discard();
    await until(async () => (await migrationState(qemu.qmp)).status === 'postcopy-paused');
    expect(isOver(qemu)).toBe(false);
  });

  it('while it loads is ended, and the load fails', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    qemu.process.kill('SIGSTOP');
    const loaded = expect(sink.load(guest.state)).rejects.toThrow(/was let go of/);
    const discarded = sink.discard();
    qemu.process.kill('SIGCONT');
    await discarded;
    await loaded;
    await until(async () => isOver(qemu));
  });
});

it('a page comes once when the state is there, and a state once', async ({ skip }) => {
  needsQemu(skip);
  const guest = await small();
  const qemu = await waiting();
  const sink = await opened(qemu.path, guest.shape);
  guest.copy(sink, 5);
  await expect(sink.load(Uint8Array.of(0, 0, 0, 1, 2))).rejects.toMatchObject({ code: 'PROTOCOL' });
  const rest = guest.rest(sink, guest.shuffled(2).slice(0, guest.pages / 2), 1);
  await sink.load(guest.state);
  await rest;
  const mistake = { code: 'INTERNAL', message: expect.stringContaining('page 5 of') };
  expect(() => sink.write(5, JUNK, 0, 4096)).toThrow(expect.objectContaining(mistake));
  expect(() => sink.zero(4, 2)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  const late = {
    code: 'IMAGE',
    message: expect.stringMatching(/has taken the state of a guest already; start it anew/),
  };
  expect(() => sink.forget(5, 1)).toThrow(expect.objectContaining(late));
  // It stood still since.
  await sink.load(guest.state);
  const other = Uint8Array.from(guest.state);
  other[other.length - 10]! ^= 1;
  await expect(sink.load(other)).rejects.toMatchObject(late);
  await expect(sink.commit()).rejects.toMatchObject({ code: 'INTERNAL' });
  expect(() => sink.zero(guest.pages, 1)).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
});

it('a QEMU that does not take what comes makes it wait', async ({ skip }) => {
  needsQemu(skip);
  const guest = await small();
  const qemu = await waiting();
  const sink = await opened(qemu.path, guest.shape);
  expect(sink.isBusy).toBe(false);
  qemu.process.kill('SIGSTOP');
  let times = 0;
  const free = new Promise<void>((resolve) => {
    sink.onFree = () => {
      times++;
      resolve();
    };
  });
  let written = 0;
  for (; !sink.isBusy && written < 10_000; written++) sink.write(written % 16, JUNK, 0, 4096);
  expect(written * 4096).toBeGreaterThan(8 * MIB);
  expect(written * 4096).toBeLessThan(9 * MIB);
  qemu.process.kill('SIGCONT');
  await free;
  expect(sink.isBusy).toBe(false);
  expect(times).toBe(1);
});

it('a guest that may not run here, for somebody else has its disk, has surely not run', async ({ skip }) => {
  needsQemu(skip);
  const disk = join(tempDir(), 'disk');
  writeFileSync(disk, new Uint8Array(MIB));
  const machine = [...SMALL, '-drive', `file=${disk},format=raw,if=ide`];
  const guest = new Standing(parse(await record(false, machine), new Drained()));
  const qemu = await waiting(machine);
  const sink = await opened(qemu.path, guest.shape);
  bringAll(guest, sink);
  await startQemu([], machine);
  await sink.load(guest.state);
  await expect(sink.run()).rejects.toThrow(/refuses cont: .*lock/);
  expect(await sink.mayHaveRun()).toBe(false);
  await sink.discard();
  await until(async () => isOver(qemu));
});
