// Accepts channels. A connection beyond the limit is told so and closed; closing the listener closes every channel it accepted.

import { createServer, type Server, type Socket } from 'node:net';
import { AbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress, parseAddress } from './address.js';
import { Channel, type ChannelHandler, type ChannelOptions } from './channel.js';
import type { Security } from './security.js';
import { takeOver } from './takeover.js';

/** The options of the channels that it accepts, and how many. */
export interface ListenOptions extends ChannelOptions {
  readonly security?: Security;
  /** Default 256. */
  readonly maxConnections?: number;
  /** Read by 'data' events and a copy even where bodies could be read in place: for tests of that way. */
  readonly neverDirect?: boolean;
}

/** Refused connections that are still being told so; beyond this they are just closed. */
const MAX_REFUSALS = 64;

/** Somebody who listens. Made by {@link listen}. */
export class Listener {
  /** Where it listens, the port being the real one. */
  readonly address: Address;
  readonly #server: Server;
  readonly #channels: Set<Channel>;

  constructor(server: Server, address: Address, channels: Set<Channel>) {
    this.#server = server;
    this.address = address;
    this.#channels = channels;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#channels.size;
  }

  /** Stops listening and fails every channel with `reason`; resolves when all are closed, a linger later at the latest. */
  async close(reason = new AbdmError('CANCELLED', 'the server is shutting down')): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const channel of this.#channels) channel.fail(reason);
    while (this.#channels.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await closed;
  }
}

/**
 * Listens on `address` (HOST:PORT, port 0 for any free one).
 * @param accept gives each new channel its handler.
 * @throws {AbdmError} `USAGE` if nobody can listen there.
 */
export async function listen(
  address: Address | string,
  accept: (channel: Channel) => ChannelHandler,
  options: ListenOptions = {},
): Promise<Listener> {
  const { maxConnections = 256, neverDirect = false, ...rest } = options;
  const { host, port } = typeof address === 'string' ? parseAddress(address) : address;
  const channelOptions = { peerMayEnd: true, ...rest };
  const channels = new Set<Channel>();
  const refusals = new Set<Channel>();

  const onConnection = (accepted: Socket) => {
    const { remoteAddress, remotePort } = accepted;
    if (remoteAddress === undefined || remotePort === undefined || refusals.size >= MAX_REFUSALS) {
      accepted.destroy();
      return;
    }
    const peer = formatAddress({ host: remoteAddress, port: remotePort });
    const refused = channels.size >= maxConnections;
    const members = refused ? refusals : channels;
    const channel = new Channel(peer, { onMessage: () => {} }, channelOptions, (onread) => {
      const own = neverDirect ? null : takeOver(accepted, onread);
      const socket = own ?? accepted;
      socket.once('close', () => members.delete(channel));
      return { socket, direct: own !== null };
    });
    members.add(channel);
    if (!refused) channel.handler = accept(channel);
    channel.start();
    if (refused) channel.fail(new AbdmError('NO_ROOM', `no more than ${maxConnections} connections are served here`));
  };

  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true }, onConnection);
    server.once('error', (cause) => {
      const text = `cannot listen on ${formatAddress({ host, port })}: ${cause.message}`;
      reject(new AbdmError('USAGE', text, { cause }));
    });
    server.listen({ host, port }, () => {
      const bound = server.address();
      const boundPort = typeof bound === 'object' && bound !== null ? bound.port : port;
      // Running out of descriptors must not end the process: the connection is lost, its peer sees that.
      server.on('error', () => {});
      resolve(new Listener(server, { host, port: boundPort }, channels));
    });
  });
}
