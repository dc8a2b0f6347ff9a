// Two ends of one loopback connection, for tests: a listener on a free port, and what each end saw.
import { once } from 'node:events';
import { connect as netConnect, type Socket } from 'node:net';
import type { AbdmError } from '#abdm/bindings/errors.js';
import type { BodyTarget, Channel, ChannelHandler } from '#abdm/host/wire/channel.js';
import { type ConnectOptions, connect } from '#abdm/host/wire/connect.js';
import { type Listener, type ListenOptions, listen } from '#abdm/host/wire/listen.js';
import { encodeHeader, HEADER_BYTES, type MessageHeader, type MessageType } from '#abdm/host/wire/messages.js';

/** A handler that remembers. */
export class Probe implements ChannelHandler {
  readonly messages: { header: MessageHeader; body: Uint8Array }[] = [];
  readonly asked: MessageHeader[] = [];
  channel: Channel | undefined;
  target: ((header: MessageHeader) => BodyTarget) | undefined;
  keepBodies = true;
  readonly closed: Promise<AbdmError | null>;
  isClosed = false;
  #close: (error: AbdmError | null) => void = () => {};

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#close = resolve;
    });
  }

  bodyTarget(header: MessageHeader): BodyTarget {
    this.asked.push(header);
    return this.target ? this.target(header) : null;
  }

  onMessage(header: MessageHeader, body: Uint8Array): void {
    this.messages.push({ header, body: this.keepBodies ? body.slice() : body });
  }

  onClose(error: AbdmError | null): void {
    this.isClosed = true;
    this.#close(error);
  }
}

export interface Pair {
  listener: Listener;
  server: Probe;
  client: Probe;
  here: Channel;
  there: Channel;
}

const listeners: Listener[] = [];
const sockets: Socket[] = [];

export async function listening(server: Probe, options: ListenOptions = {}): Promise<Listener> {
  const listener = await listen(
    '127.0.0.1:0',
    (channel) => {
      server.channel = channel;
      return server;
    },
    { lingerMs: 300, ...options },
  );
  listeners.push(listener);
  return listener;
}

export async function pair(options: ListenOptions = {}, connectOptions: ConnectOptions = {}): Promise<Pair> {
  const server = new Probe();
  const client = new Probe();
  const listener = await listening(server, options);
  const here = await connect(listener.address, client, { lingerMs: 300, ...connectOptions });
  await until(() => server.channel !== undefined);
  return { listener, server, client, here, there: server.channel! };
}

/** A plain socket to a listener: for saying what a channel never would. */
export async function raw(listener: Listener): Promise<Socket> {
  const socket = netConnect(listener.address);
  sockets.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.setNoDelay(true);
  return socket;
}

/** Resolves when a socket is gone, however. */
export const gone = (socket: Socket) => new Promise<void>((resolve) => socket.resume().once('close', () => resolve()));

export async function cleanUp(): Promise<void> {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(listeners.splice(0).map((listener) => listener.close()));
}

export async function until(done: () => boolean, ms = 10_000): Promise<void> {
  const end = Date.now() + ms;
  while (!done()) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${done}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export function message(type: MessageType, id = 0, body: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + body.byteLength);
  encodeHeader(bytes, 0, type, body.byteLength, id);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/** Seeded bytes that do not repeat at any power of two. */
export function pattern(bytes: number, seed: number): Uint8Array {
  const out = new Uint8Array(bytes);
  let x = (seed * 2654435761 + 1) >>> 0 || 1;
  for (let i = 0; i < bytes; i++) {
    x ^= x << 13;
    x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5;
    out[i] = x >>> 24;
  }
  return out;
}

export const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
