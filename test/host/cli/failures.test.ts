// Whatever goes wrong: a clear error, the right exit code, nothing partial taken for whole, nothing left behind, and the VM where it is safe.
import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MamNode } from '#abdm/host/mam/node.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { listen } from '#abdm/host/wire/listen.js';
import { encodeU64, MessageType } from '#abdm/host/wire/messages.js';
import { seededPages } from '../../pages.js';
import { Abdm, cleanUp, directory, intermediates } from './processes.js';

let dir = '';
let image = '';

beforeEach(() => {
  dir = directory();
  image = join(dir, 'in');
  // 16 MiB that neither compress nor repeat.
  writeFileSync(image, seededPages(41, 4096, ['random']));
});
afterEach(cleanUp);

async function startMerge(...args: string[]): Promise<{ destination: Abdm; to: string }> {
  const destination = new Abdm(['merge', `a=file:${join(dir, 'out')}`, '--listen', '127.0.0.1:0', ...args]);
  return { destination, to: await destination.address() };
}

function startEject(to: string, ...args: string[]): Abdm {
  return new Abdm(['eject', `a=file:${image}`, '--to', to, ...args]);
}

/** Nothing was made of a migration that failed. */
function expectNoOutput(): void {
  expect(readdirSync(dir)).toEqual(['in']);
}

/** Bytes of frames that an intermediate keeps. */
async function keptBytes(address: string, memoryBytes: number): Promise<number> {
  const node = await MamNode.connect(address, 'f'.repeat(32), 'source');
  node.end();
  return memoryBytes - node.freeBytes;
}

/** A port that nobody listens on. */
async function absent(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

describe('a peer that is not there', () => {
  test('as the destination: the source names it and says what to check', async () => {
    const to = await absent();
    const { code, summary, stderr } = await startEject(to, '--direct').done;
    expect(code).toBe(2);
    expect(summary).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_UNREACHABLE' } });
    expect(summary.reason.message).toContain(to);
    expect(summary.reason.message).toContain('is it started');
    expect(stderr).toBe('');
  });

  test('as an intermediate: both ends say so', async () => {
    const { list } = await intermediates(1);
    const missing = await absent();
    const { destination, to } = await startMerge();
    const [source, merged] = await Promise.all([
      startEject(to, '--intermediates', `${list},${missing}`).done,
      destination.done,
    ]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    expect(source.summary.reason.message).toContain(missing);
    expect(merged.summary.reason.message).toContain(missing);
    expectNoOutput();
  });

  test('as somebody else: an intermediate is no destination, a destination no intermediate', async () => {
    const { list } = await intermediates(1);
    const wrong = await startEject(list, '--direct').done;
    expect(wrong.code).toBe(2);
    expect(wrong.summary.outcome).toBe('aborted');
    const { destination, to } = await startMerge();
    const [source, merged] = await Promise.all([startEject(to, '--intermediates', to).done, destination.done]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    expectNoOutput();
  });
});

describe('intermediates without room', () => {
  test('abort the migration if none has any, and are left empty', async () => {
    const { list } = await intermediates(2, '4M');
    const { destination, to } = await startMerge();
    const [source, merged] = await Promise.all([startEject(to, '--intermediates', list).done, destination.done]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    expect(source.summary.reason).toMatchObject({ code: 'NO_ROOM', message: expect.stringMatching(/more --memory/) });
    expect(source.summary.exitTimeMs).toBeNull();
    expect(merged.summary.reason).toMatchObject({
      code: 'PEER_ABORTED',
      message: expect.stringMatching(/no node has room/),
    });
    expectNoOutput();
    for (const address of list.split(',')) expect(await keptBytes(address, 4 * 2 ** 20)).toBe(0);
  });

  test('are passed over where another one has some', async () => {
    const small = await intermediates(1, '2M');
    const large = await intermediates(1, '64M');
    const { destination, to } = await startMerge();
    const how = ['--intermediates', `${small.list},${large.list}`];
    const [source, merged] = await Promise.all([startEject(to, ...how).done, destination.done]);
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(join(dir, 'out')).equals(readFileSync(image))).toBe(true);
    expect(source.summary.nodes[0].bytes).toBeLessThan(2 * 2 ** 20);
  });
});

describe('an image that cannot be had', () => {
  test('is named, with what to do, before anybody is disturbed', async () => {
    const { destination, to } = await startMerge();
    for (const [place, text] of [
      [`file:${join(dir, 'nothing')}`, /nothing/],
      [`file:${dir}`, /directory/],
      ['process:999999999', /999999999/],
      ['tape:7', /file:PATH/],
    ] as const) {
      const { code, events, stderr } = await new Abdm(['eject', `a=${place}`, '--to', to, '--direct']).done;
      expect(code).toBe(place.startsWith('tape') ? 1 : 2);
      expect(stderr).toMatch(text);
      expect(events.at(-1)).toMatchObject({ type: 'error' });
    }
    // The destination still waits, and takes what comes then.
    const [source, merged] = await Promise.all([startEject(to, '--direct').done, destination.done]);
    expect([source.code, merged.code]).toEqual([0, 0]);
  });

  test.skipIf(process.platform !== 'linux')('any longer: a process that ends while it is moved', async () => {
    const script = "globalThis.b = require('crypto').randomBytes(60e6); console.log(1); setInterval(() => {}, 1000)";
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
      const { list } = await intermediates(1);
      const { destination, to } = await startMerge();
      const how = ['--to', to, '--intermediates', list, '--rate', '8MB'];
      const source = new Abdm(['eject', `a=process:${child.pid}`, ...how]);
      await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
      child.kill('SIGKILL');
      const [left, merged] = await Promise.all([source.done, destination.done]);
      expect([left.code, merged.code]).toEqual([2, 2]);
      expect(left.summary.reason).toMatchObject({ code: 'IMAGE', message: expect.stringContaining(String(child.pid)) });
      expect(merged.summary.reason.message).toContain(String(child.pid));
      expectNoOutput();
    } finally {
      child.kill('SIGKILL');
    }
  });

  test('or written: the source hears why, and keeps the VM', async () => {
    const merge = new Abdm(['merge', `a=file:${join(dir, 'no', 'such', 'out')}`, '--listen', '127.0.0.1:0']);
    const [source, merged] = await Promise.all([startEject(await merge.address(), '--direct').done, merge.done]);
    expect([source.code, merged.code]).toEqual([2, 2]);
    expect(merged.summary.reason.code).toBe('IMAGE');
    expect(source.summary.reason.message).toContain('no/such');
  });

  test.skipIf(process.platform !== 'linux' || process.getuid?.() !== 0)(
    'or no longer written: a disk that fills',
    async () => {
      const disk = join(dir, 'disk');
      execFileSync('mkdir', [disk]);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]);
      try {
        const { list } = await intermediates(2);
        const merge = new Abdm(['merge', `a=file:${join(disk, 'out')}`, '--listen', '127.0.0.1:0']);
        const how = ['--intermediates', list, '--rate', '8MB'];
        const [source, merged] = await Promise.all([startEject(await merge.address(), ...how).done, merge.done]);
        expect([source.code, merged.code]).toEqual([2, 2]);
        expect(merged.summary.reason.code).toBe('IMAGE');
        expect(readdirSync(disk)).toEqual([]);
        for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
      } finally {
        execFileSync('umount', [disk]);
      }
      execFileSync('rmdir', [disk]);
    },
  );

  test('under names that the two ends do not share', async () => {
    const { destination, to } = await startMerge();
    const source = new Abdm(['eject', `b=file:${image}`, '--to', to, '--direct']);
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 1]);
    expect(merged.summary.reason.message).toMatch(/sends b.*expects a/);
    expectNoOutput();
  });
});

describe('a process that dies', () => {
  test('the source, half way: the destination aborts, the intermediates are left empty', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await startMerge();
    const source = startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await source.stop('SIGKILL');
    const merged = await destination.done;
    expect(merged.code).toBe(2);
    expect(merged.summary).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_GONE' } });
    expectNoOutput();
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
  });

  test('the destination, half way: the source aborts, the intermediates are left empty', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await startMerge();
    const source = startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await destination.stop('SIGKILL');
    const left = await source.done;
    expect(left.code).toBe(2);
    expect(left.summary).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_GONE' } });
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
  });

  test('an intermediate, half way: the source keeps the VM', async () => {
    const { nodes, list } = await intermediates(2);
    const { destination, to } = await startMerge();
    const source = startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await nodes[0]!.stop('SIGKILL');
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 2]);
    expect(left.summary.reason.code).toMatch(/FRAME_LOST|PEER_ABORTED/);
    expectNoOutput();
    expect(await keptBytes(list.split(',')[1]!, 256 * 2 ** 20)).toBe(0);
  });

  test('an intermediate, after the source has left: the destination says how many pages are lost', async () => {
    const { nodes, list } = await intermediates(2);
    const { destination, to } = await startMerge('--rate', '3MB');
    expect((await startEject(to, '--intermediates', list).done).code).toBe(0);
    await nodes[0]!.stop('SIGKILL');
    const merged = await destination.done;
    expect(merged.code).toBe(4);
    expect(merged.summary.reason).toMatchObject({
      code: 'FRAME_LOST',
      message: expect.stringMatching(/\d+ pages are lost/),
    });
    expectNoOutput();
  });
});

describe('a migration that is cancelled', () => {
  test('at the source leaves nothing behind, and lets the process go on', async () => {
    const script =
      "globalThis.b = require('crypto').randomBytes(60e6); console.log(1); setInterval(() => console.log(1), 20)";
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
      const { list } = await intermediates(1);
      const { destination, to } = await startMerge();
      const how = ['--to', to, '--intermediates', list, '--rate', '8MB'];
      const source = new Abdm(['eject', `a=process:${child.pid}`, ...how]);
      await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
      expect(readFileSync(`/proc/${child.pid}/stat`, 'utf8')).toMatch(/\) T /);
      const left = await source.stop('SIGINT');
      expect(left.code).toBe(2);
      expect(left.summary.reason).toMatchObject({ code: 'CANCELLED', message: 'cancelled by SIGINT' });
      expect((await destination.done).code).toBe(2);
      expectNoOutput();
      expect(await keptBytes(list, 256 * 2 ** 20)).toBe(0);
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
    } finally {
      child.kill('SIGKILL');
    }
  });

  test('at the destination, before anybody came, just ends', async () => {
    const { destination } = await startMerge();
    expect(await destination.stop('SIGTERM')).toMatchObject({ code: 2, summary: { reason: { code: 'CANCELLED' } } });
    expectNoOutput();
  });
});

/** Forwards connections to `target`; `cut` breaks those that are open. */
async function proxy(target: string) {
  const open = new Set<Socket>();
  const [host, port] = target.split(':');
  const server = createServer((inner) => {
    const outer = netConnect(Number(port), host);
    for (const socket of [inner, outer]) {
      open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => open.delete(socket) && inner.destroy() && outer.destroy());
    }
    inner.pipe(outer).pipe(inner);
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  const close = () => {
    server.close();
    cut();
  };
  return { address: `127.0.0.1:${(server.address() as { port: number }).port}`, cut, close };
}

describe('a connection that is cut', () => {
  test('after the source has left is made anew: nothing is lost', async () => {
    const { list } = await intermediates(1);
    const between = await proxy(list);
    const { destination, to } = await startMerge('--rate', '8MB');
    expect((await startEject(to, '--intermediates', between.address).done).code).toBe(0);
    for (let i = 0; i < 3; i++) {
      await new Promise((resolve) => setTimeout(resolve, 150));
      between.cut();
    }
    const merged = await destination.done;
    between.close();
    expect(merged.summary?.reason ?? null).toBeNull();
    expect(merged.code).toBe(0);
    expect(readFileSync(join(dir, 'out')).equals(readFileSync(image))).toBe(true);
  });

  test('between source and destination, in a direct migration, aborts it', async () => {
    const { destination, to } = await startMerge('--rate', '4MB');
    const between = await proxy(to);
    const source = startEject(between.address, '--direct');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    between.cut();
    const [left, merged] = await Promise.all([source.done, destination.done]);
    between.close();
    expect([left.code, merged.code]).toEqual([2, 2]);
    expectNoOutput();
  });
});

/** A node that keeps frames, and gives them back changed. */
async function liar(change: (frame: Uint8Array) => void) {
  const kept = new Map<number, Uint8Array>();
  let served = 0;
  const server = await listen('127.0.0.1:0', () => ({
    onMessage({ type, id }, body, channel) {
      const room = { freeBytes: 1e9, memoryBytes: 1e9 };
      if (type === MessageType.HELLO) {
        channel.send(MessageType.WELCOME, 0, encodeJson({ protocol: 1, role: 'intermediate', ...room }));
      } else if (type === MessageType.PUT) {
        kept.set(id, body.slice());
        channel.send(MessageType.STORED, id, encodeU64(1e9));
      } else if (type === MessageType.GET) {
        const frame = kept.get(id)!.slice();
        served++;
        change(frame);
        channel.send(MessageType.FRAME, id, frame);
      } else channel.send(MessageType.DROPPED, 0, encodeJson({ frames: 0, bytes: 0 }));
    },
  }));
  const { host, port } = server.address;
  return { address: `${host}:${port}`, close: () => server.close(), served: () => served };
}

describe('a node that returns something else than it was given', () => {
  test('always: the migration fails at the destination, and nothing wrong is merged', async () => {
    const node = await liar((frame) => {
      frame[frame.length >> 1]! ^= 4;
    });
    const { destination, to } = await startMerge('--rate', '2MB');
    const source = await startEject(to, '--intermediates', node.address).done;
    const merged = await destination.done;
    await node.close();
    expect(source.code).toBe(0);
    expect(merged.code).toBe(4);
    expect(merged.summary.reason).toMatchObject({
      code: 'FRAME_CHECKSUM',
      message: expect.stringMatching(/damaged.*lost/),
    });
    expectNoOutput();
  });

  test('now and then: it is asked again', async () => {
    let times = 0;
    const node = await liar((frame) => {
      if (++times % 5 === 0) frame[100]! ^= 4;
    });
    const { destination, to } = await startMerge();
    const [source, merged] = await Promise.all([
      startEject(to, '--intermediates', node.address).done,
      destination.done,
    ]);
    await node.close();
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(node.served()).toBeGreaterThan(64);
    expect(readFileSync(join(dir, 'out')).equals(readFileSync(image))).toBe(true);
  });
});

describe('strangers', () => {
  test('who send rubbish to any port do not disturb a migration', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await startMerge('--rate', '16MB');
    const sockets = [to, ...list.split(',')].flatMap((address) => {
      const [host, port] = address.split(':');
      return ['GET / HTTP/1.1\r\n\r\n', Buffer.alloc(100_000, 1), ''].map((rubbish) => {
        const socket = netConnect(Number(port), host).on('error', () => {});
        socket.write(rubbish);
        return socket;
      });
    });
    const [source, merged] = await Promise.all([startEject(to, '--intermediates', list).done, destination.done]);
    for (const socket of sockets) socket.destroy();
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(join(dir, 'out')).equals(readFileSync(image))).toBe(true);
  });

  test('nor does a second source: it is told that another migration is under way', async () => {
    const { destination, to } = await startMerge('--rate', '16MB');
    const first = startEject(to, '--direct');
    await first.event(({ type }) => type === 'progress');
    const second = await startEject(to, '--direct').done;
    expect(second.code).toBe(2);
    expect(second.summary.reason.message).toContain('another migration');
    expect([(await first.done).code, (await destination.done).code]).toEqual([0, 0]);
  });
});

describe('a command line that is wrong', () => {
  test('is refused with what would be right, exit code 1', async () => {
    const cases: [string[], RegExp][] = [
      [['eject', `a=file:${image}`], /--to/],
      [['eject', `a=file:${image}`, '--to', '127.0.0.1:1'], /--direct/],
      [['eject', `a=file:${image}`, '--to', '127.0.0.1:1', '--direct', '--intermediates', '127.0.0.1:2'], /--direct/],
      [['eject', `a=file:${image}`, `a=file:${image}`, '--to', '127.0.0.1:1', '--direct'], /two images/],
      [['eject', image, '--to', '127.0.0.1:1', '--direct'], /NAME=IMAGE/],
      [['eject', `a=file:${image}`, '--to', 'nowhere', '--direct'], /HOST:PORT/],
      [['merge', 'a=process:1', '--listen', '127.0.0.1:0'], /cannot be written/],
      [['intermediate', '--listen', '127.0.0.1:0', '--memory', 'much'], /512M/],
      [['intermediate', '--listen', '127.0.0.1:0', '--memory', '1K'], /1 MiB/],
      [['fly'], /fly/],
    ];
    for (const [args, text] of cases) {
      const { code, stderr } = await new Abdm(args).done;
      expect([args.join(' '), code]).toEqual([args.join(' '), 1]);
      expect(stderr).toMatch(text);
    }
  });

  test('may come from variables', async () => {
    const node = new Abdm(['intermediate', '--memory', '16M'], { ABDM_LISTEN: '127.0.0.1:0' });
    expect(await node.address()).toMatch(/^127\.0\.0\.1:\d+$/);
  });
});
