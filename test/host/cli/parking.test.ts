// VMs that leave before there is anywhere to go: parked at the nodes, renewed, claimed once, and taken in elsewhere; with a cluster's key and without one.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MamNode } from '#abdm/host/mam/node.js';
import { loadSecurity, OPEN } from '#abdm/host/wire/security.js';
import { seededPages } from '../../pages.js';
import { Abdm, cleanUp, clusterKey, directory, intermediates } from './processes.js';
import { keptBytes, Scene } from './scene.js';

const MEMORY = 256 * 2 ** 20;

afterEach(cleanUp);

/** Some nodes, and a VM that is to be parked at them. */
class Parking extends Scene {
  readonly keys = directory();
  readonly vmKey = join(this.keys, 'a.vmkey');
  readonly elsewhere = directory();
  readonly env: Record<string, string>;
  readonly security;
  nodes: Abdm[] = [];
  list = '';

  constructor(secured: boolean) {
    super();
    const keyFile = secured ? clusterKey() : null;
    this.env = keyFile ? { ABDM_KEY: keyFile } : {};
    this.security = keyFile ? loadSecurity({ keyFile }) : OPEN;
  }

  async start(nodes: number): Promise<void> {
    Object.assign(this, await intermediates(nodes, '256M', this.env));
    this.env.ABDM_INTERMEDIATES = this.list;
  }

  park(...args: string[]): Abdm {
    return this.abdm('eject', `a=file:${this.image}`, '--park', '--vm-key', this.vmKey, ...args);
  }

  /** Takes it in, into a file of this name. */
  take(file: string, ...args: string[]): Abdm {
    return this.abdm('merge', `a=file:${this.path(file)}`, '--parked', '--vm-key', this.vmKey, ...args);
  }

  abdm(...args: string[]): Abdm {
    return new Abdm(args, this.env);
  }

  path(file: string): string {
    return join(this.elsewhere, file);
  }

  expectArrived(file: string, image = this.image): void {
    expect(readFileSync(this.path(file)).equals(readFileSync(image))).toBe(true);
  }

  async expectNothingKept(): Promise<void> {
    for (const address of this.list.split(',')) expect(await keptBytes(address, MEMORY, this.security)).toBe(0);
  }
}

describe.each([
  ['without a key', false],
  ['with a key', true],
])('%s, a VM that is parked', (_, secured) => {
  let scene: Parking;
  beforeEach(() => {
    scene = new Parking(secured);
  });

  test('with another one is taken in elsewhere, bit-exact, also when a node is gone', async () => {
    await scene.start(3);
    const second = join(scene.keys, 'b');
    writeFileSync(second, seededPages(52, 2500));
    const source = await scene.park(`b=file:${second}`, '--replicas', '2').done;
    expect(source.code).toBe(0);
    expect(source.summary).toMatchObject({ outcome: 'completed', parked: true, replicas: 2 });
    expect(source.events).toContainEqual({ type: 'vm-key', path: scene.vmKey });
    await scene.nodes[0]!.stop('SIGKILL');
    const merged = await scene.take('a', `b=file:${scene.path('b')}`).done;
    expect(merged.summary?.reason ?? null).toBeNull();
    expect([merged.code, merged.summary.parked, merged.summary.replicas]).toEqual([0, true, 2]);
    scene.expectArrived('a');
    scene.expectArrived('b', second);
    expect(readdirSync(scene.elsewhere).sort()).toEqual(['a', 'b']);
    const left = scene.list.split(',').slice(1);
    for (const address of left) expect(await keptBytes(address, MEMORY, scene.security)).toBe(0);
  });

  test('is given to one: a second one is told who has it, and loses nothing', async () => {
    await scene.start(2);
    expect((await scene.park().done).code).toBe(0);
    const first = scene.take('first', '--rate', '1MB');
    await first.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 0);
    const second = await scene.take('second').done;
    expect(second.code).toBe(2);
    expect(second.summary).toMatchObject({ outcome: 'aborted', reason: { code: 'CLAIMED' } });
    expect(second.summary.reason.message).toContain(`pid ${first.child.pid} `);
    expect(second.events.at(-1)).toBe(second.summary);
    expect(readdirSync(scene.elsewhere).filter((name) => name.startsWith('second'))).toEqual([]);
    expect((await scene.abdm('rate', 'a', 'off').done).code).toBe(0);
    expect((await first.done).code).toBe(0);
    scene.expectArrived('first');
  });

  test('is not found by another name, nor opened by another key; and stays', async () => {
    await scene.start(2);
    expect((await scene.park().done).code).toBe(0);
    const other = scene.abdm('merge', `c=file:${scene.path('c')}`, '--parked', '--vm-key', scene.vmKey);
    expect(await other.done).toMatchObject({
      code: 1,
      summary: { outcome: 'aborted', reason: { code: 'USAGE', message: expect.stringMatching(/no node knows .* c/) } },
    });
    const wrong = join(scene.keys, 'wrong.vmkey');
    writeFileSync(wrong, `${'5'.repeat(64)}\n`, { mode: 0o600 });
    const locked = await scene.abdm('merge', `a=file:${scene.path('a')}`, '--parked', '--vm-key', wrong).done;
    expect(locked.code).toBe(1);
    expect(locked.summary.reason).toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/key does not open a/),
    });
    expect(readdirSync(scene.elsewhere)).toEqual([]);
    expect((await scene.take('a').done).code).toBe(0);
    scene.expectArrived('a');
  });

  test('is taken in by a claimant that was killed half way and started again', async () => {
    await scene.start(2);
    expect((await scene.park('--replicas', '2').done).code).toBe(0);
    const first = scene.take('a', '--rate', '2MB');
    await first.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 2e6);
    await first.stop('SIGKILL');
    expect(readdirSync(scene.elsewhere).sort()).toEqual(['a.abdm', 'a.partial']);
    const again = await scene.take('a').done;
    expect(again.summary?.reason ?? null).toBeNull();
    expect(again.code).toBe(0);
    scene.expectArrived('a');
    expect(readdirSync(scene.elsewhere)).toEqual(['a']);
    await scene.expectNothingKept();
  });

  test('stays longer when its lease is renewed', async () => {
    await scene.start(2);
    expect((await scene.park('--lease', '10m').done).code).toBe(0);
    const expiry = async () => {
      const found = scene.list.split(',').map((address) => MamNode.lookup(address, 'a', scene.security));
      return (await Promise.all(found)).map(([migration]) => migration!.expiresInMs);
    };
    for (const ms of await expiry()) expect(ms).toBeLessThanOrEqual(600_000);
    const renewed = await scene.abdm('renew', 'a', '--lease', '2h').done;
    expect(renewed.code).toBe(0);
    expect(renewed.events.at(-1)).toMatchObject({ type: 'renewed', name: 'a', nodes: 2, expiresInMs: 7_200_000 });
    for (const ms of await expiry()) expect(ms).toBeGreaterThan(6_000_000);
  });

  test('is gone when its lease has ended, which is said before', async () => {
    await scene.start(1);
    expect((await scene.park('--lease', '4s').done).code).toBe(0);
    const [node] = scene.nodes;
    const warned = await node!.event(({ type }) => type === 'lease-ending');
    expect(warned.vms).toEqual(['a']);
    expect(warned.expiresInMs).toBeLessThanOrEqual(400);
    await node!.event(({ type, frames }) => type === 'expired' && frames > 0);
    await scene.expectNothingKept();
    expect((await scene.take('a').done).code).toBe(1);
    expect(readdirSync(scene.elsewhere)).toEqual([]);
  });

  test('and cancelled before its exit leaves nothing at the nodes, and no key', async () => {
    await scene.start(2);
    const source = scene.park('--rate', '2MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    expect(existsSync(scene.vmKey)).toBe(true);
    const cancelled = await scene.abdm('cancel', 'a', '--reason', 'not today').done;
    expect(cancelled.code).toBe(0);
    expect(cancelled.events.at(-1)).toMatchObject({ type: 'cancelled', role: 'eject', outcome: 'aborted' });
    await scene.expectNothingKept();
    const { code, summary } = await source.done;
    expect([code, summary.reason]).toEqual([2, { code: 'CANCELLED', message: 'not today' }]);
    expect(existsSync(scene.vmKey)).toBe(false);
  });
});
