// A node as its client sees it: what it may say and when, and what becomes of what it was asked when it is silent, or its connection breaks.
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { isSurelyGone, type KeeperOptions } from '#abdm/host/mam/keeper.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { parseAddress } from '#abdm/host/wire/address.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, type MessageHeader, MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import { Cluster, has, putAll, range } from '../intermediate/cluster.js';
import { message, pattern, same, sleep, until } from '../wire/pair.js';

const MIGRATION = 'ab'.repeat(16);
const { PUT, GET, STORED, FRAME, MISSING, PING, PONG } = MessageType;
const listeners: Listener[] = [];
const proxies: Server[] = [];
const cluster = new Cluster();

afterEach(async () => {
  await cluster.end();
  await Promise.all(listeners.splice(0).map((listener) => listener.close()));
  await Promise.all(proxies.splice(0).map((proxy) => new Promise((resolve) => proxy.close(resolve))));
});

/** A node that says WELCOME, and then what `answer` says. */
async function fakeNode(answer: (header: MessageHeader, channel: Channel) => void, ids = ['cd'.repeat(16)]) {
  let connections = 0;
  const listener = await listen('127.0.0.1:0', () => ({
    onMessage(header, _body, channel) {
      if (header.type !== MessageType.HELLO) return answer(header, channel);
      const id = ids[Math.min(connections++, ids.length - 1)];
      const welcome = { protocol: PROTOCOL_VERSION, role: 'intermediate', id, freeBytes: 1e9, memoryBytes: 1e9 };
      channel.send(MessageType.WELCOME, 0, encodeJson(welcome));
    },
  }));
  listeners.push(listener);
  return `127.0.0.1:${listener.address.port}`;
}

/** A node that says WELCOME, and then writes bytes when the first GET of a connection comes. */
async function rawNode(onGet: (socket: Socket, connection: number) => void) {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const connection = sockets.push(socket);
    let asked = false;
    socket.on('error', () => {});
    socket.once('data', () => {
      const welcome = {
        protocol: PROTOCOL_VERSION,
        role: 'intermediate',
        id: 'cd'.repeat(16),
        freeBytes: 1e9,
        memoryBytes: 1e9,
      };
      socket.write(message(MessageType.WELCOME, 0, encodeJson(welcome)));
      socket.on('data', (bytes) => {
        if (asked || bytes[0] !== GET) return;
        asked = true;
        onGet(socket, connection);
      });
    });
  });
  proxies.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const bound = server.address();
  return { address: `127.0.0.1:${typeof bound === 'object' && bound?.port}`, sockets };
}

/** A way to a node that can be cut: `reset` breaks all connections, `close` refuses new ones, `hold` lets nothing through. */
async function cuttable(address: string) {
  const pairs = new Set<[Socket, Socket]>();
  const proxy = { address: '', held: false, connections: 0, reset: () => {}, close: () => {} };
  const server = createServer((client) => {
    proxy.connections++;
    const node = connect(parseAddress(address));
    const pair: [Socket, Socket] = [client, node];
    pairs.add(pair);
    for (const [from, to] of [pair, [node, client]] as const) {
      from.on('data', (bytes) => proxy.held || to.write(bytes));
      from.on('error', () => {});
      from.on('close', () => {
        to.destroy();
        pairs.delete(pair);
      });
    }
  });
  proxies.push(server);
  proxy.reset = () => {
    for (const [client] of pairs) client.resetAndDestroy();
  };
  proxy.close = () => {
    server.close();
    proxy.reset();
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const bound = server.address();
  proxy.address = `127.0.0.1:${typeof bound === 'object' && bound?.port}`;
  return proxy;
}

const connectTo = (address: string, answerMs = 60_000, options: Partial<KeeperOptions> = {}) =>
  MamNode.connect(address, { migration: MIGRATION, role: 'source', answerMs, ...options });
const frame = new Uint8Array(1000);

describe('a node', () => {
  test('that takes a frame and never says so is given up', async () => {
    const node = await connectTo(await fakeNode(() => {}), 100);
    await expect(node.put(1, frame)).rejects.toMatchObject({
      code: 'PEER_GONE',
      message: /has not answered for 100 ms/,
    });
    expect(node.open).toBe(false);
    await expect(node.put(2, frame)).rejects.toMatchObject({ code: 'PEER_GONE' });
  });

  test('that answers in time, again and again, is not', async () => {
    const slow = await fakeNode(({ id }, channel) => {
      setTimeout(() => channel.send(MessageType.STORED, id, encodeU64s(5)), 60 * id);
    });
    const node = await connectTo(slow, 150);
    await Promise.all([1, 2, 3, 4, 5].map((id) => node.put(id, frame)));
    expect(node.stored).toEqual({ frames: 5, bytes: 5000 });
    expect([node.freeBytes, node.outstandingBytes]).toEqual([5, 0]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(node.open).toBe(true);
    node.end();
  });

  test('that answers what it was not asked, or too much, is left', async () => {
    const cases: [string, (header: MessageHeader, channel: Channel) => void][] = [
      ['STORED for frame 8', (_, channel) => channel.send(MessageType.STORED, 8, encodeU64s(1))],
      ['frame 8, which nobody asked for', (_, channel) => channel.send(MessageType.FRAME, 8, frame)],
      ['too many', (_, channel) => channel.send(MessageType.FRAME, 7, new Uint8Array(2000))],
      ['MISSING for frame 8', (_, channel) => channel.send(MessageType.MISSING, 8)],
      ['GET for frame 7', (_, channel) => channel.send(MessageType.GET, 7)],
    ];
    for (const [text, answer] of cases) {
      const node = await connectTo(await fakeNode(answer));
      await expect(node.get(7, new Uint8Array(1000)), text).rejects.toMatchObject({
        code: 'PROTOCOL',
        message: expect.stringContaining(text),
      });
    }
  });

  test('that refuses says whether it has no room or dislikes the frame', async () => {
    const address = await fakeNode(({ id }, channel) => {
      const code = id === 1 ? 'NO_ROOM' : 'FRAME_CHECKSUM';
      channel.send(MessageType.REFUSED, id, encodeJson({ code, message: 'no', freeBytes: 17 }));
    });
    const node = await connectTo(address);
    expect(await node.put(1, frame)).toEqual({ stored: false, code: 'NO_ROOM', message: 'no', node: address });
    expect(node.freeBytes).toBe(17);
    expect(await node.put(2, frame)).toMatchObject({ stored: false, code: 'FRAME_CHECKSUM' });
    expect(node.outstandingBytes).toBe(0);
    node.end();
  });

  test('that does not have a frame says so', async () => {
    const node = await connectTo(await fakeNode(({ id }, channel) => channel.send(MessageType.MISSING, id)));
    await expect(node.get(3, new Uint8Array(10))).rejects.toMatchObject({ code: 'FRAME_LOST' });
    node.end();
  });
});

describe('a request that is late', () => {
  test('is given up alone; its answer is counted when it comes', async () => {
    const late: (() => void)[] = [];
    const address = await fakeNode(({ type, id }, channel) => {
      if (type === PING) channel.send(PONG, 0);
      else
        late.push(() =>
          channel.send(type === PUT ? STORED : FRAME, id, type === PUT ? encodeU64s(77) : pattern(500, id)),
        );
    });
    const node = await connectTo(address, 500);
    const error = { code: 'PEER_UNREACHABLE', message: expect.stringContaining('within 100 ms') };
    let free = 0;
    const put = node.put(1, frame, [], { deadlineMs: 100, onFree: () => free++ });
    const get = node.get(2, new Uint8Array(500), { deadlineMs: 100 });
    await expect(put).rejects.toMatchObject(error);
    await expect(get).rejects.toMatchObject(error);
    expect([node.open, node.outstandingBytes, free]).toEqual([true, 1000, 1]);
    expect(await node.ping(1000)).toBe(true);
    await expect(node.put(1, frame)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
    for (const answer of late.splice(0)) answer();
    await until(() => node.stored.frames === 1 && node.freeBytes === 77);
    expect([node.outstandingBytes, free]).toEqual([0, 1]);
    // The frame nobody waits for any more went nowhere; asked again, it comes.
    await until(() => node.bytesIn > 500);
    // Nothing is due any more.
    await sleep(600);
    expect(node.open).toBe(true);
    const again = node.get(2, new Uint8Array(500));
    await until(() => late.length === 1);
    late[0]!();
    expect(await again).toBe(500);
    node.end();
  });

  test('serves who asks again before it comes', async () => {
    let answer = () => {};
    let asked = 0;
    const address = await fakeNode(({ id }, channel) => {
      asked++;
      answer = () => channel.send(FRAME, id, pattern(500, id));
    });
    const node = await connectTo(address);
    await expect(node.get(2, new Uint8Array(500), { deadlineMs: 50 })).rejects.toMatchObject({
      code: 'PEER_UNREACHABLE',
    });
    const into = new Uint8Array(600);
    const again = node.get(2, into);
    await expect(node.get(2, into)).rejects.toMatchObject({ message: /already/ });
    answer();
    expect(await again).toBe(500);
    expect(same(into.subarray(0, 500), pattern(500, 2))).toBe(true);
    expect(asked).toBe(1);
    node.end();
  });

  test('is not late while the node sends other things', async () => {
    const address = await fakeNode(({ type, id }, channel) => {
      if (type !== GET) return;
      for (let i = 1; i < 6; i++) setTimeout(() => channel.send(PONG, 0), 60 * i);
      setTimeout(() => channel.send(MISSING, id), 400);
    });
    const node = await connectTo(address);
    for (let i = 1; i < 6; i++) void node.ping(5000);
    await expect(node.get(2, frame, { deadlineMs: 150 })).rejects.toMatchObject({ code: 'FRAME_LOST' });
    node.end();
  });

  test('and comes slowly is waited for; if it stops in the middle, its connection is made anew', async () => {
    const whole = message(FRAME, 2, pattern(500, 2));
    const { address, sockets } = await rawNode((socket, connection) => {
      if (connection === 2) {
        socket.write(message(FRAME, 3, pattern(500, 3)));
        return;
      }
      for (let i = 0; i < 10; i++) setTimeout(() => socket.write(whole.subarray(52 * i, 52 * (i + 1))), 40 * i);
      setTimeout(() => socket.write(message(FRAME, 3, pattern(500, 3)).subarray(0, 300)), 450);
    });
    const node = await connectTo(address);
    const slow = new Uint8Array(500);
    const stuck = new Uint8Array(500);
    const options = { deadlineMs: 150 };
    const gets = Promise.allSettled([node.get(2, slow, options), node.get(3, stuck, options)]);
    const [two, three] = await gets;
    expect(two).toEqual({ status: 'fulfilled', value: 500 });
    expect(same(slow, pattern(500, 2))).toBe(true);
    expect(three).toMatchObject({ status: 'rejected', reason: { code: 'PEER_UNREACHABLE' } });
    await until(() => sockets[0]!.destroyed || sockets[0]!.readableEnded);
    stuck.fill(0);
    await until(() => node.open);
    expect(await node.get(3, slow, options)).toBe(500);
    expect(stuck.every((byte) => byte === 0)).toBe(true);
    node.end();
  });

  test('has its bytes kept as long as a socket reads them', async () => {
    const { address, sockets } = await rawNode(() => {});
    const node = await connectTo(address);
    sockets[0]!.pause();
    const blocks = range(100).map(() => new Uint8Array(264 * 1024));
    let free = 0;
    const puts = blocks.map((block, i) => node.put(i + 1, block, [], { deadlineMs: 50, onFree: () => free++ }));
    expect((await Promise.allSettled(puts)).every(({ status }) => status === 'rejected')).toBe(true);
    expect(free).toBeLessThan(100);
    sockets[0]!.resume();
    await until(() => free === 100);
    expect(node.open).toBe(true);
    node.end();
  });
});

describe('a connection that breaks', () => {
  test('is made again: what was not answered is asked again, of the same node', async () => {
    const [a] = await cluster.nodes(1);
    const way = await cuttable(a!.address);
    const states: boolean[] = [];
    const node = await connectTo(way.address, 60_000, { onState: ({ open }) => states.push(open) });
    const bytes = 100_000;
    for (let round = 0; round < 20; round++) {
      const puts = putAll(node, range(20, 20 * round), [], bytes);
      await until(() => node.stored.frames >= 20 * round + (round % 5) * 4);
      way.reset();
      expect((await puts).every(({ stored }) => stored)).toBe(true);
      const got = has(node, 20 * round + 7, bytes);
      const pinged = node.ping(5000);
      way.reset();
      expect([await got, await pinged]).toEqual([true, true]);
    }
    expect(a!.status().frames).toBe(400);
    expect(node.stored.frames).toBe(400);
    expect(node.outstandingBytes).toBe(0);
    expect(way.connections).toBeGreaterThan(20);
    expect(states.slice(0, 2)).toEqual([false, true]);
    node.end();
  });

  test('and nobody listens any more: the node is surely gone', async () => {
    const [a] = await cluster.nodes(1);
    const way = await cuttable(a!.address);
    const node = await connectTo(way.address);
    let told = 0;
    const next = await connectTo(way.address, 60_000, { onState: ({ gone }) => gone && told++ });
    way.close();
    await until(() => next.gone !== null);
    expect(next.gone).toMatchObject({ surely: true, error: { code: 'PEER_UNREACHABLE' } });
    expect(told).toBe(1);
    await expect(next.put(1, frame)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
    await expect(next.list(0)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
    expect(await next.ping(100)).toBe(false);
    await until(() => node.gone !== null);
  });

  test('and another node is there: ours is surely gone', async () => {
    const address = await fakeNode(
      ({ type }, channel) => type === GET && channel.destroy(),
      ['cd'.repeat(16), 'ef'.repeat(16)],
    );
    const node = await connectTo(address);
    await expect(node.get(1, frame)).rejects.toThrow(/another one than before/);
    expect(node.gone?.surely).toBe(true);
    await expect(connectTo(address, 100, { id: '00'.repeat(16) })).rejects.toSatisfy(isSurelyGone);
  });

  test('and is accepted, but not answered, for 2 s: the node is out of reach, and may be there still', async () => {
    const [a] = await cluster.nodes(1);
    const way = await cuttable(a!.address);
    const node = await connectTo(way.address);
    way.held = true;
    const began = performance.now();
    const put = node.put(1, frame);
    way.reset();
    await expect(put).rejects.toMatchObject({ code: 'PEER_UNREACHABLE', message: expect.stringContaining('WELCOME') });
    expect(performance.now() - began).toBeLessThan(3000);
    expect(node.gone?.surely).toBe(false);
  });

  test('each time something is asked is not made for ever', async () => {
    let connections = 0;
    const address = await fakeNode(({ type }, channel) => {
      connections++;
      if (type === PUT) channel.destroy();
    });
    const node = await connectTo(address);
    await expect(node.put(1, frame)).rejects.toMatchObject({ code: 'PEER_GONE' });
    expect(connections).toBe(5);
  });

  test('and was ended by us is not made again', async () => {
    const [a] = await cluster.nodes(1);
    const way = await cuttable(a!.address);
    const node = await connectTo(way.address);
    node.end();
    await until(() => node.gone !== null);
    await sleep(200);
    expect(way.connections).toBe(1);
  });
});
