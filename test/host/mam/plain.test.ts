// A node that is secured, as its client speaks to it: over two connections, TLS and a plain one by ticket, on a way that somebody watches or disturbs.
import { connect as netConnect } from 'node:net';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Intermediate } from '#abdm/host/intermediate/intermediate.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { parseAddress } from '#abdm/host/wire/address.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { connect } from '#abdm/host/wire/connect.js';
import { decodeJson, encodeJson } from '#abdm/host/wire/json.js';
import { MessageType, messageName, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import type { Security } from '#abdm/host/wire/security.js';
import { needTicket, preambleOf, type Ticket } from '#abdm/host/wire/tickets.js';
import { Authority } from '../../certificates.js';
import { MIGRATION } from '../intermediate/client.js';
import { Cluster, has, putAll, REGISTRATION, range } from '../intermediate/cluster.js';
import { gone, Probe, pattern, sleep, until } from '../wire/pair.js';
import { disturbing, Way } from '../wire/way.js';

const KEY: Security = { clusterKey: pattern(32, 77_777), tls: null };
const TOKEN = '77ab'.repeat(8);
const VM = 'a-name-that-nobody-should-read';
const cluster = new Cluster();

afterEach(() => cluster.end());

function certificates(): Security {
  const authority = new Authority('cluster');
  return { clusterKey: null, tls: { ...authority.issue('node'), ca: authority.cert } };
}

async function watched(count: number, security: Security) {
  const nodes = await cluster.nodes(count, { security });
  const ways = await Promise.all(nodes.map(({ address }) => Way.to(address)));
  onTestFinished(async () => {
    await cluster.end();
    await Promise.all(ways.map((way) => way.close()));
  });
  return { nodes, ways, chain: nodes.map(({ id }, i) => ({ id, address: ways[i]!.address })) };
}

/** Both connections by hand: the first one, and the ticket that came on it. */
async function byHand(node: Intermediate): Promise<{ talk: Channel; first: Probe; ticket: Ticket }> {
  const first = new Probe();
  const talk = await connect(node.address, first, { security: KEY, lingerMs: 200 });
  talk.send(MessageType.HELLO, 0, encodeJson({ protocol: PROTOCOL_VERSION, role: 'source', migration: MIGRATION }));
  await until(() => first.messages.length > 0);
  const ticket = needTicket(decodeJson(first.messages[0]!.body, 'WELCOME'), 'ticket', 'WELCOME')!;
  return { talk, first, ticket };
}

async function plainly(node: Intermediate, ticket: Ticket): Promise<{ plain: Channel; second: Probe }> {
  const second = new Probe();
  return { plain: await connect(node.address, second, { ticket, lingerMs: 200 }), second };
}

describe('two connections', () => {
  test.each([
    ['a key', KEY],
    ['certificates', certificates()],
  ])(
    'with %s: blocks go over the plain one, to the node and on from it, and nothing secret does',
    async (_, security) => {
      const { nodes, ways, chain } = await watched(2, security);
      const source = await cluster.connect(chain[0]!, { security });
      await source.register({ ...REGISTRATION, vms: [VM], token: TOKEN });
      const bytes = 100_000;
      expect((await putAll(source, range(20), chain, bytes)).every(({ stored }) => stored)).toBe(true);
      const reader = await cluster.connect(chain[1]!, { security, role: 'destination' });
      expect(await reader.claim(TOKEN, 'me')).toMatchObject({ granted: true });
      expect((await reader.list(0)).length).toBe(20);
      for (const id of range(20)) expect(await has(reader, id, bytes)).toBe(true);
      expect(await source.ping(5000)).toBe(true);
      expect(source.bytesOut).toBeGreaterThan(20 * bytes);
      expect(await source.drop()).toEqual({ frames: 20, bytes: 20 * bytes });
      await until(() => nodes[1]!.status().frames === 0);

      for (const [i, way] of ways.entries()) {
        const plain = way.heard('plain');
        // To the first the source puts; to the second the first, and a destination gets.
        expect(plain.byteLength).toBeGreaterThan((i + 1) * 20 * bytes);
        for (const id of range(20))
          expect(plain.includes(Buffer.from(pattern(bytes, id).subarray(50, 500)))).toBe(true);
        expect(way.heard('tls').byteLength).toBeLessThan(60_000);
        const secrets = [VM, TOKEN, 'secret', 'ticket', Buffer.from(TOKEN, 'hex'), MIGRATION, 'destination'];
        for (const secret of secrets) expect(plain.includes(secret), String(secret)).toBe(false);
        if (security.clusterKey) expect(plain.includes(Buffer.from(security.clusterKey))).toBe(false);
      }
    },
  );

  test('there is one, where nothing is secured', async () => {
    const [node] = await cluster.nodes(1);
    const way = await Way.to(node!.address);
    onTestFinished(() => way.close());
    const client = await cluster.connect(way);
    expect((await putAll(client, range(10), [])).every(({ stored }) => stored)).toBe(true);
    expect(await client.list(0)).toEqual(range(10));
    expect(way.connections).toEqual({ tls: 0, plain: 1 });
    client.end();
    await until(() => client.gone !== null);
  });

  test.each(['tls', 'plain'] as const)(
    'of which %s breaks are both made again, and what was asked is answered',
    async (kind) => {
      const { nodes, ways, chain } = await watched(1, KEY);
      const [way] = ways;
      const node = await cluster.connect(chain[0]!, { security: KEY });
      const bytes = 100_000;
      for (let round = 0; round < 8; round++) {
        const puts = putAll(node, range(20, 1 + 20 * round), [], bytes);
        await until(() => node.stored.frames >= 20 * round + (round % 5) * 4);
        way!.reset(kind);
        expect((await puts).every(({ stored }) => stored)).toBe(true);
        const [got, listed, pinged] = [has(node, 20 * round + 7, bytes), node.list(0), node.ping(5000)];
        way!.reset(kind);
        expect(await got).toBe(true);
        expect((await listed).length).toBe(20 * (round + 1));
        expect(await pinged).toBe(true);
      }
      expect(nodes[0]!.status().frames).toBe(160);
      expect(node.gone).toBe(null);
      expect(way!.connections.tls).toBeGreaterThan(8);
      expect(way!.connections.plain).toBeGreaterThan(8);
      // Of those that broke nothing is left.
      await until(() => nodes[0]!.status().connections === 2);
      node.end();
      await until(() => nodes[0]!.status().connections === 0);
    },
  );

  test('of which the plain one is always broken: the node is given up, not tried for ever', async () => {
    const { ways, chain } = await watched(1, KEY);
    // The ticket and PING pass.
    ways[0]!.meddle = (piece, { there, passed }) => (there && passed >= 52 ? Buffer.alloc(piece.byteLength) : piece);
    const node = await cluster.connect(chain[0]!, { security: KEY });
    const asked = node.register(REGISTRATION);
    await expect(putAll(node, range(20), [], 50_000)).rejects.toMatchObject({ code: 'PEER_GONE' });
    await asked;
    expect(node.gone?.surely).toBe(false);
    expect(ways[0]!.connections.plain).toBe(5);
  });
});

describe('somebody on the way', () => {
  test('who changes, leaves out or repeats what is said on the plain connection only holds it up', async () => {
    const { nodes, ways, chain } = await watched(2, KEY);
    for (const way of ways) way.meddle = disturbing(3, 300_000);
    const dial = () => cluster.connect(chain[0]!, { security: KEY, answerMs: 1000 });
    let source = await dial();
    const bytes = 100_000;
    const ids = range(60);
    for (const id of ids) {
      let stored = false;
      // As whoever puts does: what is refused, because the second was disturbed, is put again, and a node that fell silent is another one.
      const by = Date.now() + 30_000;
      while (!stored && Date.now() < by) {
        if (source.gone) source = await dial();
        stored = await source.put(id, pattern(bytes, id), chain).then(
          (result) => result.stored,
          () => false,
        );
      }
      expect(stored).toBe(true);
    }
    for (const way of ways) expect(way.connections.plain).toBeGreaterThan(3);
    for (const node of nodes) {
      expect(node.status()).toMatchObject({ frames: 60, keptBytes: 60 * bytes });
      const reader = await cluster.connect(node, { security: KEY, role: 'destination' });
      for (const id of ids) expect(await has(reader, id, bytes)).toBe(true);
    }
  });

  test('between two nodes, who lets nothing more through on a connection that stands, is got round by a new one', async () => {
    const { ways, chain } = await watched(2, KEY);
    const source = await cluster.connect(chain[0]!, { security: KEY });
    await putAll(source, range(3), chain);
    const made = ways[1]!.connections.plain;
    ways[1]!.meddle = (piece, { connection }) => (connection < made ? null : piece);
    expect(await source.put(4, pattern(9000, 4), chain)).toMatchObject({ stored: false, node: chain[1]!.address });
    const by = performance.now() + 15_000;
    let stored = false;
    while (!stored && performance.now() < by) {
      await sleep(100);
      ({ stored } = await source.put(4, pattern(9000, 4), chain));
    }
    expect(stored).toBe(true);
    expect(ways[1]!.connections.plain).toBe(made + 1);
  }, 30_000);

  test('who says again what was said, or takes a ticket that he saw, gets nothing', async () => {
    const { nodes, ways, chain } = await watched(1, KEY);
    const [node] = nodes;
    const source = await cluster.connect(chain[0]!, { security: KEY });
    await putAll(source, range(3), []);
    const before = node!.status().frames;
    const again = netConnect(parseAddress(node!.address));
    again.write(ways[0]!.said('plain')[0]!);
    await gone(again);
    // One that was not used yet, without its secret.
    const { talk, first, ticket } = await byHand(node!);
    const thief = netConnect(parseAddress(node!.address));
    thief.write(Buffer.concat([preambleOf(ticket), ways[0]!.said('plain')[0]!.subarray(20)]));
    await gone(thief);
    expect(node!.status().frames).toBe(before);
    // Whose ticket it was notices, for both connections end.
    expect(await first.closed).toMatchObject({ code: 'PEER_GONE' });
    talk.destroy();
    const late = await plainly(node!, ticket);
    late.plain.send(MessageType.PING, 0);
    expect(await late.second.closed).toMatchObject({ code: 'PEER_GONE' });
    expect(late.second.messages).toEqual([]);
    expect(source.open).toBe(true);
  });
});

describe('a plain connection', () => {
  const { HELLO, REGISTER, LOOKUP, CLAIM, LEASE, LIST, DROP, STORED, FRAME } = MessageType;
  test.each<[string, MessageType, Uint8Array?]>([
    ['HELLO', HELLO, encodeJson({ protocol: PROTOCOL_VERSION, role: 'source', migration: 'b'.repeat(32) })],
    ['REGISTER', REGISTER, encodeJson({ ...REGISTRATION, vms: ['other'] })],
    ['LOOKUP', LOOKUP, encodeJson({})],
    ['CLAIM', CLAIM, encodeJson({ token: TOKEN, by: 'me' })],
    ['LEASE', LEASE, encodeJson({ leaseMs: 60_000 })],
    ['LIST', LIST],
    ['DROP', DROP],
    ['STORED', STORED, new Uint8Array(8)],
    ['FRAME', FRAME, new Uint8Array(8)],
  ])('takes no %s, does not say why in words, and nothing has happened', async (name, type, body) => {
    const [node] = await cluster.nodes(1, { security: KEY });
    const owner = await cluster.connect(node!, { security: KEY });
    await owner.register({ ...REGISTRATION, vms: [VM] });
    await owner.put(1, pattern(9000, 1));
    const { plain, second } = await plainly(node!, (await byHand(node!)).ticket);
    plain.send(type, 0, body);
    expect(await second.closed).toMatchObject({ code: 'PEER_ABORTED', cause: { code: 'PROTOCOL' } });
    expect(String(await second.closed)).not.toContain(`${name} `);
    const said = () => cluster.events.flatMap((event) => (event.type === 'closed' && event.error ? [event.error] : []));
    await until(() => said().some(({ message }) => message.startsWith(`${name} is nothing `)));
    expect(await MamNode.lookup(node!.address, undefined, KEY)).toMatchObject([{ vms: [VM], claimed: null }]);
    expect(node!.status().frames).toBe(1);
  });

  test('keeps no migration: who is there is said by the other one', async () => {
    const [node] = await cluster.nodes(1, { security: KEY, orphanMs: 300 });
    const { talk, ticket } = await byHand(node!);
    const { plain, second } = await plainly(node!, ticket);
    plain.send(MessageType.PUT, 1, pattern(9000, 1));
    await until(() => second.messages.length === 1);
    expect(node!.status()).toMatchObject({ frames: 1, migrations: [{ connections: 1 }] });
    talk.end();
    await until(() => node!.status().migrations.length === 0);
    expect(plain.open).toBe(true);
    plain.send(MessageType.PUT, 2, pattern(9000, 2));
    await until(() => second.messages.length === 2);
    expect(second.messages.map(({ header }) => messageName(header.type))).toEqual(['STORED', 'REFUSED']);
    expect(node!.status().frames).toBe(0);
    plain.end();
  });

  test('brings nothing back after DROP on the other one, whatever was under way', async () => {
    const { nodes, chain } = await watched(2, KEY);
    const { freeBytes } = nodes[0]!.status();
    const source = await cluster.connect(chain[0]!, { security: KEY });
    const bytes = 200_000;
    const puts = Promise.allSettled(range(200).map((id) => source.put(id, pattern(bytes, id), chain)));
    await until(() => source.stored.frames > 20);
    const dropped = await source.drop();
    expect(dropped.frames).toBeGreaterThan(20);
    const results = await puts;
    const refused = results.filter((result) => result.status === 'fulfilled' && !result.value.stored);
    expect(refused.length).toBeGreaterThan(0);
    await until(() => nodes.every((node) => node.status().migrations.length === 0));
    for (const node of nodes) {
      expect(node.status()).toMatchObject({ frames: 0, keptBytes: 0, freeBytes });
      await expect(cluster.connect(node, { security: KEY })).rejects.toMatchObject({ cause: { code: 'CANCELLED' } });
    }
    source.end();
  });
});
