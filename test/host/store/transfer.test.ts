// VMs that travel by way of stores that people already run, on real servers: bit for bit, with nothing of ours running in between, and nothing left behind.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Authority } from '../../certificates.js';
import { cleanUp, clusterKey, directory, intermediates } from '../cli/processes.js';
import { cluster, Journey, MiB, memcached, type Store, valkey } from './journey.js';
import { cli, has, Servers } from './servers.js';

const servers = new Servers();

afterEach(async () => {
  await cleanUp();
  await servers.end();
});

const KINDS: [string, string, () => Promise<Store>][] = [
  ['Valkey or Redis', 'redis-server', () => valkey(servers)],
  ['a cluster of them', 'redis-server', () => cluster(servers)],
  ['memcached', 'memcached', () => memcached(servers)],
];

describe.each(KINDS)('%s', (_kind, needs, start) => {
  test.skipIf(!has(needs))(
    'keeps 512 MiB that are parked until somebody takes them in',
    { timeout: 240_000 },
    async () => {
      const journey = new Journey(await start(), 512 * MiB);
      const parked = await journey.park().done;
      expect(parked.summary).toMatchObject({ outcome: 'completed', reason: null });
      expect(await journey.store.left()).toBeGreaterThan(1500);
      const taken = await journey.take().done;
      expect(taken.summary).toMatchObject({ outcome: 'completed', reason: null });
      await journey.expectArrived();
      await journey.expectLeft(0);
    },
  );

  test.skipIf(!has(needs))('stands between a source and a slow destination', async () => {
    const journey = new Journey(await start(), 32 * MiB);
    const { eject, merge } = await journey.move('--replicas', '1');
    expect((await eject.done).summary).toMatchObject({ outcome: 'completed', reason: null });
    expect((await merge.done).summary).toMatchObject({ outcome: 'completed', reason: null });
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test.skipIf(!has(needs))('is left as it was when a migration is cancelled', async () => {
    const journey = new Journey(await start(), 32 * MiB);
    const eject = journey.park('--rate', '8MB');
    await journey.reaches(20);
    await eject.stop('SIGINT');
    expect((await eject.done).summary).toMatchObject({ outcome: 'aborted', reason: { code: 'CANCELLED' } });
    await journey.expectLeft(0);
  });

  test.skipIf(!has(needs))('forgets what nobody takes in when its lease has run out', async () => {
    const journey = new Journey(await start(), 8 * MiB);
    expect((await journey.park('--lease', '2s').done).summary).toMatchObject({ outcome: 'completed' });
    expect(await journey.store.left()).toBeGreaterThan(20);
    await journey.expectLeft(0, 8_000);
    const taken = await journey.take().done;
    expect(taken.code).not.toBe(0);
  });
});

describe.skipIf(!has('redis-server'))('a store of others too', () => {
  test('has its keys afterwards, and never saw what it kept', async () => {
    const store = await valkey(servers);
    const { port } = store.servers[0]!;
    cli(port, 'SET', 'mine', 'of another application');
    const journey = new Journey(store, 8 * MiB);
    const key = clusterKey();
    expect((await journey.park('--key', key).done).summary).toMatchObject({ outcome: 'completed' });
    const names = cli(port, 'KEYS', 'abdm:*').split('\n');
    expect(names.length).toBe(keys(port) - 1);
    for (const name of names.filter((one) => /:\d+$/.test(one))) {
      expect(cli(port, 'GETRANGE', name, '0', '3')).toBe('ABDS');
      expect(Number(cli(port, 'PTTL', name))).toBeGreaterThan(0);
    }
    expect((await journey.take('--key', key).done).summary).toMatchObject({ outcome: 'completed' });
    await journey.expectArrived();
    await journey.expectLeft(1);
    expect(cli(port, 'GET', 'mine')).toBe('of another application');
  });

  test('keeps frames beside our own nodes', async () => {
    const journey = new Journey(await valkey(servers), 64 * MiB);
    const { list } = await intermediates(2, '256M');
    const both = ['--intermediates', list];
    const parked = await journey.park(...both).done;
    expect(parked.summary).toMatchObject({ outcome: 'completed' });
    for (const { frames } of parked.summary.nodes) expect(frames).toBeGreaterThan(10);
    expect(parked.summary.nodes).toHaveLength(3);
    expect((await journey.take(...both).done).summary).toMatchObject({ outcome: 'completed' });
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test('is let in to with a user and a password, which nobody is shown', async () => {
    const store = await valkey(servers);
    const { port } = store.servers[0]!;
    const [, allowed] = /~abdm:\*`, and `([^`]+)`/.exec(readFileSync('docs/stores.md', 'utf8'))!;
    cli(port, 'ACL', 'SETUSER', 'abdm', 'on', '>se:cr@t', '~abdm:*', ...allowed!.split(' '));
    const journey = new Journey({ ...store, urls: [`valkey://abdm:se%3Acr%40t@127.0.0.1:${port}`] }, 8 * MiB);
    const parked = await journey.park().done;
    expect(parked.summary).toMatchObject({ outcome: 'completed', reason: null });
    expect(JSON.stringify(parked) + parked.stderr).not.toMatch(/se(:|%3A)cr/);
    expect(cli(port, 'GET', cli(port, 'KEYS', '*:head'))).not.toMatch(/se(:|%3A)cr/);
    expect((await journey.take().done).summary).toMatchObject({ outcome: 'completed', reason: null });
    expect(readFileSync(journey.image).equals(readFileSync(journey.out))).toBe(true);
  });
});

describe.skipIf(!has('redis-server'))('a store over TLS', () => {
  test('is spoken to where its certificate is what it should be', async () => {
    const authority = new Authority('stores');
    const dir = directory();
    const file = (name: string, text: string) => {
      writeFileSync(join(dir, name), text);
      return join(dir, name);
    };
    const { cert, key } = authority.issue('localhost');
    const ca = file('ca.pem', authority.cert);
    const server = await servers.redisTls(file('cert.pem', cert), file('key.pem', key), ca);
    const left = async () => Number(cli(server.port, '--tls', '--cacert', ca, 'DBSIZE'));
    const journey = new Journey({ urls: [`rediss://localhost:${server.port}`], left, servers: [server] }, 8 * MiB);
    expect((await journey.park().done).summary).toMatchObject({ outcome: 'aborted' });
    journey.env.NODE_EXTRA_CA_CERTS = ca;
    expect((await journey.park().done).summary).toMatchObject({ outcome: 'completed', reason: null });
    expect((await journey.take().done).summary).toMatchObject({ outcome: 'completed', reason: null });
    await journey.expectArrived();
    await journey.expectLeft(0);
  });
});

function keys(port: number): number {
  return Number(cli(port, 'DBSIZE').replace(/\D/g, ''));
}
