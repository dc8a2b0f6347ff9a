// Who comes in at a listener that has a key or certificates. The first bytes of a connection say what it wants to be, all on one port:
//
//   0x16          a TLS client hello: comes in once both sides have proved who they are
//   "ABDT" id     a plain connection with a ticket that was handed out over TLS (tickets.ts)
//   else          somebody without a key: a client of ours that said HELLO is told so
//
// Until then it is a stranger: bounded in number and in time, with nothing allocated for what it says. Of too many strangers the one that
// has been at it for longest has to go, for an honest one is through in milliseconds.

import type { Socket } from 'node:net';
import type { Server, TLSSocket } from 'node:tls';
import { AbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress } from './address.js';
import { MessageType } from './messages.js';
import type { Security } from './security.js';
import { PREAMBLE_BYTES, readPreamble, type Tickets, type UsedTicket } from './tickets.js';
import { certificateRefusal, plainRefusal, tlsFailure, tlsServer } from './tls.js';

/** A connection that is let in. */
export interface Entrance {
  readonly socket: Socket;
  readonly peer: string;
  /** What came behind the preamble already; then nothing is being read from the socket. */
  readonly head: Uint8Array;
  readonly ticket: UsedTicket | null;
}

export interface GateEvents {
  onEntered(entrance: Entrance): void;
  /** `open` is a socket through which it can still be told; null if there is none. */
  onRefused(error: AbdmError, peer: string, open: Socket | null): void;
}

export interface GateOptions {
  /** Where it stands, for what strangers are told. */
  readonly address: Address;
  readonly tickets: Tickets;
  /** Who has not proved within this who it is has to go. */
  readonly handshakeMs: number;
}

const TLS_HANDSHAKE = 0x16;
const MAX_STRANGERS = 128;

interface Stranger {
  readonly accepted: Socket;
  readonly peer: string;
  readonly deadline: NodeJS.Timeout;
  head: Buffer;
}

export class Gate {
  readonly #options: GateOptions;
  readonly #events: GateEvents;
  readonly #server: Server;
  /** By peer, who is one connection; the oldest first. */
  readonly #strangers = new Map<string, Stranger>();

  constructor(security: Security, options: GateOptions, events: GateEvents) {
    this.#options = options;
    this.#events = events;
    this.#server = tlsServer(security);
    this.#server.on('secureConnection', (socket) => this.#onSecure(socket));
    this.#server.on('tlsClientError', (cause, socket) => this.#onFailed(cause, socket));
  }

  /** Connections that have not come in yet. */
  get strangers(): number {
    return this.#strangers.size;
  }

  /** Asks a connection, of which nothing has been read, who it is. */
  take(accepted: Socket, peer: string): void {
    if (this.#strangers.size >= MAX_STRANGERS) {
      const [oldest] = this.#strangers.values();
      if (oldest) this.#refuse(oldest, 'made room for others: too many connections say nothing');
    }
    const { handshakeMs } = this.#options;
    const deadline = setTimeout(() => {
      this.#refuse(stranger, `did not prove within ${handshakeMs} ms that it is one of us`);
    }, handshakeMs);
    const stranger: Stranger = { accepted, peer, deadline, head: Buffer.alloc(0) };
    this.#strangers.set(peer, stranger);
    accepted.on('error', () => {});
    accepted.once('close', () => this.#forget(stranger));
    accepted.on('readable', () => this.#listenTo(stranger));
  }

  /** Sends everybody away who has not come in yet. */
  close(): void {
    for (const { accepted } of this.#strangers.values()) accepted.destroy();
  }

  #listenTo(stranger: Stranger): void {
    const { accepted, peer } = stranger;
    const bytes: Buffer | null = accepted.read();
    if (bytes === null || !this.#strangers.has(peer)) return;
    stranger.head = Buffer.concat([stranger.head, bytes]);
    const { head } = stranger;
    if (head[0] === TLS_HANDSHAKE) {
      accepted.removeAllListeners('readable');
      accepted.unshift(head);
      this.#server.emit('connection', accepted);
      return;
    }
    const id = readPreamble(head);
    if (id === undefined) return;
    accepted.removeAllListeners('readable');
    if (id !== null) return this.#onTicket(stranger, id);
    if (head[0] !== MessageType.HELLO) return this.#refuse(stranger, 'speaks something that is none of ours');
    // In plain words, for it understands no others.
    this.#forget(stranger);
    this.#events.onRefused(plainRefusal(this.#options.address), peer, accepted);
  }

  #onTicket(stranger: Stranger, id: string): void {
    const ticket = this.#options.tickets.use(id);
    if (ticket === null) return this.#refuse(stranger, 'has a ticket that is unknown, used or too old');
    this.#forget(stranger);
    const { accepted, peer, head } = stranger;
    this.#events.onEntered({ socket: accepted, peer, head: head.subarray(PREAMBLE_BYTES), ticket });
  }

  #onSecure(socket: TLSSocket): void {
    const stranger = this.#find(socket);
    if (!stranger) {
      socket.destroy();
      return;
    }
    this.#forget(stranger);
    const { peer } = stranger;
    // Says so for a key, too: there, no certificate was asked for.
    const fault = socket.authorizationError as unknown;
    if (fault) this.#events.onRefused(certificateRefusal(String(fault)), peer, socket);
    else this.#events.onEntered({ socket, peer, head: new Uint8Array(0), ticket: null });
  }

  #onFailed(cause: Error, socket: TLSSocket): void {
    const stranger = this.#find(socket);
    if (!stranger) return;
    const { peer } = stranger;
    const error = tlsFailure(peer, cause) ?? new AbdmError('UNAUTHENTICATED', `${peer} went away: ${cause.message}`);
    this.#forget(stranger);
    socket.destroy();
    this.#events.onRefused(error, peer, null);
  }

  #find({ remoteAddress: host, remotePort: port }: TLSSocket): Stranger | undefined {
    return host === undefined || port === undefined ? undefined : this.#strangers.get(formatAddress({ host, port }));
  }

  #refuse(stranger: Stranger, text: string): void {
    this.#forget(stranger);
    stranger.accepted.destroy();
    this.#events.onRefused(new AbdmError('UNAUTHENTICATED', `${stranger.peer} ${text}`), stranger.peer, null);
  }

  #forget(stranger: Stranger): void {
    clearTimeout(stranger.deadline);
    if (this.#strangers.get(stranger.peer) === stranger) this.#strangers.delete(stranger.peer);
  }
}
