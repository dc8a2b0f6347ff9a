// VMs that travel by way of stores: what the tests of that share.
import { randomFillSync } from 'node:crypto';
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Store } from '../../../bench/stores/stores.js';
import { Abdm, directory } from '../cli/processes.js';

const PAGE = 4096;
export const MiB = 2 ** 20;
export const COMPLETED = { outcome: 'completed', reason: null };

/** An image of random pages, a quarter of them zero and some of them twice. */
function writeImage(path: string, bytes: number): void {
  const image = randomFillSync(new Uint8Array(bytes));
  for (let at = 0; at < bytes; at += 4 * PAGE) image.fill(0, at, at + PAGE);
  image.copyWithin(bytes / 2, PAGE, bytes / 64);
  writeFileSync(path, image);
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

  /** Parks it at so many bytes a second, until the store has that many values. */
  async parking(rate: string, values: number, ...args: string[]): Promise<Abdm> {
    const eject = this.park('--rate', rate, ...args);
    await this.reaches(values);
    return eject;
  }

  /** Takes it in at so many bytes a second, until the first of it has arrived. */
  async taking(rate: string, ...args: string[]): Promise<Abdm> {
    const merge = this.take('--rate', rate, ...args);
    await merge.event(({ phase, doneBytes }) => phase === 'gathering' && doneBytes > 4 * MiB);
    return merge;
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

  /** All of it is where it should be, and nothing of it in the store. */
  async expectDelivered(merge: Abdm): Promise<void> {
    expect((await merge.done).summary).toMatchObject(COMPLETED);
    await this.expectArrived();
    await this.expectLeft(0);
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
