// Processes that die, connections that are cut, nodes that lie, strangers: whoever breaks it, nothing wrong is merged, nothing is left behind, and the VM
// is where it is safe.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MANIFEST_ID } from '#abdm/host/mam/catalog.js';
import { loadSecurity, OPEN } from '#abdm/host/wire/security.js';
import { OddNode } from '../destination/world.js';
import { Abdm, cleanUp, clusterKey, freeAddress, intermediates } from './processes.js';
import { keptBytes, Scene } from './scene.js';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(cleanUp);

describe('a process that dies', () => {
  test('the source, half way: the destination aborts, the intermediates are left empty', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await scene.startMerge();
    const source = scene.startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await source.stop('SIGKILL');
    const merged = await destination.done;
    expect(merged.code).toBe(2);
    expect(merged.summary).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_GONE' } });
    scene.expectNoOutput();
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
  });

  test('the destination, half way: the source leaves all the same, and the same command completes it', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await scene.startMerge();
    const source = scene.startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await destination.stop('SIGKILL');
    const again = await scene.startMerge();
    const [left, merged] = await Promise.all([source.done, again.destination.done]);
    expect([left.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
  });

  test.each([
    ['without a key', false],
    ['with a key', true],
  ])('the destination, after the source has left, %s: the same command completes it', async (_, secured) => {
    const env: Record<string, string> = secured ? { ABDM_KEY: clusterKey() } : {};
    const { list } = await intermediates(2, '256M', env);
    const to = await freeAddress();
    const merge = () => new Abdm(['merge', `a=file:${scene.out}`, '--listen', to, '--rate', '4MB'], env);
    const first = merge();
    await first.address();
    const how = ['--to', to, '--intermediates', list, '--replicas', '2'];
    expect((await new Abdm(['eject', `a=file:${scene.image}`, ...how], env).done).code).toBe(0);
    await first.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await first.stop('SIGKILL');
    expect(readdirSync(scene.dir).sort()).toEqual(['in', 'out.abdm', 'out.partial']);
    const merged = await merge().done;
    expect(merged.summary?.reason ?? null).toBeNull();
    expect(merged.code).toBe(0);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
    expect(readdirSync(scene.dir).sort()).toEqual(['in', 'out']);
    const security = secured ? loadSecurity({ keyFile: env.ABDM_KEY! }) : OPEN;
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20, security)).toBe(0);
  });

  test('the destination that is told to end after the source has left: recoverable, by the same command', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await scene.startMerge('--rate', '2MB');
    expect((await scene.startEject(to, '--intermediates', list).done).code).toBe(0);
    await destination.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    const paused = await destination.stop('SIGTERM');
    expect(paused.code).toBe(3);
    expect(paused.summary).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'CANCELLED' } });
    const again = await scene.startMerge();
    const merged = await again.destination.done;
    expect(merged.summary?.reason ?? null).toBeNull();
    expect(merged.code).toBe(0);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20)).toBe(0);
  });

  test('the destination, before the exit: the source finds the next one at the same address', async () => {
    const { list } = await intermediates(2);
    const to = await freeAddress();
    const merge = () => new Abdm(['merge', `a=file:${scene.out}`, '--listen', to]);
    const first = merge();
    await first.address();
    const source = scene.startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, mergedBytes }) => type === 'progress' && mergedBytes > 1e6);
    await first.stop('SIGKILL');
    const second = merge();
    await source.event(
      ({ type, doneBytes, mergedBytes }) => type === 'progress' && doneBytes > 8e6 && mergedBytes > 4e6,
    );
    const [left, merged] = await Promise.all([source.done, second.done]);
    expect([left.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
  });

  test('an intermediate, half way: what it had is divided again', async () => {
    const { nodes, list } = await intermediates(2);
    const { destination, to } = await scene.startMerge();
    const source = scene.startEject(to, '--intermediates', list, '--rate', '4MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await nodes[0]!.stop('SIGKILL');
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
    expect(await keptBytes(list.split(',')[1]!, 256 * 2 ** 20)).toBe(0);
  });

  test('an intermediate, after the source has left: the destination says which pages are lost', async () => {
    const { nodes, list } = await intermediates(2);
    const { destination, to } = await scene.startMerge('--rate', '3MB');
    expect((await scene.startEject(to, '--intermediates', list).done).code).toBe(0);
    await nodes[0]!.stop('SIGKILL');
    const merged = await destination.done;
    expect(merged.code).toBe(4);
    expect(merged.summary.reason).toMatchObject({
      code: 'FRAME_LOST',
      message: expect.stringMatching(/\d+ pages are lost .*: a \d+-\d+/),
    });
    const [{ vm, ranges }] = merged.summary.lost;
    expect([vm, ranges.length > 0]).toEqual(['a', true]);
    // All else is there.
    const partial = readFileSync(`${scene.out}.partial`);
    const image = readFileSync(scene.image);
    for (const [first, last] of ranges) image.fill(0, first * 4096, (last + 1) * 4096);
    expect(partial.equals(image)).toBe(true);
  });
});

describe('a migration that is cancelled', () => {
  test.skipIf(process.platform !== 'linux')(
    'at the source leaves nothing behind, and lets the process go on',
    async () => {
      const script =
        "globalThis.b = require('crypto').randomBytes(60e6); console.log(1); setInterval(() => console.log(1), 20)";
      const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
      try {
        await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
        const { list } = await intermediates(1);
        const { destination, to } = await scene.startMerge();
        const how = ['--to', to, '--intermediates', list, '--rate', '8MB'];
        const source = new Abdm(['eject', `a=process:${child.pid}`, ...how]);
        await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
        expect(readFileSync(`/proc/${child.pid}/stat`, 'utf8')).toMatch(/\) T /);
        const left = await source.stop('SIGINT');
        expect(left.code).toBe(2);
        expect(left.summary.reason).toMatchObject({ code: 'CANCELLED', message: 'cancelled by SIGINT' });
        expect((await destination.done).code).toBe(2);
        scene.expectNoOutput();
        expect(await keptBytes(list, 256 * 2 ** 20)).toBe(0);
        await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
      } finally {
        child.kill('SIGKILL');
      }
    },
  );

  test('at the destination, before anybody came, just ends', async () => {
    const { destination } = await scene.startMerge();
    expect(await destination.stop('SIGTERM')).toMatchObject({ code: 2, summary: { reason: { code: 'CANCELLED' } } });
    scene.expectNoOutput();
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
    const { destination, to } = await scene.startMerge('--rate', '8MB');
    expect((await scene.startEject(to, '--intermediates', between.address).done).code).toBe(0);
    for (let i = 0; i < 3; i++) {
      await new Promise((resolve) => setTimeout(resolve, 150));
      between.cut();
    }
    const merged = await destination.done;
    between.close();
    expect(merged.summary?.reason ?? null).toBeNull();
    expect(merged.code).toBe(0);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
  });

  test('between source and destination, in a direct migration, aborts it', async () => {
    const { destination, to } = await scene.startMerge('--rate', '4MB');
    const between = await proxy(to);
    const source = scene.startEject(between.address, '--direct');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    between.cut();
    const [left, merged] = await Promise.all([source.done, destination.done]);
    between.close();
    expect([left.code, merged.code]).toEqual([2, 2]);
    scene.expectNoOutput();
  });
});

/** A node that keeps frames, and gives them back changed. */
async function liar(change: (frame: Uint8Array) => void): Promise<OddNode> {
  const node = await OddNode.start();
  node.change = (id, frame) => {
    if (id < MANIFEST_ID) change(frame);
  };
  return node;
}

describe('a node that returns something else than it was given', () => {
  test('always: what it has is lost, and nothing wrong is merged', async () => {
    const node = await liar((frame) => {
      frame[frame.length >> 1]! ^= 4;
    });
    const { destination, to } = await scene.startMerge('--rate', '8MB');
    const source = await scene.startEject(to, '--intermediates', node.address).done;
    const merged = await destination.done;
    // Whoever is first: the source may still be there, and keep the VM.
    if (source.code === 0) {
      expect(merged.code).toBe(4);
      expect(merged.summary.reason).toMatchObject({ code: 'FRAME_LOST', message: expect.stringMatching(/checksum/) });
    } else {
      expect([source.code, merged.code]).toEqual([2, 2]);
      scene.expectNoOutput();
    }
  });

  test('now and then: it is asked again', async () => {
    let times = 0;
    const node = await liar((frame) => {
      if (++times % 5 === 0) frame[100]! ^= 4;
    });
    const { destination, to } = await scene.startMerge('--rate', '16MB');
    const [source, merged] = await Promise.all([
      scene.startEject(to, '--intermediates', node.address).done,
      destination.done,
    ]);
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(times).toBeGreaterThan(5);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
  });
});

describe('strangers', () => {
  test('who send rubbish to any port do not disturb a migration', async () => {
    const { list } = await intermediates(2);
    const { destination, to } = await scene.startMerge('--rate', '16MB');
    const sockets = [to, ...list.split(',')].flatMap((address) => {
      const [host, port] = address.split(':');
      return ['GET / HTTP/1.1\r\n\r\n', Buffer.alloc(100_000, 1), ''].map((rubbish) => {
        const socket = netConnect(Number(port), host).on('error', () => {});
        socket.write(rubbish);
        return socket;
      });
    });
    const [source, merged] = await Promise.all([scene.startEject(to, '--intermediates', list).done, destination.done]);
    for (const socket of sockets) socket.destroy();
    expect([source.code, merged.code]).toEqual([0, 0]);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
  });

  test('nor does a second source: it is told that another migration is under way', async () => {
    const { destination, to } = await scene.startMerge('--rate', '16MB');
    const first = scene.startEject(to, '--direct');
    await first.event(({ type }) => type === 'progress');
    const second = await scene.startEject(to, '--direct').done;
    expect(second.code).toBe(2);
    expect(second.summary.reason.message).toContain('another migration');
    expect([(await first.done).code, (await destination.done).code]).toEqual([0, 0]);
  });
});
