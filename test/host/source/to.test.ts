// A source with a destination: frames go straight there as long as it keeps up, and whatever happens to it, the exit does not wait for it.
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { Destination, type DestinationOptions } from '#abdm/host/destination/destination.js';
import { FileSource } from '#abdm/host/image/file.js';
import { FileSink } from '#abdm/host/image/filesink.js';
import {
  type Intermediate,
  type IntermediateOptions,
  startIntermediate,
} from '#abdm/host/intermediate/intermediate.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Ejection, type EjectOptions } from '#abdm/host/source/source.js';
import type { Security } from '#abdm/host/wire/security.js';
import { seeded } from '../../engine.js';
import { seededPages } from '../../pages.js';
import { Abdm, cleanUp, directory } from '../cli/processes.js';
import { until } from '../wire/pair.js';
import { readBack } from './reader.js';

afterEach(cleanUp);

const vmKey = () => new Uint8Array(randomBytes(32));
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

async function node(options: Partial<IntermediateOptions> = {}): Promise<Intermediate> {
  const started = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 256 * 2 ** 20, ...options });
  onTestFinished(() => started.close());
  return started;
}
const nodes = (count: number, options: Partial<IntermediateOptions> = {}) =>
  Promise.all(Array.from({ length: count }, () => node(options)));

/** An image, a destination in this process, and what to eject it with. */
async function scene(pages = 4096, destination: Partial<DestinationOptions> = {}, kinds?: string[]) {
  const dir = directory();
  const path = join(dir, 'in');
  writeFileSync(path, seededPages(pages, pages, kinds));
  const images = [{ name: 'a', open: ({ bytes }: { bytes: number }) => new FileSink(join(dir, 'out'), bytes) }];
  const merging = await Destination.start({ listen: '127.0.0.1:0', images, ...destination });
  onTestFinished(async () => {
    merging.cancel();
    await merging.done;
  });
  return {
    merging,
    path,
    eject: (options: Omit<EjectOptions, 'vms'>) => {
      return new Ejection({ vms: [{ name: 'a', image: new FileSource(path) }], to: merging.address!, ...options });
    },
    expectSame: () => expect(same(readFileSync(join(dir, 'out')), readFileSync(path))).toBe(true),
  };
}

const addresses = (of: readonly Intermediate[]) => of.map(({ address }) => address);
const keptFrames = (of: readonly Intermediate[]) => of.reduce((sum, one) => sum + one.status().frames, 0);

describe('with nodes and a destination', () => {
  test('that is fast, it gets most frames itself', async () => {
    const keepers = await nodes(3);
    const { merging, eject, expectSame } = await scene();
    const source = await eject({ intermediates: addresses(keepers), rateBytesPerS: 40e6 }).run();
    const merged = await merging.done;
    expect([source.outcome, merged.outcome]).toEqual(['completed', 'completed']);
    expectSame();
    const direct = source.nodes.find(({ address }) => address === merging.address)!;
    const others = source.nodes.filter(({ address }) => address !== merging.address);
    expect(direct.frames).toBeGreaterThan(others.reduce((sum, { frames }) => sum + frames, 0));
    expect(keptFrames(keepers)).toBe(0);
  });

  test('that is slow, the nodes get what it does not take, and the exit does not wait for it', async () => {
    const keepers = await nodes(3);
    const { merging, eject, expectSame } = await scene(4096, { rateBytesPerS: 4e6 }, ['random']);
    const source = await eject({ intermediates: addresses(keepers) }).run();
    expect(source.outcome).toBe('completed');
    // 16 MiB at 4 MB a second are 4 s.
    expect(source.exitTimeMs).toBeLessThan(3_000);
    expect(merging.status().mergedBytes).toBeLessThan(12e6);
    const merged = await merging.done;
    expect(merged.outcome).toBe('completed');
    expectSame();
    expect(keptFrames(keepers)).toBe(0);
  });

  test.each([1, 2])('and a key: frames are sealed, %i copies of each', async (replicas) => {
    const security: Security = { clusterKey: new Uint8Array(randomBytes(32)), tls: null };
    const keepers = await nodes(3, { security });
    const { merging, eject, expectSame } = await scene(2048, { security, rateBytesPerS: 30e6 });
    const source = await eject({ intermediates: addresses(keepers), security, replicas }).run();
    const merged = await merging.done;
    expect([source.reason, merged.reason]).toEqual([null, null]);
    expectSame();
  });

  test('a node without room is passed over, and one that cannot be reached is told of', async () => {
    const keepers = [await node({ memoryBytes: 2 ** 20 }), await node()];
    const away = await node();
    await away.close();
    const { merging, eject, expectSame } = await scene(4096, { rateBytesPerS: 10e6 }, ['random']);
    const ejection = eject({ intermediates: [...addresses(keepers), away.address] });
    const running = ejection.run();
    await until(() => ejection.status().phase === 'dividing');
    expect(ejection.status().warnings!.join()).toContain(away.address);
    expect((await running).outcome).toBe('completed');
    expect((await merging.done).outcome).toBe('completed');
    expectSame();
  });

  test('a node that joins is used', async () => {
    const places = [`127.0.0.1:${await freePort()}`];
    const first = await node({ announcements: places });
    const { merging, eject, expectSame } = await scene(8192, { rateBytesPerS: 2e6 }, ['random']);
    const ejection = eject({ intermediates: 'announced', announcements: places, rateBytesPerS: 8e6 });
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 2e6);
    const second = await node({ announcements: places });
    const joinedAt = performance.now();
    await until(() => second.status().frames > 0);
    expect(performance.now() - joinedAt).toBeLessThan(2_000);
    merging.setRate(null);
    expect((await running).outcome).toBe('completed');
    expect((await merging.done).outcome).toBe('completed');
    expectSame();
    expect(keptFrames([first, second])).toBe(0);
  });
});

describe('before the exit', () => {
  test('a destination that is killed: all of it waits at the nodes, what only it had too', async () => {
    const keepers = await nodes(2);
    const dir = directory();
    const merge = new Abdm(['merge', `a=file:${join(dir, 'out')}`, '--listen', '127.0.0.1:0']);
    const { path, eject } = await scene(4096, {}, ['random', 'duplicate']);
    const key = vmKey();
    const ejection = eject({
      to: await merge.address(),
      intermediates: addresses(keepers),
      vmKey: key,
      rateBytesPerS: 8e6,
    });
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 4e6);
    await merge.stop('SIGKILL');
    const source = await running;
    expect(source).toMatchObject({ outcome: 'completed', reason: null });
    expect(source.resent).toBeGreaterThan(5);
    const read = await readBack(addresses(keepers), 'a', key);
    expect(read.direct).toEqual([]);
    expect(same(read.images[0]!, readFileSync(path))).toBe(true);
  });

  test('a destination that is stopped: nobody waits for it, and what only it had is at the nodes too', async () => {
    const keepers = await nodes(2);
    const dir = directory();
    const merge = new Abdm(['merge', `a=file:${join(dir, 'out')}`, '--listen', '127.0.0.1:0']);
    const { path, eject } = await scene(4096, {}, ['random', 'duplicate']);
    const key = vmKey();
    const to = await merge.address();
    const ejection = eject({ to, intermediates: addresses(keepers), vmKey: key, rateBytesPerS: 8e6 });
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 2e6);
    merge.child.kill('SIGSTOP');
    try {
      const source = await running;
      expect(source).toMatchObject({ outcome: 'completed', reason: null });
      // What it has said that it merged is counted on for as long as it might still be there.
      expect(source.exitTimeMs).toBeLessThan(12_000);
      const read = await readBack(addresses(keepers), 'a', key);
      expect(read.direct).toEqual([]);
      expect(same(read.images[0]!, readFileSync(path))).toBe(true);
    } finally {
      merge.child.kill('SIGCONT');
    }
    const merged = await merge.done;
    expect(merged.code).toBe(0);
    expect(same(readFileSync(join(dir, 'out')), readFileSync(path))).toBe(true);
  });

  test('a control channel that is cut: the source comes back and says everything again', async () => {
    const keepers = await nodes(2);
    const { merging, eject, expectSame } = await scene(4096, { rateBytesPerS: 6e6 }, ['random', 'duplicate']);
    const between = await proxy(merging.address!);
    const ejection = eject({ to: between.address, intermediates: addresses(keepers), rateBytesPerS: 8e6 });
    const running = ejection.run();
    for (const bytes of [1e6, 3e6, 6e6]) {
      await until(() => ejection.status().wireBytes > bytes);
      between.cut();
      await until(() => ejection.status().warnings!.length === 0, 5_000);
    }
    const source = await running;
    expect(source).toMatchObject({ outcome: 'completed', reason: null });
    expect((await merging.done).reason).toBeNull();
    expectSame();
    expect(keptFrames(keepers)).toBe(0);
  });

  test('a destination that gives up: aborted, and nothing stays', async () => {
    const keepers = await nodes(2);
    const { merging, eject } = await scene(4096, { rateBytesPerS: 6e6 });
    const ejection = eject({ intermediates: addresses(keepers), rateBytesPerS: 8e6 });
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 2e6);
    merging.cancel('enough');
    const source = await running;
    expect(source).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_ABORTED', message: /enough/ } });
    await until(() => keepers.every((keeper) => keeper.status().migrations.length === 0), 2_000);
  });

  test('cancelled at any moment: nothing stays at the nodes, and the destination is told', {
    timeout: 120_000,
  }, async () => {
    const random = seeded(11);
    const keepers = await nodes(3);
    for (let i = 0; i < 12; i++) {
      const { merging, eject } = await scene(2048, { rateBytesPerS: 8e6 }, ['random']);
      const ejection = eject({ intermediates: addresses(keepers), replicas: 1 + (i % 2), rateBytesPerS: 12e6 });
      const running = ejection.run();
      const after = random() % 6e6;
      // The first few while it is still connecting.
      if (i >= 3) await until(() => ejection.status().wireBytes > after);
      else await new Promise((resolve) => setTimeout(resolve, random() % 60));
      expect(ejection.cancel('enough')).toHaveLength(1);
      const cancelledAt = performance.now();
      const source = await running;
      expect(source).toMatchObject({ outcome: 'aborted', reason: { code: 'CANCELLED', message: 'enough' } });
      await until(() => keptFrames(keepers) === 0, 2_000);
      expect(performance.now() - cancelledAt).toBeLessThan(2_500);
      merging.cancel();
      expect((await merging.done).outcome).toBe('aborted');
    }
    for (const keeper of keepers) expect(await MamNode.lookup(keeper.address)).toEqual([]);
  });
});

describe('what cannot be', () => {
  test('is refused before anybody is disturbed', async () => {
    const { path } = await scene(1);
    const vms = [{ name: 'a', image: new FileSource(path) }];
    const cases: [Partial<EjectOptions>, RegExp][] = [
      [{}, /destination, or is parked/],
      [{ to: '127.0.0.1:1', park: { leaseMs: 1000 }, vmKey: vmKey() }, /one of the two/],
      [{ park: { leaseMs: 1000 } }, /key of its own/],
      [{ park: { leaseMs: 1000 }, vmKey: new Uint8Array(31) }, /31 bytes/],
      [{ to: '127.0.0.1:1', replicas: 3, intermediates: ['127.0.0.1:1', '127.0.0.1:2'] }, /3 copies.*2 are named/],
      [{ to: '127.0.0.1:1', replicas: 17 }, /replicas/],
      [{ to: '127.0.0.1:1', direct: true, intermediates: ['127.0.0.1:1'] }, /no nodes/],
    ];
    for (const [options, text] of cases) {
      expect(() => new Ejection({ vms, intermediates: [], ...options })).toThrow(
        expect.objectContaining({ code: 'USAGE', message: expect.stringMatching(text) }),
      );
    }
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
  onTestFinished(() => {
    server.close();
    cut();
  });
  return { address: `127.0.0.1:${(server.address() as { port: number }).port}`, cut };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
