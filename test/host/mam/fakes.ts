// Nodes and destinations that answer to a PUT what a test says, when it says so.
import { randomBytes } from 'node:crypto';
import { MANIFEST_ID } from '#abdm/host/mam/catalog.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { decodeJson, encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, type MessageHeader, MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';

export interface FakeNode {
  address: string;
  /** Ids of blocks that were put to it. */
  puts: number[];
  kill(): Promise<void>;
}

type Answer = (header: MessageHeader, channel: Channel) => void;

export const stored: Answer = ({ id }, channel) => channel.send(MessageType.STORED, id, encodeU64s(1e9, 1e9, 1e9));
export const silent: Answer = () => {};

/** A PUT that is not answered yet. */
export interface Held {
  id: number;
  store(): void;
  refuse(code: string): void;
}

/** What was put is in `held`, to be answered: frames, unless `holds` says otherwise; everything else is stored. */
export function holding(holds = (id: number) => id < MANIFEST_ID) {
  const held: Held[] = [];
  const answer: Answer = (header, channel) => {
    if (!holds(header.id)) return stored(header, channel);
    const refuse = (code: string) =>
      channel.send(MessageType.REFUSED, header.id, encodeJson({ code, message: 'no', freeBytes: 1e9 }));
    held.push({ id: header.id, store: () => stored(header, channel), refuse });
  };
  return { held, answer };
}

/** All fakes of a test file. */
export class Fakes {
  readonly #listeners = new Set<Listener>();

  /** A node that says WELCOME and PONG, and to a PUT what `answer` says. */
  node(answer: Answer, freeBytes = 1e9): Promise<FakeNode> {
    return this.#start('intermediate', freeBytes, (_role, header, channel) => answer(header, channel));
  }

  /** A destination, likewise; to a PUT on the connection for what somebody waits for it says what `urgent` says. */
  destination(answer: Answer, urgent: Answer = stored): Promise<FakeNode> {
    return this.#start('destination', Number.MAX_SAFE_INTEGER, (role, header, channel) => {
      if (role === 'urgent') urgent(header, channel);
      else answer(header, channel);
    });
  }

  async end(): Promise<void> {
    await Promise.all([...this.#listeners].map((listener) => listener.close()));
    this.#listeners.clear();
  }

  async #start(
    role: string,
    freeBytes: number,
    answer: (role: unknown, header: MessageHeader, channel: Channel) => void,
  ): Promise<FakeNode> {
    const id = randomBytes(16).toString('hex');
    const puts: number[] = [];
    const listener = await listen(
      '127.0.0.1:0',
      () => {
        let client: unknown;
        return {
          onMessage(header, body, channel) {
            if (header.type === MessageType.HELLO) {
              client = decodeJson(body, 'HELLO').role;
              const welcome = { protocol: PROTOCOL_VERSION, role, id, freeBytes, memoryBytes: freeBytes };
              channel.send(MessageType.WELCOME, 0, encodeJson(welcome));
            } else if (header.type === MessageType.PING) channel.send(MessageType.PONG, 0);
            else if (header.type === MessageType.REGISTER) {
              channel.send(MessageType.LEASED, 0, encodeJson({ expiresInMs: 1000 }));
            } else if (header.type === MessageType.PUT) {
              puts.push(header.id);
              answer(client, header, channel);
            }
          },
        };
      },
      { lingerMs: 50 },
    );
    this.#listeners.add(listener);
    const kill = () => {
      this.#listeners.delete(listener);
      return listener.close();
    };
    return { address: `127.0.0.1:${listener.address.port}`, puts, kill };
  }
}
