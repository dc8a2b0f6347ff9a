// A cluster whose slots move from one server to another while a VM is on its way through it, as `valkey-cli --cluster reshard` moves them.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dial } from '#abdm/host/mam/dial.js';
import { parseStore } from '#abdm/host/store/index.js';
import { slotOf } from '#abdm/host/store/redis/slot.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { cli, cliAll, type Server, Servers } from '../../../bench/stores/servers.js';
import { type ClusterStore, cluster } from '../../../bench/stores/stores.js';
import { missing } from '../../skipped.js';
import { cleanUp } from '../cli/processes.js';
import { COMPLETED, Journey, MiB } from './journey.js';

/** That the image becomes, or a few more. */
const FRAMES = 300;

const servers = new Servers();

afterAll(async () => {
  await cleanUp();
  await servers.end();
});

const idOf = ({ port }: Server) => cli(port, 'CLUSTER', 'MYID');

/** How often a server has said this instead of an answer. */
function saidBy({ port }: Server, error: 'ASK' | 'MOVED'): number {
  return Number(new RegExp(`errorstat_${error}:count=(\\d+)`).exec(cli(port, 'INFO', 'errorstats'))?.[1] ?? 0);
}

const keysOf = ({ port }: Server) => cli(port, 'KEYS', '*').split('\n').filter(Boolean);

/** The slots of a server that the migration's frames are in, or will be. */
function slotsOf(server: Server, frames: number): Set<number> {
  const [, first, last] = /myself.* connected (\d+)-(\d+)/.exec(cli(server.port, 'CLUSTER', 'NODES'))!.map(Number);
  const [frame] = keysOf(server).filter((key) => /^abdm:\w+:\w+:\d+$/.test(key));
  const keys = Array.from({ length: frames }, (_, i) => frame!.replace(/\d+$/, String(i + 1)));
  return new Set(keys.map(slotOf).filter((slot) => slot >= first! && slot <= last!));
}

function setSlots(slots: ReadonlySet<number>, { port }: Server, what: string): void {
  expectOk(
    cliAll(
      port,
      [...slots].map((slot) => `CLUSTER SETSLOT ${slot} ${what}`),
    ),
  );
}

function expectOk(answers: readonly string[]): void {
  expect(answers.filter((answer) => answer !== 'OK' && answer !== 'NOKEY')).toEqual([]);
}

/** For a while new keys go to the one, and others are still at the other. Returns how many new ones came meanwhile. */
async function moveSlots(slots: ReadonlySet<number>, from: Server, to: Server): Promise<number> {
  setSlots(slots, to, `IMPORTING ${idOf(from)}`);
  setSlots(slots, from, `MIGRATING ${idOf(to)}`);
  await sleep(700);
  const inThem = (server: Server) => keysOf(server).filter((key) => slots.has(slotOf(key)));
  const came = inThem(to).length;
  for (;;) {
    const keys = inThem(from);
    if (keys.length === 0) break;
    const moves = keys.map((key) => `MIGRATE 127.0.0.1 ${to.port} ${key} 0 5000`);
    expectOk(cliAll(from.port, moves));
  }
  await sleep(700);
  for (const server of [to, from]) setSlots(slots, server, `NODE ${idOf(to)}`);
  return came;
}

describe.skipIf(missing('valkey-server'))('a cluster', () => {
  let store: ClusterStore;

  beforeAll(async () => {
    store = await cluster(servers);
  });

  test('whose slots move while the source puts frames there, and back while the destination fetches them, loses none', {
    timeout: 120_000,
  }, async () => {
    const [first, second] = store.primaries as [Server, Server];
    const journey = new Journey(store, 48 * MiB);
    const eject = await journey.parking('8MB', 40, '--replicas', '2');
    const slots = slotsOf(first, FRAMES);
    expect(await moveSlots(slots, first, second)).toBeGreaterThan(0);
    expect((await eject.done).summary).toMatchObject(COMPLETED);
    expect([saidBy(first, 'ASK'), saidBy(first, 'MOVED')].map((times) => times > 0)).toEqual([true, true]);
    const before = [saidBy(second, 'ASK'), saidBy(second, 'MOVED')];
    const merge = await journey.taking('8MB');
    await moveSlots(slots, second, first);
    await journey.expectDelivered(merge);
    expect([saidBy(second, 'ASK'), saidBy(second, 'MOVED')].map((times, i) => times > before[i]!)).toEqual([
      true,
      true,
    ]);
  });

  test('renews and drops what is in slots that are being moved', { timeout: 20_000 }, async () => {
    const migration = randomBytes(16).toString('hex');
    const keeper = await dial(parseStore(store.urls[0]!)[0]!, { migration, role: 'source', security: OPEN });
    for (let id = 1; id <= 60; id++) expect((await keeper.put(id, randomBytes(1000))).stored).toBe(true);
    const [first, second] = store.primaries as [Server, Server];
    const slots = slotsOf(first, 60);
    setSlots(slots, second, `IMPORTING ${idOf(first)}`);
    setSlots(slots, first, `MIGRATING ${idOf(second)}`);
    const moving = keysOf(first).filter((key) => slots.has(slotOf(key)));
    expectOk(
      cliAll(
        first.port,
        moving.filter((_, i) => i % 2 === 0).map((key) => `MIGRATE 127.0.0.1 ${second.port} ${key} 0 5000`),
      ),
    );
    await keeper.verify();
    expect(keeper.gone).toBeNull();
    expect((await keeper.drop()).frames).toBe(60);
    keeper.end();
    expect(await store.left()).toBe(0);
  });
});
