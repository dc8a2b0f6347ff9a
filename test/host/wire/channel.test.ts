import { afterEach, describe, expect, it } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import { connect } from '#abdm/host/wire/connect.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { cleanUp, listening, message, Probe, pair, pattern, raw, same, sleep, until } from './pair.js';

afterEach(cleanUp);
const { HELLO, PUT, STORED, GET, IMAGES, ERROR, DROP, MERGED } = MessageType;

describe.each([
  ['read in place', false],
  ['by data events', true],
])('a channel, accepted and %s', (_, neverDirect) => {
  it('says whether bodies are read in place', async () => {
    const { there, here } = await pair({ neverDirect });
    expect(there.direct).toBe(!neverDirect);
    expect(here.direct).toBe(true);
    expect(there.peer).toMatch(/^127\.0\.0\.1:\d+$/);
  });

  it('carries big bodies bit-exact into wasm memory, both ways at once, small messages between them', async () => {
    const { server, client, here, there } = await pair({ neverDirect });
    const frames = 64;
    const body = pattern(MAX_FRAME_BYTES, 1);
    const ends = [
      { probe: server, channel: here, slots: new Map<number, number>() },
      { probe: client, channel: there, slots: new Map<number, number>() },
    ];
    for (const { probe, slots } of ends) {
      const memory = new WebAssembly.Memory({ initial: 320, maximum: 320 });
      let end = 0;
      probe.keepBodies = false;
      probe.target = (header) => {
        if (header.type !== PUT) return null;
        slots.set(header.id, end);
        end += header.bodyBytes;
        return new Uint8Array(memory.buffer, end - header.bodyBytes, header.bodyBytes);
      };
    }
    const lengthOf = (id: number) => MAX_FRAME_BYTES - id * 37;
    for (let id = 0; id < frames; id++) {
      for (const { channel } of ends) {
        const bytes = lengthOf(id);
        channel.send(PUT, id, [body.subarray(0, 1000), body.subarray(1000, bytes)]);
        channel.send(STORED, id, new Uint8Array(8).fill(id));
        channel.send(GET, 2 ** 53 - 1 - id);
      }
    }
    await until(() => ends.every(({ probe }) => probe.messages.length === 3 * frames));
    for (const { probe, slots } of ends) {
      for (let id = 0; id < frames; id++) {
        const [put, stored, get] = probe.messages.slice(3 * id, 3 * id + 3);
        expect(put!.header).toEqual({ type: PUT, id, chain: 0, bodyBytes: lengthOf(id) });
        expect(put!.body.byteOffset).toBe(slots.get(id));
        expect(same(put!.body, body.subarray(0, lengthOf(id)))).toBe(true);
        expect(stored!.header).toEqual({ type: STORED, id, chain: 0, bodyBytes: 8 });
        expect(get!.header.id).toBe(2 ** 53 - 1 - id);
      }
    }
    expect(here.bytesOut).toBe(there.bytesIn);
    expect(there.bytesOut).toBe(here.bytesIn);
    expect(here.pendingBytes).toBe(0);
    expect(here.pendingMessages).toBe(0);
  });

  it('stops reading on `wait`, lets the sender feel it, and goes on where it stopped', async () => {
    const { server, here, there } = await pair({ neverDirect });
    const memory = new Uint8Array(MAX_FRAME_BYTES);
    const body = pattern(MAX_FRAME_BYTES, 2);
    const seen: boolean[] = [];
    let ready = false;
    server.keepBodies = false;
    server.target = (header) => {
      if (!ready) return 'wait';
      ready = false;
      return memory.fill(0).subarray(0, header.bodyBytes);
    };
    server.onMessage = (header, bytes) => {
      seen.push(header.id === seen.length && same(bytes, body.subarray(header.id)));
    };
    let written = 0;
    const frames = 60;
    for (let id = 0; id < frames; id++) here.send(PUT, id, body.subarray(id), () => written++);
    await until(() => server.asked.length === 1);
    await sleep(50);
    expect(there.bytesIn).toBeLessThan(128 * 1024);
    expect(here.pendingBytes).toBeGreaterThan(1 << 20);
    expect(server.asked.length).toBe(1);
    there.resume();
    expect(server.asked.length).toBe(2);
    expect(seen).toEqual([]);
    while (seen.length < frames) {
      const before = seen.length;
      ready = true;
      there.resume();
      await until(() => seen.length === before + 1);
    }
    expect(seen.every((ok) => ok)).toBe(true);
    expect(here.pendingBytes).toBe(0);
    expect(written).toBe(frames);
  });

  it('gets its ERROR through to a peer that is still sending, even from within a wait', async () => {
    const { server, client, here, there } = await pair({ neverDirect, lingerMs: 10_000 });
    server.target = () => 'wait';
    for (let id = 0; id < 40; id++) here.send(PUT, id, new Uint8Array(MAX_FRAME_BYTES));
    await until(() => server.asked.length === 1);
    there.fail(new AbdmError('NO_ROOM', 'enough'));
    expect(await client.closed).toMatchObject({ code: 'PEER_ABORTED' });
    expect((await client.closed)!.message).toContain('enough (NO_ROOM)');
    // It goes on reading what nobody wants, so it sees at once that the peer has closed too.
    await until(() => server.isClosed, 3_000);
    expect(await server.closed).toMatchObject({ code: 'NO_ROOM' });
    expect(server.messages).toEqual([]);
  });

  it('does not lose a resume that comes before the wait', async () => {
    const { server, here, there } = await pair({ neverDirect });
    server.target = () => {
      if (server.asked.length > 1) return null;
      there.resume();
      return 'wait';
    };
    here.send(GET, 5);
    await until(() => server.messages.length === 1);
  });

  it('throws away what is to be discarded, and keeps its place in the stream', async () => {
    const { server, here } = await pair({ neverDirect });
    server.target = (header) => (header.type === PUT ? 'discard' : null);
    for (let id = 1; id <= 20; id++) {
      here.send(PUT, id, pattern(id * 13_001, id));
      here.send(GET, id);
    }
    await until(() => server.messages.length === 20);
    expect(server.messages.map(({ header }) => header.id)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    expect(server.messages.every(({ header }) => header.type === GET)).toBe(true);
  });

  it('understands a peer that drips one byte at a time', async () => {
    const { server, listener } = await pair({ neverDirect });
    const socket = await raw(listener);
    const target = new Uint8Array(40);
    server.target = (header) => (header.type === PUT ? target : null);
    const body = pattern(40, 3);
    const bytes = Buffer.concat([message(HELLO, 0, encodeJson({ a: 1 })), message(PUT, 9, body), message(GET, 10)]);
    for (const byte of bytes) {
      socket.write(Uint8Array.of(byte));
      await sleep(1);
    }
    await until(() => server.messages.length === 3);
    expect(server.messages.map(({ header }) => header.type)).toEqual([HELLO, PUT, GET]);
    expect(same(server.messages[1]!.body, body)).toBe(true);
  });

  it('tells of a connection cut at every byte of a small conversation', async () => {
    const server = new Probe();
    const listener = await listening(server, { neverDirect });
    const parts = [message(HELLO, 0, encodeJson({ a: 1 })), message(PUT, 9, pattern(50, 4)), message(GET, 10)];
    const ends = parts.map((_, i) => parts.slice(0, i + 1).reduce((sum, part) => sum + part.byteLength, 0));
    const bytes = Buffer.concat(parts);
    for (let cut = 0; cut <= bytes.byteLength; cut++) {
      const probe = new Probe();
      const target = new Uint8Array(50);
      probe.target = (header) => (header.type === PUT ? target : null);
      server.channel = undefined;
      const socket = await raw(listener);
      await until(() => server.channel !== undefined);
      server.channel!.handler = probe;
      socket.end(bytes.subarray(0, cut));
      const error = await probe.closed;
      expect(probe.messages.length).toBe(ends.filter((end) => end <= cut).length);
      if (cut === 0 || ends.includes(cut)) expect(error).toBe(null);
      else {
        expect(error).toMatchObject({ code: 'PEER_GONE' });
        const start = Math.max(0, ...ends.filter((end) => end <= cut));
        const had = cut - start;
        expect(error!.message).toContain(had < 16 ? `${had} of 16 bytes` : `${had - 16} of `);
      }
    }
    expect(listener.connections).toBe(0);
  });

  it('refuses malformed headers with ERROR, before it asks anybody for memory', async () => {
    const server = new Probe();
    const listener = await listening(server, { neverDirect });
    const forged = (change: (view: DataView) => void, type: MessageType = GET) => {
      const bytes = new Uint8Array(16);
      const view = new DataView(bytes.buffer);
      view.setUint8(0, type);
      view.setUint32(8, 7, true);
      change(view);
      return bytes;
    };
    const cases: [string, Uint8Array][] = [
      ['unknown type 0', forged((v) => v.setUint8(0, 0))],
      ['unknown type 37', forged((v) => v.setUint8(0, 37))],
      ['flags are 1', forged((v) => v.setUint8(1, 1))],
      ['the chain is 1, not 0', forged((v) => v.setUint8(2, 1))],
      ['the chain is 32768, not 0', forged((v) => v.setUint8(3, 128))],
      ['2^53', forged((v) => v.setUint32(12, 1 << 21, true))],
      ['0 are allowed', forged((v) => v.setUint32(4, 1, true))],
      ['270336 are allowed', forged((v) => v.setUint32(4, MAX_FRAME_BYTES + 1, true), PUT)],
      ['270336 are allowed', forged((v) => v.setUint32(4, 0xffffffff, true), PUT)],
      ['at least 8', forged((v) => v.setUint32(4, 7, true), STORED)],
      ['65536 are allowed', forged((v) => v.setUint32(4, 65537, true), HELLO)],
      ['8388608 are allowed', forged((v) => v.setUint32(4, 8388609, true), IMAGES)],
      ['the id is 7, not 0', forged(() => {}, DROP)],
    ];
    for (const [text, bytes] of cases) {
      const probe = new Probe();
      server.channel = undefined;
      const socket = await raw(listener);
      await until(() => server.channel !== undefined);
      server.channel!.handler = probe;
      const answer: Buffer[] = [];
      socket.on('data', (data) => answer.push(data));
      socket.write(bytes);
      socket.write(new Uint8Array(100_000));
      await until(() => socket.readableEnded);
      socket.end();
      const error = await probe.closed;
      expect(error).toMatchObject({ code: 'PROTOCOL' });
      expect(error!.message).toContain(text);
      expect(probe.asked).toEqual([]);
      const reply = Buffer.concat(answer);
      expect(reply[0]).toBe(ERROR);
      expect(JSON.parse(reply.subarray(16).toString())).toEqual({ code: 'PROTOCOL', message: error!.message });
    }
  });

  it('closes on a peer that says nothing, and on one that stops in the middle of a message', async () => {
    const { server, there } = await pair({ neverDirect, handshakeMs: 60 });
    expect((await server.closed)!.message).toMatch(/no whole message within 60 ms/);
    expect(there.open).toBe(false);
    const second = await pair({ neverDirect, stallMs: 60 });
    second.here.send(HELLO, 0, encodeJson({}));
    await sleep(200);
    expect(second.server.isClosed).toBe(false);
    const socket = await raw(second.listener);
    const probe = new Probe();
    await until(() => second.server.channel !== second.there);
    second.server.channel!.handler = probe;
    socket.write(
      Buffer.concat([message(HELLO, 0, encodeJson({})), message(PUT, 3, pattern(5000, 1)).subarray(0, 1016)]),
    );
    expect((await probe.closed)!).toMatchObject({ code: 'PEER_GONE' });
    expect((await probe.closed)!.message).toMatch(/nothing for 60 ms when 1000 of 5000 bytes of PUT 3/);
  });
});

describe('a channel', () => {
  it('leaves the body alone until it is written, and says so once, also when the connection goes', async () => {
    const { server, here, there } = await pair();
    server.target = () => 'wait';
    let written = 0;
    for (let id = 0; id < 100; id++) here.send(PUT, id, new Uint8Array(MAX_FRAME_BYTES), () => written++);
    await until(() => server.asked.length === 1);
    expect(written).toBeLessThan(100);
    there.destroy();
    await until(() => written === 100);
    here.send(GET, 1, undefined, () => written++);
    await until(() => written === 101);
    await sleep(20);
    expect(written).toBe(101);
    expect(here.pendingMessages).toBe(0);
  });

  it('ends in order: what is pending arrives, then both sides close without an error', async () => {
    const { server, client, here } = await pair();
    server.onMessage = function (header, body) {
      Probe.prototype.onMessage.call(this, header, body);
      this.channel!.send(GET, header.id);
    };
    for (let id = 0; id < 30; id++) here.send(PUT, id, pattern(100_000, id));
    here.end();
    expect(await server.closed).toBe(null);
    expect(await client.closed).toBe(null);
    expect(server.messages.length).toBe(30);
    expect(client.messages.length).toBe(30);
  });

  it('takes an early end by the one it connected to for an error', async () => {
    const { client, there } = await pair();
    there.end();
    expect(await client.closed).toMatchObject({ code: 'PEER_GONE' });
  });

  it('passes on the peer`s words when it fails, without control characters', async () => {
    const { server, client, here, there } = await pair();
    server.onMessage = () => {
      throw Object.assign(new Error('\u001b[31mred\u0007'), {});
    };
    here.send(MERGED, 0, encodeJson({}));
    expect(await client.closed).toMatchObject({ code: 'PEER_ABORTED' });
    const { message: text } = (await client.closed)!;
    expect(text).toContain('cannot go on:  [31mred');
    expect(text).toContain(here.peer);
    expect(await server.closed).toMatchObject({ code: 'PROTOCOL' });
    expect(there.open).toBe(false);
  });

  it('ends without a word, and nobody comes in any more, when its listener leaves', async () => {
    const { listener, server, client } = await pair();
    const closed = listener.close(null);
    await expect(connect(`127.0.0.1:${listener.address.port}`, new Probe())).rejects.toMatchObject({
      code: 'PEER_UNREACHABLE',
    });
    expect(await client.closed).not.toMatchObject({ code: 'PEER_ABORTED' });
    client.channel?.end();
    await closed;
    expect(server.isClosed).toBe(true);
  });

  it('says what to check when nobody is there', async () => {
    const listener = await listening(new Probe());
    await listener.close();
    const handler = new Probe();
    const port = listener.address.port;
    const attempt = connect(`127.0.0.1:${port}`, handler);
    await expect(attempt).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
    await expect(attempt).rejects.toThrow(new RegExp(`127.0.0.1:${port}: nothing listens there.*ECONNREFUSED`));
    await expect(connect('127.0.0.1:0', handler)).rejects.toMatchObject({ code: 'USAGE' });
    expect(handler.isClosed).toBe(false);
  });

  it('reads in place when a name has several addresses', async () => {
    const server = new Probe();
    const client = new Probe();
    const listener = await listening(server);
    const here = await connect({ host: 'localhost', port: listener.address.port }, client, { lingerMs: 100 });
    await until(() => server.channel !== undefined);
    const memory = new Uint8Array(100_000);
    client.keepBodies = false;
    client.target = () => memory;
    server.channel!.send(PUT, 1, pattern(100_000, 6));
    await until(() => client.messages.length === 1);
    expect(same(memory, pattern(100_000, 6))).toBe(true);
    here.end();
  });

  it('gives up on a server that accepts and never answers', async () => {
    const { client, here } = await pair({}, { handshakeMs: 50 });
    here.send(HELLO, 0, encodeJson({}));
    expect(await client.closed).toMatchObject({ code: 'PEER_UNREACHABLE' });
  });

  it('gives up on a peer that takes nothing of what it is sent', async () => {
    const { client, server, here } = await pair({}, { stallMs: 100 });
    server.target = () => 'wait';
    for (let id = 0; id < 100; id++) here.send(PUT, id, new Uint8Array(MAX_FRAME_BYTES));
    const error = await client.closed;
    expect(error).toMatchObject({ code: 'PEER_GONE' });
    expect(error!.message).toMatch(/took none of the \d+ bytes/);
  });

  it('tells a connection beyond the limit so', async () => {
    const { listener, client } = await pair({ maxConnections: 1 });
    const second = new Probe();
    await connect(listener.address, second, { lingerMs: 100 });
    const error = await second.closed;
    expect(error).toMatchObject({ code: 'PEER_ABORTED' });
    expect(error!.message).toContain('NO_ROOM');
    expect(client.isClosed).toBe(false);
    expect(listener.connections).toBe(1);
  });

  it('refuses to listen where somebody listens', async () => {
    const { listener } = await pair();
    const { listen } = await import('#abdm/host/wire/listen.js');
    await expect(listen(listener.address, () => new Probe())).rejects.toMatchObject({ code: 'USAGE' });
  });
});
