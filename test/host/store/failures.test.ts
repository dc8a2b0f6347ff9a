// What may go wrong with stores, on real servers: each time the VM arrives whole, or the source still has it and knows why.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { cleanUp } from '../cli/processes.js';
import { cluster, Journey, MiB, memcached, valkey } from './journey.js';
import { cli, has, Servers } from './servers.js';

const servers = new Servers();

afterEach(async () => {
  await cleanUp();
  await servers.end();
});

const completed = { outcome: 'completed', reason: null };

describe.skipIf(!has('redis-server'))('a cluster whose primary is killed', () => {
  test('while the source puts frames there loses none of them', { timeout: 120_000 }, async () => {
    const journey = new Journey(await cluster(servers), 96 * MiB);
    const eject = journey.park('--rate', '8MB');
    await journey.reaches(100);
    await journey.store.servers[0]!.kill();
    expect((await eject.done).summary).toMatchObject(completed);
    expect((await journey.take().done).summary).toMatchObject(completed);
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test('while the destination fetches them', { timeout: 120_000 }, async () => {
    const journey = new Journey(await cluster(servers), 96 * MiB);
    expect((await journey.park('--replicas', '2').done).summary).toMatchObject(completed);
    const merge = journey.take('--rate', '8MB');
    await sleep(3_000);
    await journey.store.servers[1]!.kill();
    expect((await merge.done).summary).toMatchObject(completed);
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test('and that cannot make two copies any more is told so', { timeout: 120_000 }, async () => {
    const journey = new Journey(await cluster(servers), 96 * MiB);
    const eject = journey.park('--rate', '8MB', '--replicas', '2');
    await journey.reaches(100);
    await journey.store.servers[0]!.kill();
    const { summary, code } = await eject.done;
    expect([code, summary.outcome]).toEqual([2, 'aborted']);
    expect(summary.reason.message).toMatch(/replica/);
  });
});

describe.skipIf(!has('redis-server'))('Valkey or Redis', () => {
  test('that evicts keys is refused before the first frame', async () => {
    const store = await valkey(servers, '--maxmemory', '200mb', '--maxmemory-policy', 'allkeys-lru');
    const journey = new Journey(store, 8 * MiB);
    const { summary, code } = await journey.park().done;
    expect([code, summary.outcome]).toEqual([1, 'aborted']);
    expect(summary.reason.message).toMatch(/maxmemory-policy noeviction/);
    await journey.expectLeft(0);
  });

  test('that is too small is refused before the first frame', async () => {
    const journey = new Journey(await valkey(servers, '--maxmemory', '40mb'), 64 * MiB);
    const { summary, code } = await journey.park().done;
    expect([code, summary.outcome]).toEqual([2, 'aborted']);
    expect(summary.reason.message).toMatch(/raise maxmemory/);
    await journey.expectLeft(0);
  });

  test('that others fill meanwhile ends it, and is left to them', { timeout: 120_000 }, async () => {
    const journey = new Journey(await valkey(servers, '--maxmemory', '150mb'), 96 * MiB);
    const eject = journey.park('--rate', '16MB');
    await journey.reaches(50);
    cli(journey.store.servers[0]!.port, 'SETRANGE', 'theirs', String(120 * MiB), 'x');
    const { summary, code } = await eject.done;
    expect([code, summary.outcome, summary.reason.code]).toEqual([2, 'aborted', 'NO_ROOM']);
    await journey.expectLeft(1);
  });

  test('that answers nothing for seconds is waited for', { timeout: 120_000 }, async () => {
    const journey = new Journey(await valkey(servers), 64 * MiB);
    const eject = journey.park('--rate', '16MB');
    await journey.reaches(50);
    cli(journey.store.servers[0]!.port, 'CLIENT', 'PAUSE', '4000', 'ALL');
    expect((await eject.done).summary).toMatchObject(completed);
    const merge = journey.take('--rate', '16MB');
    await sleep(2_000);
    cli(journey.store.servers[0]!.port, 'CLIENT', 'PAUSE', '4000', 'ALL');
    expect((await merge.done).summary).toMatchObject(completed);
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test('that is restarted empty gets everything again', { timeout: 120_000 }, async () => {
    const journey = new Journey(await valkey(servers), 64 * MiB);
    const eject = journey.park('--rate', '16MB');
    await journey.reaches(50);
    const { port, kill } = journey.store.servers[0]!;
    await kill();
    await servers.redisAt(port);
    expect((await eject.done).summary).toMatchObject(completed);
    expect((await journey.take().done).summary).toMatchObject(completed);
    await journey.expectArrived();
  });

  test('that loses single keys gets them again', { timeout: 120_000 }, async () => {
    const journey = new Journey(await valkey(servers), 64 * MiB);
    const eject = journey.park('--rate', '16MB');
    await journey.reaches(50);
    const { port } = journey.store.servers[0]!;
    const [lost] = cli(port, 'KEYS', '*:7').split('\n');
    expect(cli(port, 'DEL', lost!)).toMatch(/1/);
    expect((await eject.done).summary).toMatchObject(completed);
    expect((await journey.take().done).summary).toMatchObject(completed);
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test('without the right password is said to be so, at once', async () => {
    const journey = new Journey(await valkey(servers, '--requirepass', 'right'), 8 * MiB);
    const { summary, code } = await journey.park().done;
    expect([code, summary.reason.code]).toEqual([2, 'UNAUTHENTICATED']);
    const wrong = new Journey(
      { ...journey.store, urls: journey.store.urls.map((url) => url.replace('://', '://:wrong@')) },
      8 * MiB,
    );
    expect((await wrong.park().done).summary.reason.code).toBe('UNAUTHENTICATED');
  });

  test('whose password is changed on the way ends it, and says why', { timeout: 120_000 }, async () => {
    const store = await valkey(servers, '--requirepass', 'right');
    const urls = store.urls.map((url) => url.replace('://', '://:right@'));
    const { port } = store.servers[0]!;
    const ask = (...command: string[]) => cli(port, '-a', 'right', '--no-auth-warning', ...command);
    const journey = new Journey({ ...store, urls, left: async () => Number(ask('DBSIZE')) }, 96 * MiB);
    const eject = journey.park('--rate', '8MB');
    await journey.reaches(50);
    ask('CONFIG', 'SET', 'requirepass', 'another');
    cli(port, '-a', 'another', '--no-auth-warning', 'CLIENT', 'KILL', 'TYPE', 'normal');
    const { summary, code } = await eject.done;
    expect([code, summary.outcome]).toEqual([2, 'aborted']);
    expect(summary.reason.message).toMatch(/WRONGPASS|NOAUTH|let us in/);
  });
});

describe.skipIf(!has('memcached'))('memcached', () => {
  test('that evicts is refused before the first frame', async () => {
    const server = await servers.memcached();
    const urls = [`memcached://127.0.0.1:${server.port}`];
    const journey = new Journey({ urls, left: async () => 0, servers: [server] }, 8 * MiB);
    const { summary, code } = await journey.park().done;
    expect([code, summary.outcome]).toEqual([1, 'aborted']);
    expect(summary.reason.message).toMatch(/start it with -M/);
  });

  test('of which one is killed, with two copies, loses nothing', { timeout: 120_000 }, async () => {
    const journey = new Journey(await memcached(servers), 96 * MiB);
    const eject = journey.park('--rate', '8MB', '--replicas', '2');
    await journey.reaches(100);
    await journey.store.servers[0]!.kill();
    expect((await eject.done).summary).toMatchObject(completed);
    const merge = journey.take('--rate', '8MB');
    await sleep(3_000);
    await journey.store.servers[1]!.kill();
    expect((await merge.done).summary).toMatchObject(completed);
    await journey.expectArrived();
    await journey.expectLeft(0);
  });

  test('that is full ends it, and is left as it was', { timeout: 120_000 }, async () => {
    const server = await servers.memcached('-M', '-m', '64');
    const urls = [`memcached://127.0.0.1:${server.port}`];
    const journey = new Journey({ urls, left: async () => 0, servers: [server] }, 96 * MiB);
    const { summary, code } = await journey.park().done;
    expect([code, summary.outcome, summary.reason.code]).toEqual([2, 'aborted', 'NO_ROOM']);
  });
});
