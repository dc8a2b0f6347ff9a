// VMs that travel by way of stores that people already run, on real servers: bit for bit, with nothing of ours running in between, and nothing left behind.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { cli, keysOf, Servers } from '../../../bench/stores/servers.js';
import { cluster, memcached, type Store, single } from '../../../bench/stores/stores.js';
import { Authority } from '../../certificates.js';
import { missing } from '../../skipped.js';
import { cleanUp, clusterKey, directory, intermediates } from '../cli/processes.js';
import { COMPLETED, Journey, MiB } from './journey.js';

const servers = new Servers();

afterAll(() => servers.end());
afterEach(cleanUp);

const KINDS: [string, string, number, () => Promise<Store>][] = [
  ['Valkey', 'valkey-server', 64, () => single(servers, 'valkey-server')],
  ['Redis', 'redis-server', 512, () => single(servers, 'redis-server')],
  ['a cluster of Valkey', 'valkey-server', 512, () => cluster(servers)],
  ['memcached', 'memcached', 512, () => memcached(servers)],
];

describe.each(KINDS)('%s', (_kind, program, size, start) => {
  describe.skipIf(missing(program))('', () => {
    let store: Store;
    beforeAll(async () => {
      store = await start();
    });

    test(`keeps ${size} MiB that are parked until somebody takes them in`, { timeout: 240_000 }, async () => {
      const journey = new Journey(store, size * MiB);
      expect((await journey.park().done).summary).toMatchObject(COMPLETED);
      expect(await store.left()).toBeGreaterThan(3 * size);
      await journey.expectDelivered(journey.take());
    });

    test('stands between a source and a slow destination', async () => {
      const journey = new Journey(store, 32 * MiB);
      const { eject, merge } = await journey.move('--replicas', '1');
      expect((await eject.done).summary).toMatchObject(COMPLETED);
      await journey.expectDelivered(merge);
    });

    test('is left as it was when a migration is cancelled', async () => {
      const journey = new Journey(store, 32 * MiB);
      const eject = await journey.parking('8MB', 20);
      await eject.stop('SIGINT');
      expect((await eject.done).summary).toMatchObject({ outcome: 'aborted', reason: { code: 'CANCELLED' } });
      await journey.expectLeft(0);
    });

    test('forgets what nobody takes in when its lease has run out', async () => {
      const journey = new Journey(store, 8 * MiB);
      expect((await journey.park('--lease', '2s').done).summary).toMatchObject(COMPLETED);
      expect(await store.left()).toBeGreaterThan(20);
      await journey.expectLeft(0, 8_000);
      expect((await journey.take().done).code).not.toBe(0);
    });
  });
});

describe.skipIf(missing('valkey-server'))('a store of others too', () => {
  test('has its keys afterwards, and never saw what it kept', async () => {
    const store = await single(servers, 'valkey-server');
    const { port } = store.servers[0]!;
    cli(port, 'SET', 'mine', 'of another application');
    const journey = new Journey(store, 8 * MiB);
    const key = clusterKey();
    expect((await journey.park('--key', key).done).summary).toMatchObject({ outcome: 'completed' });
    const names = cli(port, 'KEYS', 'abdm:*').split('\n');
    expect(names.length).toBe(keysOf(port) - 1);
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
    const journey = new Journey(await single(servers, 'valkey-server'), 64 * MiB);
    const { list } = await intermediates(2, '8G');
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
    const store = await single(servers, 'valkey-server');
    const { port } = store.servers[0]!;
    const [, allowed] = /~abdm:\*`, and `([^`]+)`/.exec(readFileSync('docs/stores.md', 'utf8'))!;
    cli(port, 'ACL', 'SETUSER', 'abdm', 'on', '>se:cr@t', '~abdm:*', ...allowed!.split(' '));
    const journey = new Journey({ ...store, urls: [`valkey://abdm:se%3Acr%40t@127.0.0.1:${port}`] }, 8 * MiB);
    const parked = await journey.park().done;
    expect(parked.summary).toMatchObject(COMPLETED);
    expect(JSON.stringify(parked) + parked.stderr).not.toMatch(/se(:|%3A)cr/);
    expect(cli(port, 'GET', cli(port, 'KEYS', '*:head'))).not.toMatch(/se(:|%3A)cr/);
    expect((await journey.take().done).summary).toMatchObject(COMPLETED);
    expect(readFileSync(journey.image).equals(readFileSync(journey.out))).toBe(true);
  });
});

describe.skipIf(missing('valkey-server'))('a store over TLS', () => {
  test('is spoken to where its certificate is what it should be', async () => {
    const authority = new Authority('stores');
    const dir = directory();
    const file = (name: string, text: string) => {
      writeFileSync(join(dir, name), text);
      return join(dir, name);
    };
    const { cert, key } = authority.issue('localhost');
    const ca = file('ca.pem', authority.cert);
    const server = await servers.redisTls('valkey-server', file('cert.pem', cert), file('key.pem', key), ca);
    const left = async () => Number(cli(server.port, '--tls', '--cacert', ca, 'DBSIZE'));
    const journey = new Journey({ urls: [`rediss://localhost:${server.port}`], left, servers: [server] }, 8 * MiB);
    const reason = { code: 'UNAUTHENTICATED', message: expect.stringMatching(/certificate.*NODE_EXTRA_CA_CERTS/) };
    expect((await journey.park().done).summary).toMatchObject({ outcome: 'aborted', reason });
    journey.env.NODE_EXTRA_CA_CERTS = ca;
    expect((await journey.park().done).summary).toMatchObject(COMPLETED);
    expect((await journey.take().done).summary).toMatchObject(COMPLETED);
    await journey.expectArrived();
    await journey.expectLeft(0);
  });
});
