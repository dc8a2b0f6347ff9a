// Guests that run while their memory is at a store, and leases of what waits there.
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Servers } from '../../../bench/stores/servers.js';
import { type Store, single } from '../../../bench/stores/stores.js';
import { missing } from '../../skipped.js';
import { expectCompleted, Pair } from '../cli/live-scene.js';
import { Abdm, cleanUp, directory } from '../cli/processes.js';
import { COMPLETED, Journey, MiB } from './journey.js';

describe.skipIf(missing('valkey-server'))('Valkey', () => {
  const servers = new Servers();
  let store: Store;
  let stores: string[];

  beforeAll(async () => {
    store = await single(servers, 'valkey-server');
    stores = ['--store', store.urls[0]!];
  });
  afterEach(cleanUp);
  afterEach(async () => expect(await store.left()).toBe(0));
  afterAll(() => servers.end());

  test('keeps the pages of a guest that runs at the destination already', async () => {
    const pair = await Pair.of('vm', '--ops', '1000');
    const destination = new Abdm(['merge', pair.to, '--listen', '127.0.0.1:0', '--rate', '4MB', ...stores]);
    const to = await destination.address();
    const source = await new Abdm(['eject', pair.from, '--to', to, '--mode', 'post-copy', ...stores]).done;
    expectCompleted(source);
    // The source has gone, and what the guest touches now is fetched from the store.
    expect(source.summary.nodes[0].frames).toBeGreaterThan(10);
    expect(destination.child.exitCode).toBeNull();
    await pair.there.works(50);
    const merged = await destination.done;
    expectCompleted(merged);
    expect(merged.summary.vms[0].postcopyRequests).toBeGreaterThan(0);
    expect(
      merged.summary.nodes.find(({ address }: { address: string }) => address === store.urls[0]).frames,
    ).toBeGreaterThan(10);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });

  test('keeps a guest until somebody takes it in, where it runs at once', async () => {
    const pair = await Pair.of('vm', '--ops', '1000');
    const both = ['--vm-key', join(directory(), 'vm.vmkey'), ...stores];
    expectCompleted(await new Abdm(['eject', pair.from, '--mode', 'pre-copy', '--park', ...both]).done);
    expect((await pair.here.ask('status')).state).toBe('left');
    const destination = new Abdm(['merge', pair.to, '--parked', '--rate', '8MB', ...both]);
    await destination.event(({ type }) => type === 'running');
    await pair.there.works(50);
    expect(destination.child.exitCode).toBeNull();
    expectCompleted(await destination.done);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });

  test('keeps what waits there for as long as its lease is renewed', async () => {
    const journey = new Journey(store, 8 * MiB);
    expect((await journey.park('--lease', '3s').done).summary).toMatchObject(COMPLETED);
    const renewed = await new Abdm(['renew', 'a', '--lease', '1h', ...stores]).done;
    expect(renewed.events.at(-1)).toMatchObject({ type: 'renewed', name: 'a', nodes: 1 });
    expect(renewed.events.at(-1).expiresInMs).toBeGreaterThan(3_500_000);
    await new Promise((resolve) => setTimeout(resolve, 3_500));
    await journey.expectDelivered(journey.take());
    expect(await new Abdm(['renew', 'a', '--lease', '1h', ...stores]).done).toMatchObject({ code: 1 });
  });
});
