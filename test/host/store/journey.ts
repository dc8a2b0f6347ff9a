// VMs that travel by way of stores: what the tests of that share.
import { randomFillSync } from 'node:crypto';
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { Abdm, directory } from '../cli/processes.js';
import { itemsOf, keysOf, type Server, type Servers } from './servers.js';

const PAGE = 4096;
export const MiB = 2 ** 20;

/** An image of random pages, a quarter of them zero and some of them twice. */
function writeImage(path: string, bytes: number): void {
  const image = randomFillSync(new Uint8Array(bytes));
  for (let at = 0; at < bytes; at += 4 * PAGE) image.fill(0, at, at + PAGE);
  image.copyWithin(bytes / 2, PAGE, bytes / 64);
  writeFileSync(path, image);
}

/** A store, what is left in it, and its servers. */
export interface Store {
  readonly urls: string[];
  left(): Promise<number>;
  readonly servers: Server[];
}

/** One server of Valkey or Redis. */
export async function valkey(servers: Servers, ...options: string[]): Promise<Store> {
  const server = await servers.redis(...options);
  return { urls: [`valkey://127.0.0.1:${server.port}`], left: async () => keysOf(server.port), servers: [server] };
}

/** Three primaries with a replica each. */
export async function cluster(servers: Servers): Promise<Store> {
  const all = await servers.cluster();
  const living = () => all.filter(({ process }) => process.exitCode === null && process.signalCode === null);
  const left = async () => living().reduce((sum, { port }) => sum + keysOf(port), 0);
  return { urls: [`redis://${all.map(({ port }) => `127.0.0.1:${port}`).join()}`], left, servers: all };
}

/** Three of them. */
export async function memcached(servers: Servers, ...options: string[]): Promise<Store> {
  const all: Server[] = [];
  for (let i = 0; i < 3; i++) all.push(await servers.memcached('-M', '-m', '1024', ...options));
  const left = async () => {
    const living = all.filter(({ process }) => process.exitCode === null && process.signalCode === null);
    const items = await Promise.all(living.map(({ port }) => itemsOf(port)));
    return items.reduce((sum, one) => sum + one, 0);
  };
  return { urls: [`memcached://${all.map(({ port }) => `127.0.0.1:${port}`).join()}`], left, servers: all };
}

/** A VM's image, where it goes, and how. */
export class Journey {
  readonly dir = directory();
  readonly image = join(this.dir, 'in');
  readonly out = join(directory(), 'out');
  readonly vmKey = join(this.dir, 'a.vmkey');
  readonly store: Store;
  readonly env: Record<string, string> = {};

  constructor(store: Store, bytes: number) {
    this.store = store;
    writeImage(this.image, bytes);
  }

  get stores(): string[] {
    return this.store.urls.flatMap((url) => ['--store', url]);
  }

  park(...args: string[]): Abdm {
    return new Abdm(
      ['eject', `a=file:${this.image}`, '--park', '--vm-key', this.vmKey, ...this.stores, ...args],
      this.env,
    );
  }

  take(...args: string[]): Abdm {
    return new Abdm(
      ['merge', `a=file:${this.out}`, '--parked', '--vm-key', this.vmKey, ...this.stores, ...args],
      this.env,
    );
  }

  /** Moves it to a destination that listens. */
  async move(...args: string[]): Promise<{ eject: Abdm; merge: Abdm }> {
    const merge = new Abdm(['merge', `a=file:${this.out}`, '--listen', '127.0.0.1:0', ...this.stores], this.env);
    const to = await merge.address();
    return { merge, eject: new Abdm(['eject', `a=file:${this.image}`, '--to', to, ...this.stores, ...args], this.env) };
  }

  /** There are so many values in the store, or more. */
  async reaches(values: number): Promise<void> {
    for (let tries = 600; (await this.store.left()) < values; tries--) {
      if (tries === 0) throw new Error(`there are still fewer than ${values} values in the store`);
      await sleep(50);
    }
  }

  /** As soon as they are gone: the last of them are removed, or expire, when everybody has left. */
  async expectLeft(values: number, withinMs = 5_000): Promise<void> {
    const by = performance.now() + withinMs;
    while ((await this.store.left()) !== values && performance.now() < by) await sleep(100);
    expect(await this.store.left()).toBe(values);
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
