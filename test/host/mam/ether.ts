// What tests of announcements share: a group of their own, announcements of nodes that do not exist, and a socket that says anything.
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import { type Announcement, encodeAnnouncement } from '#abdm/host/mam/announcement.js';
import { NodeIndex, type NodeIndexOptions } from '#abdm/host/mam/index.js';
import { PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import type { Security } from '#abdm/host/wire/security.js';

/** A multicast group that no other test uses. */
export function group(): string {
  return `239.${randomInt(1, 250)}.${randomInt(1, 250)}.${randomInt(1, 250)}:${randomInt(20_000, 30_000)}`;
}

export function withKey(fill: number): Security {
  return { clusterKey: new Uint8Array(32).fill(fill), tls: null };
}

// One start for all: another would be another node.
const STARTED_MS = Date.now() - 1000;

export const ID = '00112233445566778899aabbccddeeff';

export function announcement(some: Partial<Announcement> = {}): Announcement {
  return {
    id: ID,
    address: '127.0.0.1:7001',
    protocol: PROTOCOL_VERSION,
    startedMs: STARTED_MS,
    clockMs: Date.now(),
    sequence: 1,
    freeBytes: 5e9,
    memoryBytes: 16e9,
    load: 0.25,
    connections: 3,
    leaving: false,
    ...some,
  };
}

/** An index that is closed when the test ends. */
export async function openIndex(options: NodeIndexOptions): Promise<NodeIndex> {
  const index = await NodeIndex.open(options);
  onTestFinished(() => index.close());
  return index;
}

/** Says anything at a place, on loopback. */
export class Mouth {
  readonly #socket = createSocket('udp4');
  readonly #host: string;
  readonly #port: number;

  private constructor(place: string) {
    [this.#host, this.#port] = [place.split(':')[0]!, Number(place.split(':')[1])];
  }

  static async at(place: string): Promise<Mouth> {
    const mouth = new Mouth(place);
    mouth.#socket.bind(0, '127.0.0.1');
    await once(mouth.#socket, 'listening');
    mouth.#socket.setMulticastInterface('127.0.0.1');
    onTestFinished(() => {
      mouth.#socket.close();
    });
    return mouth;
  }

  say(datagram: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.send(datagram, this.#port, this.#host, (error) => (error ? reject(error) : resolve()));
    });
  }

  announce(some: Partial<Announcement>, key: Uint8Array | null): Promise<void> {
    return this.say(encodeAnnouncement(announcement(some), key));
  }
}
