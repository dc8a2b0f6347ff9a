// What may go wrong with stores, on real servers: each time the VM arrives whole, or the source still has it and knows why.
import { afterAll, describe, expect, test } from 'vitest';
import { cli, Servers } from '../../../bench/stores/servers.js';
import { cluster, memcached, type Store, single } from '../../../bench/stores/stores.js';
import { missing } from '../../skipped.js';
import { type Abdm, cleanUp } from '../cli/processes.js';
import { COMPLETED, Journey, MiB } from './journey.js';

afterAll(cleanUp);

/** Most of the time is waited: they run side by side, each with servers of its own. */
function failure(name: string, run: (servers: Servers) => Promise<void>): void {
  test.concurrent(name, { timeout: 120_000 }, async () => {
    const servers = new Servers();
    try {
      await run(servers);
    } finally {
      await servers.end();
    }
  });
}

/** It ends with this exit code, and its source still has the VM. */
async function expectAborted(eject: Abdm, code: number, reason: object): Promise<void> {
  const ended = await eject.done;
  expect(ended.summary).toMatchObject({ outcome: 'aborted', reason });
  expect(ended.code).toBe(code);
}

const says = (pattern: RegExp) => ({ message: expect.stringMatching(pattern) });

/** A memcached on its own. */
async function lone(servers: Servers, ...options: string[]): Promise<Store> {
  const server = await servers.memcached(...options);
  return { urls: [`memcached://127.0.0.1:${server.port}`], left: async () => 0, servers: [server] };
}

/** With another password, or one at all. */
function loggedIn(store: Store, password: string): Store {
  const { port } = store.servers[0]!;
  const left = async () => Number(cli(port, '-a', password, '--no-auth-warning', 'DBSIZE'));
  return { ...store, left, urls: store.urls.map((url) => url.replace('://', `://:${password}@`)) };
}

describe.skipIf(missing('valkey-server')).concurrent('a cluster whose primary is killed', () => {
  failure('while the source puts frames there loses none of them', async (servers) => {
    const store = await cluster(servers);
    const journey = new Journey(store, 64 * MiB);
    const eject = await journey.parking('8MB', 50);
    await store.primaries[0]!.kill();
    expect((await eject.done).summary).toMatchObject(COMPLETED);
    await journey.expectDelivered(journey.take());
  });

  failure('while the destination fetches them', async (servers) => {
    const store = await cluster(servers);
    const journey = new Journey(store, 64 * MiB);
    expect((await journey.park('--replicas', '2').done).summary).toMatchObject(COMPLETED);
    const merge = await journey.taking('8MB');
    await store.primaries[1]!.kill();
    await journey.expectDelivered(merge);
  });

  failure('and that cannot make two copies any more is told so', async (servers) => {
    const store = await cluster(servers);
    const eject = await new Journey(store, 96 * MiB).parking('8MB', 50, '--replicas', '2');
    await store.primaries[0]!.kill();
    await expectAborted(eject, 2, says(/replica/));
  });
});

describe.skipIf(missing('valkey-server')).concurrent('a cluster of which a part is down, for good', () => {
  failure('is not waited for by the source', async (servers) => {
    const store = await cluster(servers, 0);
    const eject = await new Journey(store, 64 * MiB).parking('8MB', 50);
    await store.primaries[0]!.kill();
    await expectAborted(eject, 2, { code: 'NO_ROOM', ...says(/does not answer/) });
  });

  failure('is waited for by the destination for a while, and gone on with when it is back', async (servers) => {
    const store = await cluster(servers, 0);
    const journey = new Journey(store, 48 * MiB);
    expect((await journey.park().done).summary).toMatchObject(COMPLETED);
    const merge = await journey.taking('8MB');
    store.primaries[0]!.stop();
    const paused = await merge.done;
    expect(paused.summary).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'PEER_UNREACHABLE' } });
    expect(paused.code).toBe(3);
    store.primaries[0]!.resume();
    await journey.expectDelivered(journey.take());
  });
});

describe.skipIf(missing('valkey-server')).concurrent('Valkey', () => {
  const valkey = (servers: Servers, ...options: string[]) => single(servers, 'valkey-server', ...options);

  failure('that evicts keys is refused before the first frame', async (servers) => {
    const store = await valkey(servers, '--maxmemory', '200mb', '--maxmemory-policy', 'allkeys-lru');
    const journey = new Journey(store, 8 * MiB);
    await expectAborted(journey.park(), 1, says(/maxmemory-policy noeviction/));
    await journey.expectLeft(0);
  });

  failure('that is too small is refused before the first frame', async (servers) => {
    const journey = new Journey(await valkey(servers, '--maxmemory', '40mb'), 64 * MiB);
    await expectAborted(journey.park(), 2, says(/raise maxmemory/));
    await journey.expectLeft(0);
  });

  failure('that others fill meanwhile ends it, and is left to them', async (servers) => {
    const store = await valkey(servers, '--maxmemory', '150mb');
    const journey = new Journey(store, 96 * MiB);
    const eject = await journey.parking('16MB', 50);
    cli(store.servers[0]!.port, 'SETRANGE', 'theirs', String(120 * MiB), 'x');
    await expectAborted(eject, 2, { code: 'NO_ROOM' });
    await journey.expectLeft(1);
  });

  failure('that answers nothing for seconds is waited for', async (servers) => {
    const store = await valkey(servers);
    const pause = () => cli(store.servers[0]!.port, 'CLIENT', 'PAUSE', '4000', 'ALL');
    const journey = new Journey(store, 48 * MiB);
    const eject = await journey.parking('16MB', 50);
    pause();
    expect((await eject.done).summary).toMatchObject(COMPLETED);
    const merge = await journey.taking('16MB');
    pause();
    await journey.expectDelivered(merge);
  });

  failure('that is restarted empty gets everything again', async (servers) => {
    const store = await valkey(servers);
    const journey = new Journey(store, 48 * MiB);
    const eject = await journey.parking('16MB', 50);
    const [server] = store.servers;
    await server!.kill();
    await server!.start();
    expect((await eject.done).summary).toMatchObject(COMPLETED);
    await journey.expectDelivered(journey.take());
  });

  failure('that loses single keys gets them again', async (servers) => {
    const store = await valkey(servers);
    const journey = new Journey(store, 48 * MiB);
    const eject = await journey.parking('16MB', 50);
    const { port } = store.servers[0]!;
    const [lost] = cli(port, 'KEYS', '*:7').split('\n');
    expect(cli(port, 'DEL', lost!)).toMatch(/1/);
    expect((await eject.done).summary).toMatchObject(COMPLETED);
    await journey.expectDelivered(journey.take());
  });

  failure('without the right password is said to be so, at once', async (servers) => {
    const store = await valkey(servers, '--requirepass', 'right');
    const begunAt = performance.now();
    const attempts = [store, loggedIn(store, 'wrong')].map((one) => new Journey(one, 8 * MiB).park());
    for (const attempt of attempts) await expectAborted(attempt, 2, { code: 'UNAUTHENTICATED' });
    expect(performance.now() - begunAt).toBeLessThan(10_000);
  });

  failure('whose password is changed on the way ends it, and says why', async (servers) => {
    const store = await valkey(servers, '--requirepass', 'right');
    const eject = await new Journey(loggedIn(store, 'right'), 96 * MiB).parking('8MB', 50);
    const ask = (...command: string[]) => cli(store.servers[0]!.port, '--no-auth-warning', ...command);
    ask('-a', 'right', 'CONFIG', 'SET', 'requirepass', 'another');
    ask('-a', 'another', 'CLIENT', 'KILL', 'TYPE', 'normal');
    await expectAborted(eject, 2, says(/WRONGPASS|NOAUTH|let us in/));
  });
});

describe.skipIf(missing('memcached')).concurrent('memcached', () => {
  failure('that evicts is refused before the first frame', async (servers) => {
    await expectAborted(new Journey(await lone(servers), 8 * MiB).park(), 1, says(/start it with -M/));
  });

  failure(
    'of which one is killed while the source puts frames there, with two copies, loses nothing',
    async (servers) => {
      const store = await memcached(servers);
      const journey = new Journey(store, 64 * MiB);
      const eject = await journey.parking('8MB', 100, '--replicas', '2');
      await store.servers[0]!.kill();
      expect((await eject.done).summary).toMatchObject(COMPLETED);
      await journey.expectDelivered(journey.take());
    },
  );

  failure(
    'of which one is killed while the destination fetches them, with two copies, loses nothing',
    async (servers) => {
      const store = await memcached(servers);
      const journey = new Journey(store, 48 * MiB);
      expect((await journey.park('--replicas', '2').done).summary).toMatchObject(COMPLETED);
      const merge = await journey.taking('8MB');
      await store.servers[1]!.kill();
      await journey.expectDelivered(merge);
    },
  );

  failure('that is full ends it, and is left as it was', async (servers) => {
    const store = await lone(servers, '-M', '-m', '64');
    await expectAborted(new Journey(store, 96 * MiB).park(), 2, { code: 'NO_ROOM' });
  });
});
