// VMs that travel by way of stores that people already run, on real servers: bit for bit, with nothing of ours running in between, and nothing left behind.
import { randomFillSync } from 'node:crypto';
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Abdm, cleanUp, directory } from '../cli/processes.js';
import { type Server, Servers, has, itemsOf, keysOf } from './servers.js';

const PAGE = 4096;
const servers = new Servers();

afterEach(async () => {
  await cleanUp();
  await servers.end();
});

/** An image of random pages, a quarter of them zero and some of them twice. */
function writeImage(path: string, bytes: number): void {
  const image = randomFillSync(new Uint8Array(bytes));
  for (let at = 0; at < bytes; at += 4 * PAGE) image.fill(0, at, at + PAGE);
  image.copyWithin(bytes / 2, PAGE, bytes / 64);
  writeFileSync(path, image);
}

/** A store, what is left in it, and its servers. */
interface Store {
  readonly urls: string[];
  left(): Promise<number>;
  readonly servers: Server[];
}

const KINDS: Record<string, { needs: string; start(): Promise<Store> }> = {
  'Valkey or Redis': {
    needs: 'redis-server',
    start: async () => {
      const server = await servers.redis();
      return { urls: [`valkey://127.0.0.1:${server.port}`], left: async () => keysOf(server.port), servers: [server] };
    },
  },
  'a cluster of them': {
    needs: 'redis-server',
    start: async () => {
      const all = await servers.cluster();
      const left = async () => all.reduce((sum, { port }) => sum + keysOf(port), 0);
      return { urls: [`redis://127.0.0.1:${all[0]!.port}`], left, servers: all };
    },
  },
  memcached: {
    needs: 'memcached',
    start: async () => {
      const all = [];
      for (let i = 0; i < 3; i++) all.push(await servers.memcached('-M', '-m', '1024'));
      const left = async () => {
        const items = await Promise.all(all.map(({ port }) => itemsOf(port)));
        return items.reduce((sum, one) => sum + one, 0);
      };
      return { urls: [`memcached://${all.map(({ port }) => `127.0.0.1:${port}`).join()}`], left, servers: all };
    },
  },
};

/** A VM's image, where it goes, and how. */
class Journey {
  readonly dir = directory();
  readonly image = join(this.dir, 'in');
  readonly out = join(directory(), 'out');
  readonly vmKey = join(this.dir, 'a.vmkey');
  readonly store: Store;

  constructor(store: Store, bytes: number) {
    this.store = store;
    writeImage(this.image, bytes);
  }

  get stores(): string[] {
    return this.store.urls.flatMap((url) => ['--store', url]);
  }

  park(...args: string[]): Abdm {
    return new Abdm(['eject', `a=file:${this.image}`, '--park', '--vm-key', this.vmKey, ...this.stores, ...args]);
  }

  take(...args: string[]): Abdm {
    return new Abdm(['merge', `a=file:${this.out}`, '--parked', '--vm-key', this.vmKey, ...this.stores, ...args]);
  }

  async expectArrived(): Promise<void> {
    const other = createReadStream(this.out, { highWaterMark: 2 ** 24 });
    const image = readFileSync(this.image);
    let at = 0;
    for await (const chunk of other) {
      expect(Buffer.compare(chunk, image.subarray(at, at + chunk.length))).toBe(0);
      at += chunk.length;
    }
    expect(at).toBe(image.length);
  }
}

describe.each(Object.entries(KINDS))('%s', (_kind, { needs, start }) => {
  test.skipIf(!has(needs))('keeps 512 MiB that are parked, until somebody takes them in', { timeout: 240_000 }, async () => {
    const journey = new Journey(await start(), 512 * 2 ** 20);
    const parked = await journey.park().done;
    expect(parked.summary).toMatchObject({ outcome: 'completed', reason: null });
    expect(await journey.store.left()).toBeGreaterThan(1500);
    const taken = await journey.take().done;
    expect(taken.summary).toMatchObject({ outcome: 'completed', reason: null });
    await journey.expectArrived();
    expect(await journey.store.left()).toBe(0);
  });
});
