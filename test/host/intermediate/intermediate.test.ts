import { afterEach, describe, expect, it } from 'vitest';
import {
  type Intermediate,
  type IntermediateEvent,
  type IntermediateOptions,
  startIntermediate,
} from '#abdm/host/intermediate/intermediate.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { message, pattern, same, sleep, until } from '../wire/pair.js';
import { Client, MIGRATION } from './client.js';

const MiB = 2 ** 20;
const OTHER = 'b'.repeat(32);
const started: Intermediate[] = [];
let events: IntermediateEvent[] = [];

async function start(options: Partial<IntermediateOptions> = {}): Promise<Intermediate> {
  events = [];
  const intermediate = await startIntermediate({
    listen: '127.0.0.1:0',
    memoryBytes: 64 * MiB,
    onEvent: (event) => events.push(event),
    check: () => null,
    ...options,
    channel: { lingerMs: 200, ...options.channel },
  });
  started.push(intermediate);
  return intermediate;
}

afterEach(async () => {
  await Promise.all(started.splice(0).map((intermediate) => intermediate.close()));
});

describe('an intermediate', () => {
  it('says what room it has, keeps frames of every length, and gives them back bit-exact', async () => {
    const node = await start();
    const client = await Client.open(node.address);
    const frames = new Map<number, Uint8Array>();
    for (const [i, bytes] of [1, 63, 64, 65, 4096, 100_001, MAX_FRAME_BYTES - 1, MAX_FRAME_BYTES].entries()) {
      frames.set(i === 0 ? 2 ** 53 - 1 : i, pattern(bytes, i));
    }
    let free = 64 * MiB;
    for (const [id, body] of frames) {
      const left = await client.put(id, body);
      expect(left).toBeLessThanOrEqual(free - body.byteLength);
      expect(left).toBeGreaterThan(free - body.byteLength - 256);
      free = left as number;
    }
    const other = await Client.open(node.address, MIGRATION, 'destination');
    for (const [id, body] of [...frames].reverse()) expect(same((await other.get(id))!, body)).toBe(true);
    expect(await other.get(77)).toBe(null);
    const keptBytes = [...frames.values()].reduce((sum, body) => sum + body.byteLength, 0);
    expect(node.status()).toMatchObject({ frames: frames.size, keptBytes, freeBytes: free, connections: 2 });
  });

  it('spreads frames over banks, and answers pipelined GETs of several destinations in order', async () => {
    const node = await start({ memoryBytes: 96 * MiB });
    const source = await Client.open(node.address);
    const count = 300;
    const bodies = Array.from({ length: 8 }, (_, i) => pattern(MAX_FRAME_BYTES - i * 1000, i));
    for (let id = 0; id < count; id++) source.channel.send(MessageType.PUT, id, bodies[id % 8]);
    for (let id = 0; id < count; id++) expect((await source.next('STORED')).id).toBe(id);
    expect(node.status().keptBytes).toBeGreaterThan(64 * MiB);
    const destinations = await Promise.all([1, 2, 3].map(() => Client.open(node.address, MIGRATION, 'destination')));
    await Promise.all(
      destinations.map(async (client, which) => {
        const order = Array.from({ length: count }, (_, i) => (i * (which * 6 + 1)) % count);
        for (const id of order) client.channel.send(MessageType.GET, id);
        client.channel.send(MessageType.GET, count);
        for (const id of order) {
          const answer = await client.next('FRAME');
          expect(answer.id).toBe(id);
          expect(same(answer.body, bodies[id % 8]!)).toBe(true);
        }
        expect((await client.next('MISSING')).id).toBe(count);
      }),
    );
  });

  it('refuses what does not fit before its body has come, and goes on with what does', async () => {
    const node = await start({ memoryBytes: MiB });
    const client = await Client.open(node.address);
    const body = pattern(MAX_FRAME_BYTES, 1);
    for (let id = 1; id <= 3; id++) expect(await client.put(id, body)).toBeTypeOf('number');
    client.channel.send(MessageType.GET, 1);
    await client.next('FRAME');
    const { freeBytes } = node.status();
    const cut = await Client.open(node.address);
    // Only the header and a little of the body: the answer must come all the same.
    const socket = await import('./half.js').then(({ half }) => half(node.address, MIGRATION, 4, MAX_FRAME_BYTES, 100));
    const refused = await socket.answer();
    expect(refused.name).toBe('REFUSED');
    expect(JSON.parse(Buffer.from(refused.body).toString())).toMatchObject({ code: 'NO_ROOM', freeBytes });
    socket.close();
    expect(await client.put(4, body)).toMatchObject({ code: 'NO_ROOM', freeBytes });
    expect(await client.put(5, body.subarray(0, 100_000))).toBeTypeOf('number');
    expect(await cut.get(4)).toBe(null);
    expect(same((await cut.get(5))!, body.subarray(0, 100_000))).toBe(true);
    expect(events.filter(({ type }) => type === 'refused').length).toBe(2);
  });

  it('takes a frame that it has as stored, whichever making of it comes later', async () => {
    const node = await start();
    const client = await Client.open(node.address);
    const body = pattern(5000, 1);
    const free = await client.put(9, body);
    expect(await client.put(9, pattern(5000, 2))).toBe(free);
    expect(await client.put(9, pattern(5001, 1))).toBe(free);
    expect(same((await client.get(9))!, body)).toBe(true);
    expect(node.status()).toMatchObject({ frames: 1, keptBytes: 5000 });
  });

  it('keeps the first of two that put the same frame at the same time', async () => {
    const { half } = await import('./half.js');
    const node = await start();
    const slow = await half(node.address, MIGRATION, 5, 4000, 1000);
    const longer = await half(node.address, MIGRATION, 5, 4001, 1000);
    const client = await Client.open(node.address);
    const free = await client.put(5, pattern(4000, 5));
    slow.rest();
    longer.rest();
    expect((await slow.answer()).name).toBe('STORED');
    expect((await longer.answer()).name).toBe('STORED');
    expect(node.status()).toMatchObject({ frames: 1, keptBytes: 4000 });
    expect(same((await client.get(5))!, pattern(4000, 5))).toBe(true);
    expect(node.status().freeBytes).toBeGreaterThan(free as number);
    slow.close();
    longer.close();
  });

  it('passes each frame through the check where it lies, and frees the room of a bad one', async () => {
    const checked: number[] = [];
    const node = await start({
      check: (bank, ptr, bytes, frameId) => {
        const view = new Uint8Array(bank.buffer, ptr, bytes);
        checked.push(frameId);
        return same(view, pattern(bytes, frameId)) ? null : 'FRAME_CHECKSUM';
      },
    });
    const client = await Client.open(node.address);
    expect(await client.put(1, pattern(200_000, 1))).toBeTypeOf('number');
    const { freeBytes } = node.status();
    const bad = pattern(200_000, 2);
    bad[199_999]! ^= 1;
    expect(await client.put(2, bad)).toMatchObject({ code: 'FRAME_CHECKSUM', freeBytes });
    expect(await client.get(2)).toBe(null);
    expect(await client.put(2, pattern(200_000, 2))).toBeTypeOf('number');
    expect(checked).toEqual([1, 2, 2]);
  });

  it('frees the room of a frame that was cut at any point', async () => {
    const { half } = await import('./half.js');
    const node = await start();
    const keeper = await Client.open(node.address);
    await keeper.put(1, pattern(1000, 1));
    const { freeBytes } = node.status();
    for (const sent of [0, 1, 999, 1008, 1009, 150_000, 199_999]) {
      const cut = await half(node.address, MIGRATION, 2, 200_000, sent);
      await until(() => node.status().freeBytes < freeBytes - 200_000);
      cut.close();
      await until(() => node.status().connections === 1);
      expect(node.status().freeBytes).toBe(freeBytes);
    }
    expect(node.status().frames).toBe(1);
    expect(await keeper.get(2)).toBe(null);
    const closes = events.filter((event) => event.type === 'closed');
    expect(closes.length).toBe(7);
    for (const { error } of closes) expect(error).toMatchObject({ code: 'PEER_GONE' });
  });

  it('forgets on DROP, gives the room back, and takes nothing more for that migration', async () => {
    const node = await start({ memoryBytes: 2 * MiB });
    for (let round = 0; round < 5; round++) {
      const migration = String(round).repeat(32);
      const client = await Client.open(node.address, migration);
      for (let id = 1; id <= 7; id++)
        expect(await client.put(id, pattern(MAX_FRAME_BYTES, id + round))).toBeTypeOf('number');
      expect(await client.put(8, pattern(MAX_FRAME_BYTES, 8))).toMatchObject({ code: 'NO_ROOM' });
      expect(same((await client.get(3))!, pattern(MAX_FRAME_BYTES, 3 + round))).toBe(true);
      expect(await client.drop()).toEqual({ frames: 7, bytes: 7 * MAX_FRAME_BYTES });
      expect(await client.get(3)).toBe(null);
      await until(() => node.status().freeBytes === 2 * MiB);
      expect(await client.put(9, pattern(1000, 9))).toMatchObject({ code: 'CANCELLED' });
      expect(await client.drop()).toEqual({ frames: 0, bytes: 0 });
      await expect(Client.open(node.address, migration)).rejects.toThrow(/it was dropped \(CANCELLED\)/);
      await client.end();
    }
    expect(node.status()).toMatchObject({ migrations: [], freeBytes: 2 * MiB });
  });

  it('refuses a frame that was on its way when its migration was dropped', async () => {
    const { half } = await import('./half.js');
    const node = await start();
    const slow = await half(node.address, MIGRATION, 5, 100_000, 50_000);
    const client = await Client.open(node.address);
    await client.put(1, pattern(1000, 1));
    await client.drop();
    slow.rest();
    const answer = await slow.answer();
    expect(answer.name).toBe('REFUSED');
    expect(Buffer.from(answer.body).toString()).toContain('dropped');
    expect(await client.get(5)).toBe(null);
    expect(node.status().freeBytes).toBe(64 * MiB);
    slow.close();
  });

  it('writes a frame whole that is dropped while it is written, and frees its room only then', async () => {
    const node = await start({ memoryBytes: 16 * MiB });
    const source = await Client.open(node.address);
    const count = 62;
    for (let id = 0; id < count; id++) await source.put(id, pattern(MAX_FRAME_BYTES, id));
    const reader = await Client.open(node.address, MIGRATION, 'destination');
    reader.reading = false;
    for (let id = 0; id < count; id++) reader.channel.send(MessageType.GET, id);
    await sleep(100);
    await source.drop();
    expect(node.status()).toMatchObject({ frames: 0, keptBytes: 0 });
    expect(node.status().freeBytes).toBeLessThan(MiB);
    const other = await Client.open(node.address, OTHER);
    expect(await other.put(1, pattern(MAX_FRAME_BYTES, 1))).toMatchObject({ code: 'NO_ROOM' });
    reader.reading = true;
    reader.channel.resume();
    let frames = 0;
    for (let id = 0; id < count; id++) {
      const answer = await reader.next();
      expect(answer.id).toBe(id);
      if (answer.name === 'FRAME') frames++;
      if (answer.name === 'FRAME') expect(same(answer.body, pattern(MAX_FRAME_BYTES, id))).toBe(true);
    }
    expect(frames).toBeGreaterThan(0);
    expect(frames).toBeLessThan(count);
    await until(() => node.status().freeBytes === 16 * MiB);
  });

  it('keeps migrations apart', async () => {
    const node = await start();
    const [a, b] = [await Client.open(node.address), await Client.open(node.address, OTHER)];
    await a.put(1, pattern(1000, 1));
    await b.put(1, pattern(2000, 2));
    await b.put(2, pattern(3000, 3));
    expect(await a.get(2)).toBe(null);
    expect(await a.drop()).toEqual({ frames: 1, bytes: 1000 });
    expect(same((await b.get(1))!, pattern(2000, 2))).toBe(true);
    expect(node.status().migrations).toEqual([{ id: OTHER, frames: 2, bytes: 5000, connections: 1 }]);
    const late = await Client.open(node.address, 'c'.repeat(32), 'destination');
    expect(await late.get(1)).toBe(null);
  });

  it('drops a migration whose source has gone without a word', async () => {
    const node = await start({ orphanMs: 150 });
    const first = await Client.open(node.address);
    await first.put(1, pattern(1000, 1));
    await sleep(250);
    expect(node.status().frames).toBe(1);
    await first.end();
    await sleep(50);
    const second = await Client.open(node.address);
    expect(same((await second.get(1))!, pattern(1000, 1))).toBe(true);
    await sleep(200);
    expect(node.status().frames).toBe(1);
    await second.end();
    await until(() => node.status().migrations.length === 0, 1000);
    expect(node.status().freeBytes).toBe(64 * MiB);
    expect(events.at(-1)).toEqual({ type: 'expired', migration: MIGRATION, frames: 1, bytes: 1000 });
  });

  it.each([
    ['frames', 1],
    ['frames that are missing', 2],
  ])('does not read from a client that asks for %s and does not read', async (_, id) => {
    const { rawTo } = await import('./half.js');
    const node = await start();
    const source = await Client.open(node.address);
    await source.put(1, pattern(MAX_FRAME_BYTES, 1));
    const socket = await rawTo(node.address);
    socket.pause();
    const hello = encodeJson({ protocol: 3, role: 'destination', migration: MIGRATION });
    socket.write(message(MessageType.HELLO, 0, hello));
    // 32 MiB of GETs, far more than the kernel buffers, one chunk after the other: what was not taken here was not read there.
    const chunk = Buffer.alloc(64 * 1024, message(MessageType.GET, id));
    const before = process.memoryUsage();
    let taken = 0;
    const sendNext = () => {
      if (++taken < 512) socket.write(chunk, sendNext);
    };
    socket.write(chunk, sendNext);
    for (let seen = -1; seen !== taken; ) {
      seen = taken;
      await sleep(250);
    }
    expect(taken).toBeLessThan(300);
    const after = process.memoryUsage();
    expect(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers).toBeLessThan(32 * MiB);
    expect(await source.get(1)).not.toBe(null);
    // Once it reads, it is served where it was left.
    let received = 0;
    socket.on('data', (data) => {
      received += data.byteLength;
    });
    socket.resume();
    const expected = id === 1 ? 40 * MiB : 8 * MiB;
    await until(() => received > expected);
    socket.destroy();
    await until(() => node.status().connections === 1);
    expect(await source.drop()).toEqual({ frames: 1, bytes: MAX_FRAME_BYTES });
    await until(() => node.status().freeBytes === 64 * MiB);
  });

  it('ends the connection of a client that breaks the rules, and nobody else`s', async () => {
    const node = await start({ maxMigrations: 2 });
    const good = await Client.open(node.address);
    await good.put(1, pattern(1000, 1));
    const { HELLO, PUT, GET, DROP, FRAME, IMAGES, MERGED } = MessageType;
    const hello = (fields: object) => encodeJson({ protocol: 3, role: 'source', migration: OTHER, ...fields });
    const cases: [string, (client: Client) => void][] = [
      ['PUT before HELLO', (c) => c.channel.send(PUT, 1, pattern(10, 1))],
      ['GET before HELLO', (c) => c.channel.send(GET, 1)],
      ['DROP before HELLO', (c) => c.channel.send(DROP, 0)],
      ['protocol 2, this intermediate speaks 3', (c) => c.channel.send(HELLO, 0, hello({ protocol: 2 }))],
      ['`role` is none of', (c) => c.channel.send(HELLO, 0, hello({ role: 'root' }))],
      ['32 hexadecimal', (c) => c.channel.send(HELLO, 0, hello({ migration: 'x'.repeat(32) }))],
      ['33 characters', (c) => c.channel.send(HELLO, 0, hello({ migration: '1'.repeat(33) }))],
      ['not a string', (c) => c.channel.send(HELLO, 0, hello({ migration: 5 }))],
      ['not JSON', (c) => c.channel.send(HELLO, 0, Uint8Array.of(1, 2, 3))],
      ['FRAME is nothing', (c) => c.channel.send(FRAME, 1, pattern(10, 1))],
      ['IMAGES is nothing', (c) => c.channel.send(IMAGES, 0, encodeJson({}))],
      ['MERGED is nothing', (c) => c.channel.send(MERGED, 0, encodeJson({}))],
    ];
    for (const [text, say] of cases) {
      const client = await Client.open(node.address, null);
      say(client);
      const error = await client.closed();
      expect(error).toMatchObject({ code: 'PEER_ABORTED' });
      expect(error!.message).toContain(text);
    }
    const twice = await Client.open(node.address, OTHER);
    twice.channel.send(HELLO, 0, hello({}));
    expect((await twice.closed())!.message).toContain('HELLO twice');
    const second = await Client.open(node.address, OTHER);
    await expect(Client.open(node.address, 'c'.repeat(32))).rejects.toThrow(/NO_ROOM/);
    await second.end();
    await until(() => node.status().migrations.length === 1);
    expect(same((await good.get(1))!, pattern(1000, 1))).toBe(true);
  });

  it('tells its clients when it shuts down, and leaves nothing behind', async () => {
    const node = await start();
    const client = await Client.open(node.address);
    await client.put(1, pattern(1000, 1));
    await node.close();
    expect((await client.closed())!.message).toContain('shutting down (CANCELLED)');
    expect(node.status()).toMatchObject({ connections: 0, frames: 0, freeBytes: 64 * MiB });
    await expect(Client.open(node.address)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
  });

  it('refuses options that make no sense', async () => {
    for (const options of [
      { memoryBytes: 1000 },
      { memoryBytes: 2 ** 45 },
      { memoryBytes: Number.NaN },
      { listen: 'x' },
    ]) {
      await expect(start(options)).rejects.toMatchObject({ code: 'USAGE' });
    }
    expect((await start({ announce: 'node.example:7000' })).status().address).toBe('node.example:7000');
  });
});

it('survives bytes that mean nothing', async () => {
  const { rawTo } = await import('./half.js');
  const node = await start();
  const good = await Client.open(node.address);
  await good.put(1, pattern(1000, 1));
  const hello = message(MessageType.HELLO, 0, encodeJson({ protocol: 3, role: 'source', migration: OTHER }));
  for (let seed = 0; seed < 60; seed++) {
    const socket = await rawTo(node.address);
    const noise = pattern(5000, seed);
    if (seed % 2) noise[0] = 1 + (seed % 16);
    socket.end(Buffer.concat([seed % 3 ? hello : new Uint8Array(0), noise]));
  }
  await until(() => node.status().connections === 1);
  expect(same((await good.get(1))!, pattern(1000, 1))).toBe(true);
  expect(node.status()).toMatchObject({ frames: 1, keptBytes: 1000 });
});
