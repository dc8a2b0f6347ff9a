// Peers, room and images that are not there: a clear error, the right exit code, nothing partial taken for whole, nothing left behind, and the VM
// where it is safe.
import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Abdm, cleanUp, freeAddress, intermediates } from './processes.js';
import { keptBytes, Scene } from './scene.js';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(cleanUp);

describe('a peer that is not there', () => {
  test('as the destination: the source names it and says what to check', async () => {
    const to = await freeAddress();
    const { code, summary, stderr } = await scene.startEject(to, '--direct').done;
    expect(code).toBe(2);
    expect(summary).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_UNREACHABLE' } });
    expect(summary.reason.message).toContain(to);
    expect(summary.reason.message).toContain('is it started');
    expect(stderr).toBe('');
  });

  test('as an intermediate: it is passed over', async () => {
    const { list } = await intermediates(1);
    const missing = await freeAddress();
    const { destination, to } = await scene.startMerge();
    const [source, merged] = await Promise.all([
      scene.startEject(to, '--intermediates', `${list},${missing}`).done,
      destination.done,
    ]);
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
  });

  test('as every intermediate: both ends say so', async () => {
    const missing = await freeAddress();
    const { destination, to } = await scene.startMerge();
    const [source, merged] = await Promise.all([
      scene.startEject(to, '--intermediates', missing).done,
      destination.done,
    ]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    expect(source.summary.reason.message).toContain(missing);
    expect(merged.summary.reason.message).toContain(missing);
    scene.expectNoOutput();
  });

  test('as somebody else: an intermediate is no destination, a destination no intermediate', async () => {
    const { list } = await intermediates(1);
    const wrong = await scene.startEject(list, '--direct').done;
    expect(wrong.code).toBe(2);
    expect(wrong.summary.outcome).toBe('aborted');
    const { destination, to } = await scene.startMerge();
    const [source, merged] = await Promise.all([scene.startEject(to, '--intermediates', to).done, destination.done]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    scene.expectNoOutput();
  });
});

describe('intermediates without room', () => {
  test('abort the migration if none has any, and are left empty', async () => {
    const { list } = await intermediates(2, '4M');
    const how = ['--park', '--vm-key', join(scene.dir, 'key'), '--intermediates', list];
    const source = await new Abdm(['eject', `a=file:${scene.image}`, ...how]).done;
    expect(source.code).toBe(2);
    expect(source.summary.reason).toMatchObject({ code: 'NO_ROOM', message: expect.stringMatching(/more --memory/) });
    expect(source.summary.exitTimeMs).toBeNull();
    scene.expectNoOutput();
    for (const address of list.split(',')) expect(await keptBytes(address, 4 * 2 ** 20)).toBe(0);
  });

  test('are passed over where another one has some', async () => {
    const small = await intermediates(1, '2M');
    const large = await intermediates(1, '64M');
    const { destination, to } = await scene.startMerge();
    const how = ['--intermediates', `${small.list},${large.list}`];
    const [source, merged] = await Promise.all([scene.startEject(to, ...how).done, destination.done]);
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
    const share = source.summary.nodes.find(({ address }: { address: string }) => address === small.list);
    expect(share.bytes).toBeLessThan(2 * 2 ** 20);
  });
});

describe('an image that cannot be had', () => {
  test('is named, with what to do, before anybody is disturbed', async () => {
    const { destination, to } = await scene.startMerge();
    for (const [place, text] of [
      [`file:${join(scene.dir, 'nothing')}`, /nothing/],
      [`file:${scene.dir}`, /directory/],
      ['process:999999999', /999999999/],
      ['tape:7', /file:PATH/],
    ] as const) {
      const { code, events, stderr } = await new Abdm(['eject', `a=${place}`, '--to', to, '--direct']).done;
      expect(code).toBe(place.startsWith('tape') ? 1 : 2);
      expect(stderr).toMatch(text);
      expect(events.at(-1)).toMatchObject({ type: 'error' });
    }
    // The destination still waits, and takes what comes then.
    const [source, merged] = await Promise.all([scene.startEject(to, '--direct').done, destination.done]);
    expect([source.code, merged.code]).toEqual([0, 0]);
  });

  test.skipIf(process.platform !== 'linux')('any longer: a process that ends while it is moved', async () => {
    const script = "globalThis.b = require('crypto').randomBytes(60e6); console.log(1); setInterval(() => {}, 1000)";
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
      const { list } = await intermediates(1);
      const { destination, to } = await scene.startMerge();
      const how = ['--to', to, '--intermediates', list, '--rate', '8MB'];
      const source = new Abdm(['eject', `a=process:${child.pid}`, ...how]);
      await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
      child.kill('SIGKILL');
      const [left, merged] = await Promise.all([source.done, destination.done]);
      expect([left.code, merged.code]).toEqual([2, 2]);
      expect(left.summary.reason).toMatchObject({ code: 'IMAGE', message: expect.stringContaining(String(child.pid)) });
      expect(merged.summary.reason.message).toContain(String(child.pid));
      scene.expectNoOutput();
    } finally {
      child.kill('SIGKILL');
    }
  });

  test('or written: the source hears why, and keeps the VM', async () => {
    const merge = new Abdm(['merge', `a=file:${join(scene.dir, 'no', 'such', 'out')}`, '--listen', '127.0.0.1:0']);
    const [source, merged] = await Promise.all([scene.startEject(await merge.address(), '--direct').done, merge.done]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    expect(merged.summary.reason.code).toBe('IMAGE');
    expect(source.summary.reason.message).toContain('no/such');
  });

  test.skipIf(process.platform !== 'linux' || process.getuid?.() !== 0)(
    'or no longer written: a disk that fills',
    async () => {
      const disk = join(scene.dir, 'disk');
      execFileSync('mkdir', [disk]);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]);
      try {
        const { list } = await intermediates(2);
        const merge = new Abdm(['merge', `a=file:${join(disk, 'out')}`, '--listen', '127.0.0.1:0']);
        const how = ['--intermediates', list, '--rate', '8MB'];
        const [source, merged] = await Promise.all([scene.startEject(await merge.address(), ...how).done, merge.done]);
        expect([source.code, merged.code]).toEqual([2, 2]);
        expect(merged.summary.reason.code).toBe('IMAGE');
        // The source hears the reason itself, not what follows from it.
        expect(source.summary.reason.message).toContain(merged.summary.reason.message);
        expect(readdirSync(disk)).toEqual([]);
        for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
      } finally {
        execFileSync('umount', [disk]);
      }
      execFileSync('rmdir', [disk]);
    },
  );

  test('under names that the two ends do not share', async () => {
    const { destination, to } = await scene.startMerge();
    const source = new Abdm(['eject', `b=file:${scene.image}`, '--to', to, '--direct']);
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 1]);
    expect(merged.summary.reason.message).toMatch(/sends b.*expects a/);
    scene.expectNoOutput();
  });
});

describe('a command line that is wrong', () => {
  test('is refused with what would be right, exit code 1', async () => {
    const cases: [string[], RegExp][] = [
      [['eject', `a=file:${scene.image}`], /--to/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--park'], /--park/],
      [['eject', `a=file:${scene.image}`, '--park', '--direct'], /--direct needs a destination/],
      [['eject', `a=file:${scene.image}`, '--park', '--lease', 'long'], /90s/],
      [['eject', `a=file:${scene.image}`, '--park', '--lease', '99d'], /24d/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--lease', '2h'], /--park/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--vm-key', 'x'], /--park/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--replicas', '17'], /1 to 16/],
      [['eject', `a=file:${scene.image}`, '--park', '--vm-key', scene.image], /exists.*never overwritten/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--key', join(scene.dir, 'none')], /none/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--key', scene.image], /key/],
      [['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--tls-cert', scene.image], /certificate|--tls-key/],
      [
        ['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--direct', '--intermediates', '127.0.0.1:2'],
        /--direct/,
      ],
      [['eject', `a=file:${scene.image}`, `a=file:${scene.image}`, '--to', '127.0.0.1:1', '--direct'], /two images/],
      [['eject', scene.image, '--to', '127.0.0.1:1', '--direct'], /NAME=IMAGE/],
      [['eject', `a=file:${scene.image}`, '--to', 'nowhere', '--direct'], /HOST:PORT/],
      [['merge', 'a=process:1', '--listen', '127.0.0.1:0'], /cannot be written/],
      [['merge', `a=file:${scene.out}`], /--listen HOST:PORT, or --parked/],
      [['merge', `a=file:${scene.out}`, '--listen', '127.0.0.1:0', '--parked'], /--parked/],
      [['merge', `a=file:${scene.out}`, '--listen', '127.0.0.1:0', '--vm-key', 'x'], /--parked/],
      [['merge', `a=file:${scene.out}`, '--parked', '--vm-key', join(scene.dir, 'none')], /none cannot be read/],
      [['merge', `a=file:${scene.out}`, '--parked', '--vm-key', scene.image], /64 hexadecimal/],
      [['renew', 'a'], /--lease/],
      [['rate', 'a'], /bytes/],
      [['intermediate', '--listen', '127.0.0.1:0', '--memory', 'much'], /512M/],
      [['intermediate', '--listen', '127.0.0.1:0', '--memory', '1K'], /1 MiB/],
      [['fly'], /fly/],
    ];
    for (const [args, text] of cases) {
      const { code, events, stderr } = await new Abdm(args).done;
      expect([args.join(' '), code]).toEqual([args.join(' '), 1]);
      expect(stderr).toMatch(text);
      expect(events.at(-1)).toEqual({ type: 'error', code: 'USAGE', message: expect.stringMatching(text) });
    }
  });

  test('may come from variables', async () => {
    const node = new Abdm(['intermediate', '--memory', '16M'], { ABDM_LISTEN: '127.0.0.1:0' });
    expect(await node.address()).toMatch(/^127\.0\.0\.1:\d+$/);
  });
});
