// Where announcements are said and heard: UDP over IPv4, at multicast groups or at plain addresses (clouds have no multicast). Without a key
// nothing leaves loopback.
//
//   place               who announces                                      who hears
//   239.77.77.77:7077   sends to the group, on its address's interface     joins the group, on every interface
//   10.0.0.9:7077       sends there                                        listens there; one program a host and port

import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { AbdmError } from '../../bindings/errors.js';
import { type Address, parseAddress } from '../wire/address.js';

/** Where the command announces and listens unless it is told otherwise. */
export const DEFAULT_PLACES: readonly string[] = ['239.77.77.77:7077'];
const MAX_PLACES = 64;
const LOOPBACK = '127.0.0.1';
/** Honest announcements wait here while a flood of others is thrown away. The kernel may grant less. */
const RECEIVE_BUFFER_BYTES = 1024 * 1024;

interface Place extends Address {
  readonly text: string;
  readonly multicast: boolean;
}

/** Whether packets from or to this IPv4 address or name stay on this host. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || (isIPv4(host) && host.startsWith('127.'));
}

/**
 * Hears what is said at `places` until `close`.
 * @param open there is no key: on loopback only.
 * @param onDatagram gets each datagram, and the address of who sent it.
 * @throws {AbdmError} `USAGE` naming the place where nobody can listen.
 */
export async function listenAt(
  places: readonly string[],
  open: boolean,
  onDatagram: (datagram: Uint8Array, from: string) => void,
): Promise<{ close(): void }> {
  const sockets: Socket[] = [];
  const close = () => {
    for (const socket of sockets) socket.close();
  };
  try {
    for (const place of parsePlaces(places, open)) {
      // A group is shared by all who listen on this host; a plain address by nobody, or the last to come would get everything.
      const socket = createSocket({ type: 'udp4', reuseAddr: place.multicast });
      sockets.push(socket);
      await bind(socket, place);
      if (place.multicast) join(socket, place, open);
      grow(socket);
      socket.on('error', () => {});
      socket.on('message', (datagram, { address }) => onDatagram(datagram, address));
    }
  } catch (error) {
    close();
    throw error;
  }
  return { close };
}

/** Says something at every place. Made by {@link sendTo}. */
export interface Sender {
  /**
   * Sends to each place what `datagram` makes for it, except where the last one has not left yet; resolves when all are on their way. Never fails: see
   * `onFailure`.
   */
  say(datagram: () => Uint8Array): Promise<void>;
  close(): void;
}

/**
 * Opens a socket that sends to `places`.
 * @param open there is no key: on loopback only.
 * @param host the sender's own; groups are reached by the interface that has this address, else by the one that the system chooses.
 * @param onFailure told when a place cannot be sent to, once until it can again.
 * @throws {AbdmError} `USAGE` if a place is none.
 */
export async function sendTo(
  places: readonly string[],
  open: boolean,
  host: string,
  onFailure: (error: AbdmError) => void,
): Promise<Sender> {
  const targets = parsePlaces(places, open);
  const socket = createSocket('udp4');
  await bind(socket, { host: open ? LOOPBACK : '0.0.0.0', port: 0, text: 'any port' });
  socket.on('error', () => {});
  const through = open || isLoopback(host) ? LOOPBACK : interfaceAddresses().find((address) => address === host);
  if (through) socket.setMulticastInterface(through);

  const failing = new Set<Place>();
  // Looking up a name may take longer than the time between two datagrams: they do not pile up.
  const busy = new Set<Place>();
  const sendOne = (place: Place, datagram: Uint8Array) =>
    new Promise<void>((resolve) => {
      busy.add(place);
      socket.send(datagram, place.port, place.host, (cause) => {
        busy.delete(place);
        if (!cause) failing.delete(place);
        else if (!failing.has(place)) {
          failing.add(place);
          const text = `cannot announce to ${place.text}: ${cause.message}; trying on`;
          onFailure(new AbdmError('PEER_UNREACHABLE', text, { cause }));
        }
        resolve();
      });
    });
  return {
    say: async (datagram) => {
      const ready = targets.filter((place) => !busy.has(place));
      await Promise.all(ready.map((place) => sendOne(place, datagram())));
    },
    close: () => socket.close(),
  };
}

function parsePlaces(texts: readonly string[], open: boolean): Place[] {
  if (texts.length > MAX_PLACES) {
    throw new AbdmError('USAGE', `${texts.length} places for announcements, ${MAX_PLACES} are allowed`);
  }
  return texts.map((text) => {
    const { host, port } = parseAddress(text, 1);
    if (isIPv6(host)) throw bad(text, 'announcements travel over IPv4');
    const first = isIPv4(host) ? Number(host.split('.')[0]) : 0;
    const multicast = first >= 224 && first < 240;
    if (open && !multicast && !isLoopback(host)) {
      throw bad(text, 'without the cluster key (--key) announcements stay on loopback');
    }
    return { host, port, text, multicast };
  });
}

async function bind(socket: Socket, { host, port, text }: Address & { text: string }): Promise<void> {
  try {
    const bound = once(socket, 'listening');
    socket.bind({ address: host, port });
    await bound;
  } catch (cause) {
    throw bad(text, `cannot use it: ${(cause as Error).message}`, cause);
  }
}

// A host may have interfaces that take no part in multicast; with one that does, it is heard.
function join(socket: Socket, { host, text }: Place, open: boolean): void {
  let joined = 0;
  let failure: unknown;
  for (const address of open ? [LOOPBACK] : interfaceAddresses()) {
    try {
      socket.addMembership(host, address);
      joined++;
    } catch (error) {
      failure = error;
    }
  }
  if (joined === 0) throw bad(text, `no interface can join this group: ${(failure as Error)?.message}`, failure);
}

function grow(socket: Socket): void {
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
  } catch {
    // The system's own size will do.
  }
}

function interfaceAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all.filter(({ family }) => family === 'IPv4').map(({ address }) => address);
}

function bad(text: string, why: string, cause?: unknown): AbdmError {
  return new AbdmError('USAGE', `announcements at '${text}': ${why}`, { cause });
}
