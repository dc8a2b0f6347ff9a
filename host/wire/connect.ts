// Opens a channel to somebody who listens, within a deadline; what went wrong is said in words that tell what to check.

import { Socket, type SocketConstructorOpts } from 'node:net';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress, isLoopback, parseAddress } from './address.js';
import { Channel, type ChannelHandler, type ChannelOptions } from './channel.js';
import { proofsOf } from './proof.js';
import { isSecured, OPEN, type Security } from './security.js';
import { preambleOf, type Ticket } from './tickets.js';
import { tlsConnect, tlsFailure } from './tls.js';

/** A channel's options, and how long connecting may take. */
export interface ConnectOptions extends ChannelOptions {
  /** How the connection is made private. Without it, it must stay on this machine. */
  readonly security?: Security;
  /**
   * Opens a plain connection by this ticket, which its listener has issued: what is sent can be read by others, and not changed. Nothing but sealed
   * blocks and the talk about them belongs there.
   */
  readonly ticket?: Ticket;
  /** The connection must stand within this. Default 5 s. */
  readonly timeoutMs?: number;
  /** Aborted before the connection stands, it is given up, for the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

const ADVICE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there: is it started, and is the port right?',
  ENOTFOUND: 'this name has no address: check its spelling, or write the address itself',
  EAI_AGAIN: 'the name cannot be looked up now: check the name service, or write the address itself',
  EHOSTUNREACH: 'there is no way to that host: is it up, and on this network?',
  ENETUNREACH: 'there is no way to that network: check the routes of this host',
  ETIMEDOUT: 'no answer: is the host up, and does a firewall let the port through?',
  ECONNRESET: 'it closed the connection at once',
};

/**
 * Connects to `address` (HOST:PORT). `handler.onClose` is called only for a connection that stood.
 * @throws {AbdmError} `PEER_UNREACHABLE` naming the address and what to check; `UNAUTHENTICATED` if the two do not take each other for members of one
 * cluster; `USAGE` if the address is none, or not on this machine and there is neither a key nor certificates.
 */
export async function connect(
  address: Address | string,
  handler: ChannelHandler,
  options: ConnectOptions = {},
): Promise<Channel> {
  const { timeoutMs = 5_000, security = OPEN, ticket, signal, ...channelOptions } = options;
  const { host, port } = typeof address === 'string' ? parseAddress(address, 1) : address;
  const peer = formatAddress({ host, port });
  const plain = ticket !== undefined || !isSecured(security);
  if (ticket === undefined) checkReach({ host, port }, security);
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const giveUp = () => channel.destroy(asAbdmError(signal!.reason));
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', giveUp);
    };
    const connecting: ChannelHandler = {
      onMessage: () => {},
      onClose: (error) => {
        settle();
        if (signal?.aborted) return reject(asAbdmError(signal.reason));
        const refused = plain || error?.code !== 'PEER_GONE' ? null : tlsFailure(peer, error.cause);
        reject(refused ?? (error?.code === 'PEER_UNREACHABLE' ? error : unreachable(peer, error?.cause)));
      },
    };
    const onConnected = () => {
      settle();
      channel.handler = handler;
      channel.start();
      resolve(channel);
    };
    const proofs = ticket ? proofsOf(Buffer.from(ticket.secret, 'hex'), 'client') : null;
    const channel = new Channel(
      peer,
      connecting,
      channelOptions,
      (onread) => {
        if (!plain)
          return { socket: tlsConnect({ host, port }, security).once('secureConnect', onConnected), direct: false };
        const socket = new Socket({ onread } as SocketConstructorOpts);
        socket.once('connect', () => {
          if (ticket) socket.write(preambleOf(ticket));
          onConnected();
        });
        return { socket: socket.connect({ host, port, noDelay: true }), direct: true };
      },
      { proofs },
    );
    timer = setTimeout(() => {
      const text = `cannot reach ${peer} within ${timeoutMs} ms: ${ADVICE.ETIMEDOUT}`;
      channel.destroy(new AbdmError('PEER_UNREACHABLE', text));
    }, timeoutMs);
    if (signal?.aborted) giveUp();
    else signal?.addEventListener('abort', giveUp);
  });
}

/** @throws {AbdmError} USAGE if it is not on this machine, and there is neither a key nor certificates. */
export function checkReach(address: Address, security: Security): void {
  if (isSecured(security) || isLoopback(address.host)) return;
  const text = `without a key only this machine is spoken to, and ${formatAddress(address)} is not known to be on it`;
  throw new AbdmError('USAGE', `${text}: give --key, or --tls-cert, --tls-key and --tls-ca`);
}

function unreachable(peer: string, cause: unknown): AbdmError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const why = ADVICE[code] ?? (cause instanceof Error ? cause.message : 'the connection was given up');
  return new AbdmError('PEER_UNREACHABLE', `cannot reach ${peer}: ${why}${code && ` (${code})`}`, { cause });
}
