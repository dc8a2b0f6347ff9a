// The proxies that faults are made with: what passes is what came, and what is changed is changed as a node that lies would.
import { createServer, connect as tcp } from 'node:net';
import { xxh3 } from '@node-rs/xxhash';
import { describe, expect, onTestFinished, test } from 'vitest';
import { encodeJson } from '#abdm/host/wire/json.js';
import { encodeHeader, encodeU64s, HEADER_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { bodyOf, type Message, MessageSplitter } from '../../bench/faults/proxy/messages.js';
import { TcpProxy, type Totals } from '../../bench/faults/proxy/proxy.js';
import { pretend, Tamperer } from '../../bench/faults/proxy/tamper.js';
import { Random } from '../../bench/faults/random.js';
import { until } from '../host/wire/pair.js';

function message(type: MessageType, id: number, body: Uint8Array): Message {
  const bytes = Buffer.alloc(HEADER_BYTES + body.byteLength);
  encodeHeader(bytes, 0, type, body.byteLength, id);
  bytes.set(body, HEADER_BYTES);
  return { type, id, bytes };
}

function randomBytes(random: Random, count: number): Buffer {
  return Buffer.from(Array.from({ length: count }, () => random.below(256)));
}

function frame(random: Random, id: number): Message {
  const body = randomBytes(random, 200 + random.below(2000));
  body.writeBigUInt64LE(BigInt(id), 8);
  return message(MessageType.FRAME, id, body);
}

test('a stream is taken apart into its messages, wherever it is cut', () => {
  const random = new Random('cuts');
  const sent = Array.from({ length: 60 }, (_, id) => frame(random, id + 1));
  const stream = Buffer.concat(sent.map(({ bytes }) => bytes));
  const splitter = new MessageSplitter();
  const seen: Message[] = [];
  for (let at = 0; at < stream.length; ) {
    const next = Math.min(stream.length - 7, at + 1 + random.below(900));
    if (next <= at) break;
    seen.push(...splitter.push(stream.subarray(at, next)));
    at = next;
  }
  expect(seen.map(({ type, id, bytes }) => [type, id, bytes.toString('hex')])).toEqual(
    sent.slice(0, -1).map(({ type, id, bytes }) => [type, id, bytes.toString('hex')]),
  );
  expect(splitter.rest().equals(sent.at(-1)!.bytes.subarray(0, -7))).toBe(true);
});

describe('a node that lies', () => {
  const random = new Random('lies');
  const hello = (digit: string) => Buffer.from(encodeJson({ migration: digit.repeat(32) }));
  const isMended = (body: Buffer) => body.readBigUInt64LE(body.length - 8) === xxh3.xxh64(body.subarray(0, -8));

  test('flips one bit and mends the sum', () => {
    const honest = frame(random, 5);
    const told = new Tamperer().change(honest, 'flip')!;
    const [before, after] = [bodyOf(honest), told.subarray(HEADER_BYTES)];
    const bits = [...before.subarray(0, -8)].map(
      (byte, i) => (byte ^ after[i]!).toString(2).replaceAll('0', '').length,
    );
    expect(bits.reduce((a, b) => a + b)).toBe(1);
    expect(isMended(after)).toBe(true);
  });

  test("tells another frame of the migration, or this id's frame of the one before", () => {
    const tamperer = new Tamperer();
    tamperer.hello(hello('a'));
    const [old, other, honest] = [frame(random, 5), frame(random, 6), frame(random, 5)];
    expect(tamperer.change(honest, 'swap')).toBeNull();
    tamperer.remember(old);
    expect(tamperer.change(honest, 'old')).toBeNull();
    tamperer.hello(hello('b'));
    tamperer.remember(other);
    const swapped = tamperer.change(honest, 'swap')!.subarray(HEADER_BYTES);
    expect(swapped.subarray(16, -8).equals(bodyOf(other).subarray(16, -8))).toBe(true);
    const replayed = tamperer.change(honest, 'old')!.subarray(HEADER_BYTES);
    expect(replayed.subarray(0, -8).equals(bodyOf(old).subarray(0, -8))).toBe(true);
    expect([swapped, replayed].every(isMended)).toBe(true);
  });

  test('says that it has room', () => {
    const stored = pretend(message(MessageType.STORED, 1, encodeU64s(17, 18)), 1e9);
    expect([16, 24].map((at) => Number(stored.readBigUInt64LE(at)))).toEqual([1e9, 18]);
    const welcome = pretend(
      message(MessageType.WELCOME, 0, encodeJson({ memoryBytes: 5, freeBytes: 4, id: 'x' })),
      1e9,
    );
    expect(JSON.parse(welcome.subarray(HEADER_BYTES).toString())).toEqual({
      memoryBytes: 1e9,
      freeBytes: 1e9,
      id: 'x',
    });
    expect(welcome.readUInt32LE(4)).toBe(welcome.length - HEADER_BYTES);
  });
});

test('a connection is reset behind the frame that was asked for, and the next one is not', async () => {
  const random = new Random('reset');
  const heard: Buffer[] = [];
  const server = createServer((socket) => socket.on('error', () => {}).on('data', (bytes) => heard.push(bytes)));
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const totals: Totals = { frames: 0, tampered: 0, resets: 0, resetAt: 2, lie: null };
  const proxy = new TcpProxy(`127.0.0.1:${(server.address() as { port: number }).port}`, totals);
  const port = Number((await proxy.listen()).split(':')[1]);
  onTestFinished(() => proxy.close());

  const frames = [1, 2].map((id) => frame(random, id).bytes);
  const client = tcp(port, '127.0.0.1');
  const error = new Promise<Error & { code?: string }>((resolve) => client.once('error', resolve));
  for (const bytes of frames) client.write(bytes);
  expect((await error).code).toBe('ECONNRESET');
  // Whoever listens behind the proxy may be later than the reset.
  await until(() => Buffer.concat(heard).length >= frames[0]!.length + frames[1]!.length);
  expect(Buffer.concat(heard).equals(Buffer.concat(frames))).toBe(true);
  expect(totals).toMatchObject({ frames: 2, resets: 1 });

  const again = tcp(port, '127.0.0.1');
  heard.length = 0;
  again.end(frames[0]!);
  await new Promise((resolve) => again.on('close', resolve).resume());
  expect(totals).toMatchObject({ frames: 3, resets: 1 });
});

test('a proxy that is cut resets what stands and what is made, and lets through again when it is mended', async () => {
  const server = createServer((socket) => socket.on('error', () => {}).pipe(socket));
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const totals: Totals = { frames: 0, tampered: 0, resets: 0, resetAt: null, lie: null };
  const proxy = new TcpProxy(`127.0.0.1:${(server.address() as { port: number }).port}`, totals);
  const port = Number((await proxy.listen()).split(':')[1]);
  onTestFinished(() => proxy.close());
  const { bytes } = frame(new Random('cut'), 1);
  const open = () => {
    const client = tcp(port, '127.0.0.1');
    const error = new Promise<string>((resolve) =>
      client.once('error', ({ code }: Error & { code?: string }) => resolve(code ?? '')),
    );
    const echo = new Promise<Buffer>((resolve) => client.once('data', resolve));
    client.write(bytes);
    return { client, error, echo };
  };

  const stands = open();
  expect((await stands.echo).equals(bytes)).toBe(true);
  proxy.rule = { cut: true };
  expect(await stands.error).toBe('ECONNRESET');
  expect(await open().error).toBe('ECONNRESET');
  proxy.rule = {};
  const again = open();
  expect((await again.echo).equals(bytes)).toBe(true);
  again.client.destroy();
});
