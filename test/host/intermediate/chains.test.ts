// Blocks on their way down a chain, and what becomes of them when one of its members is dead, silent or full.
import { afterEach, describe, expect, test } from 'vitest';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { pattern, same, until } from '../wire/pair.js';
import { Client } from './client.js';
import { Cluster, has, putAll, range } from './cluster.js';

const MiB = 2 ** 20;
const cluster = new Cluster();
const listeners: Listener[] = [];

afterEach(async () => {
  await cluster.end();
  await Promise.all(listeners.splice(0).map((listener) => listener.close()));
});

/** A node that says WELCOME, and nothing more. */
async function mute(): Promise<{ address: string; id: string; puts: number }> {
  const node = { address: '', id: 'ee'.repeat(16), puts: 0 };
  const listener = await listen('127.0.0.1:0', () => ({
    onMessage({ type }, _, channel) {
      if (type === MessageType.PUT) node.puts++;
      if (type !== MessageType.HELLO) return;
      const welcome = { protocol: 3, role: 'intermediate', id: node.id, freeBytes: 1e9, memoryBytes: 1e9 };
      channel.send(MessageType.WELCOME, 0, encodeJson(welcome));
    },
  }));
  listeners.push(listener);
  node.address = `127.0.0.1:${listener.address.port}`;
  return node;
}

describe('a chain', () => {
  test.each([1, 2, 3])('of %i: every holder has the block, bit-exact, when the source is told so', async (length) => {
    const nodes = await cluster.nodes(length);
    const client = await cluster.connect(nodes[0]!);
    const ids = range(40);
    const bytes = 200_000;
    const results = await putAll(client, ids, nodes, bytes);
    for (const result of results) {
      expect(result).toMatchObject({ stored: true });
      if (result.stored) expect(result.freeBytes.length).toBe(length);
    }
    for (const node of nodes) {
      expect(node.status()).toMatchObject({ frames: 40, keptBytes: 40 * bytes });
      const reader = await cluster.connect(node, { role: 'destination' });
      for (const id of ids) expect(await has(reader, id, bytes)).toBe(true);
    }
    // The source's link carries each block once.
    expect(client.bytesOut).toBeLessThan(1.01 * 40 * bytes);
    expect(client.stored).toEqual({ frames: 40, bytes: 40 * bytes });
    expect(client.outstandingBytes).toBe(0);
  });

  test('takes a block on that its first members keep already', async () => {
    const [a, b, c] = await cluster.nodes(3);
    const client = await cluster.connect(a!);
    expect(await client.put(1, pattern(9000, 1))).toMatchObject({ stored: true });
    expect(await client.put(2, pattern(9000, 2), [a!, b!])).toMatchObject({ stored: true });
    const [one, two] = await putAll(client, [1, 2], [a!, b!, c!]);
    expect([one?.stored, two?.stored]).toEqual([true, true]);
    const reader = await cluster.connect(c!);
    expect([await has(reader, 1), await has(reader, 2)]).toEqual([true, true]);
    // Another making of it is as good: the first one stays.
    expect(await client.put(1, pattern(9001, 1), [a!, b!])).toMatchObject({ stored: true });
  });

  test('is told to the first node once, and by its number from then on', async () => {
    const [a, b] = await cluster.nodes(2);
    const client = await cluster.connect(a!);
    await client.put(1, pattern(100, 1), [a!, b!]);
    const before = client.bytesOut;
    await client.put(2, pattern(100, 2), [a!, b!]);
    expect(client.bytesOut - before).toBe(116);
  });

  test('that nobody has named, or that this node is not in, ends the connection', async () => {
    const [a, b] = await cluster.nodes(2);
    const { CHAIN, PUT } = MessageType;
    const chain = (nodes: object[], number = 1) => encodeJson({ chain: number, nodes });
    const cases: [string, (client: Client) => void][] = [
      ['no CHAIN has said what chain 7 is', (c) => c.channel.send(PUT, 1, pattern(10, 1), undefined, 7)],
      ['is not in it', (c) => c.channel.send(CHAIN, 0, chain([{ address: b!.address, id: b!.id }]))],
      [
        'a node stands in it twice',
        (c) => c.channel.send(CHAIN, 0, chain([a!, b!, a!].map(({ address, id }) => ({ address, id })))),
      ],
      ['`chain` is not a whole number', (c) => c.channel.send(CHAIN, 0, chain([], 0))],
      ['HOST:PORT', (c) => c.channel.send(CHAIN, 0, chain([{ address: 'nowhere', id: a!.id }]))],
      ['32 hexadecimal', (c) => c.channel.send(CHAIN, 0, chain([{ address: a!.address, id: 'A' }]))],
    ];
    for (const [text, say] of cases) {
      const client = await Client.open(a!.address);
      say(client);
      expect((await client.closed())!.message).toContain(text);
    }
  });
});

describe('a member that', () => {
  test.each([1, 2])(
    'is killed, at place %i of three, is named; what it kept nobody else of the chain forgets',
    async (place) => {
      const nodes = await Promise.all(range(3).map(() => cluster.process(1024 * MiB)));
      const client = await cluster.connect(nodes[0]!);
      expect((await putAll(client, range(10), nodes)).every(({ stored }) => stored)).toBe(true);
      // Several blocks are on their way at any time, until one does not arrive.
      const stored: number[] = [];
      const failed: string[] = [];
      let id = 11;
      const worker = async () => {
        while (failed.length === 0) {
          const mine = id++;
          const result = await client.put(mine, pattern(100_000, mine % 50), nodes);
          if (result.stored) stored.push(mine);
          else failed.push(result.node);
        }
      };
      const workers = Promise.all(range(8).map(worker));
      await until(() => client.stored.frames > 20);
      await nodes[place]!.kill();
      await workers;
      expect(new Set(failed)).toEqual(new Set([nodes[place]!.address]));
      // From now on it is known: nobody waits for it.
      const began = performance.now();
      expect(await client.put(1e6, pattern(100, 5), nodes)).toMatchObject({
        stored: false,
        node: nodes[place]!.address,
      });
      expect(performance.now() - began).toBeLessThan(1000);
      const other = nodes[3 - place]!;
      expect(await client.put(1e6 + 1, pattern(100, 5), [nodes[0]!, other])).toMatchObject({ stored: true });
      const reader = await cluster.connect(other);
      const into = new Uint8Array(100_000);
      for (const id of stored) {
        await reader.get(id, into);
        expect(same(into, pattern(100_000, id % 50))).toBe(true);
      }
    },
  );

  test.each([1, 2])(
    'is stopped, at place %i of three, is named within 3 s, and used again when it goes on',
    async (place) => {
      const nodes = await Promise.all([cluster.process(), cluster.process(), cluster.process()]);
      const client = await cluster.connect(nodes[0]!);
      await putAll(client, range(10), nodes);
      nodes[place]!.stop();
      const began = performance.now();
      const results = await putAll(client, range(10, 11), nodes);
      expect(performance.now() - began).toBeLessThan(3500);
      for (const result of results) expect(result).toMatchObject({ stored: false, node: nodes[place]!.address });
      // Now it is known, and nobody waits for it, until it answers.
      const known = performance.now();
      expect(await client.put(50, pattern(9000, 50), nodes)).toMatchObject({ stored: false });
      expect(performance.now() - known).toBeLessThan(1000);
      nodes[place]!.go();
      let result = results[0]!;
      for (let tries = 0; tries < 100 && !result.stored; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        result = await client.put(11, pattern(9000, 11), nodes);
      }
      expect(result.stored).toBe(true);
    },
  );

  test.each([0, 1, 2])('is full, at place %i of three, is named', async (place) => {
    const nodes = await Promise.all([0, 1, 2].map((i) => cluster.node({ memoryBytes: i === place ? MiB : 64 * MiB })));
    const client = await cluster.connect(nodes[0]!);
    const results = await putAll(client, range(8), nodes, MAX_FRAME_BYTES);
    expect(results.filter(({ stored }) => stored).length).toBe(3);
    for (const result of results.filter(({ stored }) => !stored)) {
      expect(result).toMatchObject({ code: 'NO_ROOM', node: nodes[place]!.address });
    }
  });

  test('was started again is another one, and is not given what the old one was meant to have', async () => {
    const nodes = await cluster.nodes(2);
    const [a, b] = nodes;
    const client = await cluster.connect(a!);
    const chain = [a!, { address: b!.address, id: '77'.repeat(16) }];
    const result = await client.put(1, pattern(9000, 1), chain);
    expect(result).toMatchObject({ stored: false, node: b!.address });
    expect(b!.status().frames).toBe(0);
  });

  test('says nothing holds up only what goes through it', async () => {
    const [a, b] = await cluster.nodes(2);
    const silent = await mute();
    const client = await cluster.connect(a!);
    const stuck = putAll(client, range(30), [a!, silent], 100_000);
    const began = performance.now();
    const passing = await putAll(client, range(30, 101), [a!, b!], 100_000);
    expect(passing.every(({ stored }) => stored)).toBe(true);
    expect(await has(client, 3, 100_000)).toBe(true);
    expect(performance.now() - began).toBeLessThan(1500);
    for (const result of await stuck) expect(result).toMatchObject({ stored: false, node: silent.address });
    expect(silent.puts).toBe(30);
  });

  test('takes nothing is not given more than a bounded amount', async () => {
    const a = await cluster.node({ memoryBytes: 256 * MiB });
    const silent = await mute();
    const client = await cluster.connect(a);
    const body = pattern(MAX_FRAME_BYTES, 1);
    const results = await Promise.all(range(300).map((id) => client.put(id, body, [a, silent])));
    expect(results.every(({ stored }) => !stored)).toBe(true);
    expect(silent.puts * MAX_FRAME_BYTES).toBeLessThanOrEqual(32 * MiB);
    expect(silent.puts).toBeGreaterThan(100);
  });
});

describe('a migration that is dropped', () => {
  test.each([0, 5, 60])('while blocks are forwarded, %i of them stored, leaves nothing anywhere', async (stored) => {
    const nodes = await cluster.nodes(3);
    const clients = await Promise.all(nodes.map((node) => cluster.connect(node)));
    const flying = clients.map((client, i) => {
      const chain = [...nodes.slice(i), ...nodes.slice(0, i)];
      return putAll(client, range(60, 100 * i), chain, 200_000);
    });
    await until(() => clients[0]!.stored.frames >= stored);
    // One is told: it tells the others.
    await clients[1]!.drop();
    const results = (await Promise.allSettled(flying)).flatMap((result) =>
      result.status === 'fulfilled' ? result.value : [],
    );
    for (const result of results) if (!result.stored) expect(result.code).toMatch(/CANCELLED|PEER_ABORTED|PEER_GONE/);
    await until(() => nodes.every((node) => node.status().migrations.length === 0));
    for (const client of clients) client.end();
    await until(() => nodes.every((node) => node.status().connections === 0));
    for (const node of nodes) {
      expect(node.status()).toMatchObject({ frames: 0, freeBytes: 64 * MiB, migrations: [] });
      await expect(cluster.connect(node)).rejects.toMatchObject({ code: 'PEER_ABORTED', cause: { code: 'CANCELLED' } });
    }
  });
});
