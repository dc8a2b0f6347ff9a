// Accepts channels. Where there is a key or certificates, connections come in through a gate (gate.ts); without them nobody outside of this machine
// can connect. A connection beyond the limit is told so and closed; closing the listener closes every channel it accepted.

import { createServer, type Server, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { AbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress, isLoopback, parseAddress } from './address.js';
import { Channel, type ChannelHandler, type ChannelOptions, HANDSHAKE_MS } from './channel.js';
import { type Entrance, Gate } from './gate.js';
import { proofsOf } from './proof.js';
import { isSecured, OPEN, type Security } from './security.js';
import { takeOver } from './takeover.js';
import { Tickets, type UsedTicket } from './tickets.js';

/** Gives each new channel its handler. `ticket` is what it came in with, if it is a plain connection; otherwise null. */
export type Accept = (channel: Channel, ticket: UsedTicket | null) => ChannelHandler;

/** The options of the channels that it accepts, and how many. */
export interface ListenOptions extends ChannelOptions {
  /** Who is let in. Without it everybody, but only from this machine. */
  readonly security?: Security;
  /** Told of each connection that is not let in: no key, another key, a certificate that is not believed, a ticket that is none. */
  readonly onRefused?: (error: AbdmError, peer: string) => void;
  /** Default 256. */
  readonly maxConnections?: number;
  /** Read by 'data' events and a copy even where bodies could be read in place: for tests of that way. */
  readonly neverDirect?: boolean;
}

/** Refused connections that are still being told so; beyond this they are just closed. */
const MAX_REFUSALS = 64;
const NO_BYTES = new Uint8Array(0);

/** Somebody who listens. Made by {@link listen}. */
export class Listener {
  /** Where it listens, the port being the real one. */
  readonly address: Address;
  /** Hands out tickets for plain connections; only a listener with a key or certificates takes them. */
  readonly tickets: Tickets;
  /** Since it listens: connections that were not let in. */
  readonly counts: { readonly refused: number };
  readonly #server: Server;
  readonly #gate: Gate | null;
  readonly #channels: Set<Channel>;

  /** Use `listen`. @internal */
  constructor(
    server: Server,
    address: Address,
    tickets: Tickets,
    counts: { readonly refused: number },
    gate: Gate | null,
    channels: Set<Channel>,
  ) {
    this.#server = server;
    this.address = address;
    this.tickets = tickets;
    this.counts = counts;
    this.#gate = gate;
    this.#channels = channels;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#channels.size;
  }

  /** Connections that have not proved yet who they are. */
  get strangers(): number {
    return this.#gate?.strangers ?? 0;
  }

  /**
   * Stops listening and fails every channel with `reason`, or, with null, ends it without a word. Resolves when all are closed, a linger later at the
   * latest.
   */
  async close(reason: AbdmError | null = new AbdmError('CANCELLED', 'the server is shutting down')): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#gate?.close();
    for (const channel of this.#channels) {
      if (reason) channel.fail(reason);
      else channel.end();
    }
    while (this.#channels.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await closed;
  }
}

/**
 * Listens on `address` (HOST:PORT, port 0 for any free one).
 * @throws {AbdmError} `USAGE` if nobody can listen there, or if others could connect and there is neither a key nor certificates.
 */
export async function listen(
  address: Address | string,
  accept: Accept,
  options: ListenOptions = {},
): Promise<Listener> {
  const { maxConnections = 256, neverDirect = false, security = OPEN, onRefused, ...rest } = options;
  const { host, port } = typeof address === 'string' ? parseAddress(address) : address;
  if (!isSecured(security) && !isLoopback(host)) {
    const text = `without a key only this machine is listened to, not ${formatAddress({ host, port })}`;
    throw new AbdmError('USAGE', `${text}: give --key (make one with 'abdm keygen'), or listen on 127.0.0.1`);
  }
  const channelOptions = { peerMayEnd: true, ...rest };
  const channels = new Set<Channel>();
  const refusals = new Set<Channel>();
  const counts = { refused: 0 };

  const open = ({ socket: accepted, peer, head, ticket }: Entrance, members: Set<Channel>): Channel => {
    const proofs = ticket && proofsOf(ticket.secret, 'server');
    const make = (onread: Parameters<typeof takeOver>[1]) => {
      // TLS hands out its records by 'data' events: it does not stop reading in the midst of what it has decrypted, as `onread` needs it.
      const own = neverDirect || accepted instanceof TLSSocket ? null : takeOver(accepted, onread);
      const socket = own ?? accepted;
      socket.once('close', () => members.delete(channel));
      return { socket, direct: own !== null };
    };
    const channel = new Channel(peer, { onMessage: () => {} }, channelOptions, make, { head, proofs });
    members.add(channel);
    return channel;
  };

  const turnAway = (entrance: Entrance, error: AbdmError) => {
    if (refusals.size >= MAX_REFUSALS) {
      entrance.socket.destroy();
      return;
    }
    const channel = open(entrance, refusals);
    channel.start();
    channel.fail(error);
  };

  const onEntered = (entrance: Entrance) => {
    if (channels.size >= maxConnections) {
      turnAway(entrance, new AbdmError('NO_ROOM', `no more than ${maxConnections} connections are served here`));
      return;
    }
    const channel = open(entrance, channels);
    channel.handler = accept(channel, entrance.ticket);
    channel.start();
  };

  const onStranger = (error: AbdmError, peer: string, socket: Socket | null) => {
    counts.refused++;
    onRefused?.(error, peer);
    if (socket) turnAway({ socket, peer, head: NO_BYTES, ticket: null }, error);
  };

  return new Promise((resolve, reject) => {
    let gate: Gate | null = null;
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      const { remoteAddress, remotePort } = socket;
      if (remoteAddress === undefined || remotePort === undefined) {
        socket.destroy();
        return;
      }
      const peer = formatAddress({ host: remoteAddress, port: remotePort });
      if (gate) gate.take(socket, peer);
      else onEntered({ socket, peer, head: NO_BYTES, ticket: null });
    });
    server.once('error', (cause) => {
      const text = `cannot listen on ${formatAddress({ host, port })}: ${cause.message}`;
      reject(new AbdmError('USAGE', text, { cause }));
    });
    server.listen({ host, port }, () => {
      const bound = server.address();
      const boundPort = typeof bound === 'object' && bound !== null ? bound.port : port;
      const address = { host, port: boundPort };
      const tickets = new Tickets();
      if (isSecured(security)) {
        const gateOptions = { address, tickets, handshakeMs: rest.handshakeMs ?? HANDSHAKE_MS };
        gate = new Gate(security, gateOptions, { onEntered, onRefused: onStranger });
      }
      // Running out of descriptors must not end the process: the connection is lost, its peer sees that.
      server.on('error', () => {});
      resolve(new Listener(server, address, tickets, counts, gate, channels));
    });
  });
}
