// What an intermediate knows of migrations beside their blocks: who they are, who gets them, how long they stay.
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import type { Registration } from '#abdm/host/mam/bodies.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { pattern, sleep, until } from '../wire/pair.js';
import { Client, MIGRATION } from './client.js';
import { Cluster, has, putAll, REGISTRATION, range } from './cluster.js';

const OTHER = 'b'.repeat(32);
const TOKEN = '1'.repeat(32);
const RIVAL = '2'.repeat(32);
const cluster = new Cluster();

afterEach(async () => {
  await cluster.end();
  cluster.events.length = 0;
});

describe('a migration', () => {
  test('is found by the name of each of its VMs, by anybody who asks, once its source has said what it is', async () => {
    const node = await cluster.node();
    const source = await cluster.connect(node);
    expect(await MamNode.lookup(node.address)).toEqual([]);
    const voters = [{ address: node.address, id: node.id }];
    const registration: Registration = { ...REGISTRATION, vms: ['web', 'db'], parked: true, voters };
    expect(await source.register(registration)).toEqual({ expiresInMs: 10_000 });
    const other = await cluster.connect(node, { migration: OTHER });
    await other.register({ ...REGISTRATION, vms: ['mail'] });
    const web = {
      migration: MIGRATION,
      vms: ['web', 'db'],
      over: [],
      parked: true,
      complete: false,
      frames: 0,
      replicas: 2,
      voters,
      claimed: null,
      sourceConnected: true,
      expiresInMs: 10_000,
    };
    for (const name of ['web', 'db']) expect(await MamNode.lookup(node.address, name)).toEqual([web]);
    expect(await MamNode.lookup(node.address, 'nobody')).toEqual([]);
    expect((await MamNode.lookup(node.address)).map(({ migration }) => migration)).toEqual([MIGRATION, OTHER]);
    await source.register({ ...registration, over: ['db'], complete: true, frames: 7 });
    source.end();
    await until(() => node.status().connections === 1);
    const [left] = await MamNode.lookup(node.address, 'web');
    expect(left).toMatchObject({ complete: true, over: ['db'], frames: 7, sourceConnected: false });
    expect(left!.expiresInMs).toBeGreaterThan(50_000);
    expect(left!.expiresInMs).toBeLessThanOrEqual(60_000);
  });

  test('may not have the name of a VM that is parked', async () => {
    const node = await cluster.node();
    const parked = await cluster.connect(node);
    await parked.register({ ...REGISTRATION, vms: ['db', 'web'], parked: true });
    await parked.register({ ...REGISTRATION, vms: ['db', 'web'], parked: true });
    const second = await cluster.connect(node, { migration: OTHER });
    await expect(second.register({ ...REGISTRATION, vms: ['mail', 'web'] })).rejects.toMatchObject({
      code: 'PEER_ABORTED',
      cause: { code: 'USAGE' },
      message: expect.stringMatching(/'web' is parked here already, by migration aaaa/),
    });
    const third = await cluster.connect(node, { migration: 'c'.repeat(32) });
    await third.register({ ...REGISTRATION, vms: ['mail'] });
    const fourth = await cluster.connect(node, { migration: 'd'.repeat(32) });
    await fourth.register({ ...REGISTRATION, vms: ['mail'] });
    await parked.drop();
    const fifth = await cluster.connect(node, { migration: 'e'.repeat(32) });
    await fifth.register({ ...REGISTRATION, vms: ['web'] });
  });

  test('lists its blocks by id, a part at a time', async () => {
    const node = await cluster.node({ memoryBytes: 2 ** 26 });
    const client = await cluster.connect(node);
    const ids = [...range(9000), ...range(20, 2 ** 48), ...range(20, 2 ** 49)];
    const shuffled = ids.map((id) => [(id * 7919) % 10_007, id] as const).sort((a, b) => a[0] - b[0]);
    for (const [, id] of shuffled) void client.put(id, pattern(20, 1));
    await until(() => client.stored.frames === ids.length);
    expect(await cluster.listed(node)).toEqual(ids);
    expect((await client.list(0)).length).toBe(8192);
    expect(await client.list(2 ** 48 + 10)).toEqual(
      [...range(11, 2 ** 48 + 10), ...range(20, 2 ** 49)].filter((id) => ids.includes(id)),
    );
    expect(await client.list(9001)).toEqual(ids.slice(9000));
    expect(await client.list(2 ** 50)).toEqual([]);
    await client.put(2 ** 50, pattern(20, 1));
    expect(await client.list(2 ** 50)).toEqual([2 ** 50]);
  });

  test('whose source is gone without a word is dropped; one that is complete stays for its lease, with a warning', async () => {
    const node = await cluster.node({ orphanMs: 100 });
    const lost = await cluster.connect(node, { migration: OTHER });
    await putAll(lost, [1, 2], []);
    await lost.register({ ...REGISTRATION, vms: ['mail'] });
    const whole = await cluster.connect(node);
    await putAll(whole, [1, 2, 3], []);
    await whole.register({ ...REGISTRATION, complete: true, frames: 3, leaseMs: 600 });
    await sleep(200);
    expect(node.status().migrations.length).toBe(2);
    lost.end();
    whole.end();
    await until(() => node.status().migrations.length === 1);
    expect(cluster.events.find(({ type }) => type === 'expired')).toMatchObject({
      migration: OTHER,
      frames: 2,
      bytes: 18_000,
    });
    const destination = await cluster.connect(node, { role: 'destination' });
    // While it is there nothing runs out.
    await sleep(700);
    expect(await has(destination, 3)).toBe(true);
    expect(await destination.lease(900)).toEqual({ expiresInMs: 900 });
    destination.end();
    await until(() => cluster.events.some(({ type }) => type === 'lease-ending'));
    const warning = cluster.events.find((event) => event.type === 'lease-ending');
    expect(warning).toMatchObject({ migration: MIGRATION, vms: ['web'] });
    if (warning?.type === 'lease-ending') expect(warning.expiresInMs).toBeLessThanOrEqual(90);
    expect(node.status().frames).toBe(3);
    await until(() => node.status().migrations.length === 0);
    expect(cluster.events.at(-1)).toMatchObject({ type: 'expired', migration: MIGRATION, frames: 3 });
    // Whoever comes now is told, rather than led to believe that nothing was ever there.
    await expect(cluster.connect(node, { role: 'destination' })).rejects.toThrow(/it has expired.*CANCELLED/);
  });

  test('is held at a second node as long as somebody is connected to the first', async () => {
    const nodes = await cluster.nodes(2, { orphanMs: 1500 });
    const client = await cluster.connect(nodes[0]!);
    await putAll(client, range(5), nodes);
    await sleep(2500);
    expect(nodes[1]!.status().frames).toBe(5);
    client.end();
    await until(() => nodes.every((node) => node.status().migrations.length === 0));
  });

  test('that is over takes neither claims nor registrations', async () => {
    const node = await cluster.node();
    const first = await cluster.connect(node);
    const calls = [
      (client: MamNode) => client.register(REGISTRATION),
      (client: MamNode) => client.claim(TOKEN, 'me'),
      (client: MamNode) => client.lease(1000),
      (client: MamNode) => client.list(0),
    ];
    const clients = await Promise.all(calls.map(() => cluster.connect(node, { role: 'source' })));
    await first.drop();
    for (const [i, call] of calls.entries()) {
      await expect(call(clients[i]!)).rejects.toMatchObject({ cause: { code: 'CANCELLED' } });
      expect(clients[i]!.gone?.surely).toBe(true);
      expect(await clients[i]!.drop()).toEqual({ frames: 0, bytes: 0 });
    }
  });
});

describe('a claim', () => {
  test('is granted to one of two who want it at the same time', async () => {
    const node = await cluster.node();
    for (let round = 0; round < 10; round++) {
      const options = { migration: String(round).repeat(32), role: 'destination' } as const;
      const [a, b] = await Promise.all([cluster.connect(node, options), cluster.connect(node, options)]);
      const claims = await Promise.all([a!.claim(TOKEN, 'ada'), b!.claim(RIVAL, 'bob')]);
      expect(claims.filter(({ granted }) => granted).length).toBe(1);
      const winner = claims[0]!.granted ? 'ada' : 'bob';
      expect(claims.map(({ by }) => by)).toEqual([winner, winner]);
    }
  });

  test('stays with who has it while he is connected, and for a while afterwards; then somebody else may have it', async () => {
    const node = await cluster.node({ claimStaleMs: 300 });
    const ada = await cluster.connect(node, { role: 'destination' });
    const bob = await cluster.connect(node, { role: 'destination' });
    expect(await ada.claim(TOKEN, 'ada')).toEqual({ granted: true, by: 'ada', sinceMs: 0 });
    await sleep(400);
    const denied = await bob.claim(RIVAL, 'bob');
    expect(denied).toMatchObject({ granted: false, by: 'ada' });
    expect(denied.sinceMs).toBeGreaterThanOrEqual(390);
    // The same token from another connection: he was started again.
    const again = await cluster.connect(node, { role: 'destination' });
    expect(await again.claim(TOKEN, 'ada, again')).toMatchObject({ granted: true, by: 'ada, again' });
    ada.end();
    await sleep(400);
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(false);
    again.end();
    await sleep(100);
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(false);
    await sleep(400);
    expect(await bob.claim(RIVAL, 'bob')).toMatchObject({ granted: true, by: 'bob', sinceMs: 0 });
  });

  test('can be given back, by who has it only', async () => {
    const node = await cluster.node();
    const [ada, bob] = [await cluster.connect(node), await cluster.connect(node)];
    await ada.claim(TOKEN, 'ada');
    await bob.release(RIVAL, 'bob');
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(false);
    expect(await ada.release(TOKEN, 'ada')).toMatchObject({ granted: true, by: null });
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(true);
    expect((await ada.claim(TOKEN, 'ada')).granted).toBe(false);
  });

  test('for good stays with who has it, however long he is away, until he gives it back', async () => {
    const node = await cluster.node({ claimStaleMs: 100 });
    const [ada, bob] = [await cluster.connect(node), await cluster.connect(node)];
    expect((await ada.claim(TOKEN, 'ada')).granted).toBe(true);
    // Somebody else's word changes nothing.
    expect((await bob.claim(RIVAL, 'bob', { forGood: true })).granted).toBe(false);
    expect((await ada.claim(TOKEN, 'ada', { forGood: true })).granted).toBe(true);
    ada.end();
    await sleep(300);
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(false);
    const again = await cluster.connect(node);
    expect((await again.claim(TOKEN, 'ada, again')).granted).toBe(true);
    await bob.release(RIVAL, 'bob');
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(false);
    await again.release(TOKEN, 'ada, again');
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(true);
  });

  test('comes with the registration for the destination that the source knows', async () => {
    const node = await cluster.node({ claimStaleMs: 200 });
    const source = await cluster.connect(node);
    await source.register({ ...REGISTRATION, token: TOKEN });
    await sleep(300);
    const [ada, bob] = [await cluster.connect(node), await cluster.connect(node)];
    expect((await bob.claim(RIVAL, 'bob')).granted).toBe(false);
    expect((await ada.claim(TOKEN, 'ada')).granted).toBe(true);
    source.end();
    expect((await bob.claim(RIVAL, 'bob')).by).toBe('ada');
    expect((await MamNode.lookup(node.address, 'web'))[0]?.claimed).toBe('ada');
  });
});

describe('bodies from anybody', () => {
  const json = fc.jsonValue({ maxDepth: 2 });
  // Often right, in part.
  const field = (right: fc.Arbitrary<unknown>) => fc.oneof({ weight: 3, arbitrary: right }, json);
  const ref = fc.record({ address: field(fc.constantFrom('10.0.0.1:7', 'x')), id: field(fc.constantFrom(TOKEN, 'z')) });
  const body = fc.record(
    {
      name: field(fc.string()),
      vms: field(fc.array(fc.string(), { maxLength: 70 })),
      replicas: field(fc.integer({ min: -1, max: 20 })),
      parked: field(fc.boolean()),
      complete: field(fc.boolean()),
      frames: field(fc.integer()),
      leaseMs: field(fc.integer({ min: -1, max: 2 ** 33 })),
      voters: field(fc.array(ref, { maxLength: 7 })),
      nodes: field(fc.array(ref, { maxLength: 20 })),
      chain: field(fc.integer({ min: -1, max: 70_000 })),
      token: field(fc.constantFrom(TOKEN, 'x', null)),
      by: field(fc.string({ maxLength: 300 })),
      release: field(fc.boolean()),
    },
    { requiredKeys: [] },
  );

  test('are taken, or end their connection with PROTOCOL, and do no more', async () => {
    const node = await cluster.node({ maxMigrations: 64 });
    const good = await cluster.connect(node, { migration: OTHER });
    await putAll(good, range(3), []);
    const { CHAIN, REGISTER, LOOKUP, CLAIM, LEASE } = MessageType;
    const type = fc.constantFrom(CHAIN, REGISTER, LOOKUP, CLAIM, LEASE);
    const messages = fc.array(fc.tuple(type, body), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(messages, async (sent) => {
        const client = await Client.open(node.address, MIGRATION);
        for (const [what, json] of sent) client.channel.send(what, 0, encodeJson(json));
        client.channel.end();
        const error = await client.closed();
        if (error !== null) expect(error.message).toMatch(/\((PROTOCOL|NO_ROOM)\)$/);
        for (const { body, name } of client.answers) if (name !== 'STORED') JSON.parse(new TextDecoder().decode(body));
      }),
      { numRuns: 300 },
    );
    expect(await has(good, 3)).toBe(true);
    for (const found of await MamNode.lookup(node.address)) expect(found.vms.length).toBeLessThanOrEqual(64);
  });

  test('as long as they may be are told in whole to who looks', async () => {
    const node = await cluster.node();
    const name = (i: number) => String.fromCodePoint(0x1f600 + i).repeat(100);
    for (let i = 0; i < 20; i++) {
      const client = await cluster.connect(node, { migration: String(10 + i).repeat(16), role: 'source' });
      await client.register({ ...REGISTRATION, vms: range(60, 60 * i).map(name) });
    }
    const found = await MamNode.lookup(node.address);
    expect(found.length).toBe(2);
    expect((await MamNode.lookup(node.address, name(61)))[0]?.migration).toBe('11'.repeat(16));
    const long = await cluster.connect(node, { migration: OTHER });
    const vms = range(64).map((i) => `${'\u3042'.repeat(250)}${i}`);
    await expect(long.register({ ...REGISTRATION, vms })).rejects.toThrow(/32768 are allowed/);
  });
});
