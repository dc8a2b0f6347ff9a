// One connection to an intermediate: HELLO, then blocks put, got and dropped, and questions about the migration (questions.ts). A block goes from
// the socket into the log and from the log to sockets; its bytes are never copied here. A client that does not read its answers is not read
// from either, so it costs a bounded amount of memory.
//
// Where the connection is secured, its client gets a ticket with WELCOME, and with it makes a plain connection beside it: a session too, without HELLO,
// for nothing but blocks of the same migration. Who is connected is said by the first one alone.
//
// Everything is answered in the order in which it came, but for a PUT down a chain: it is answered when the nodes behind this one have.

import { AbdmError } from '../../bindings/errors.js';
import { decodeChain } from '../mam/bodies.js';
import type { PutResult } from '../mam/keeper.js';
import type { BodyTarget, Channel, ChannelHandler } from '../wire/channel.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import {
  encodeU64s,
  isAboutBlocks,
  MAX_REPLICAS,
  type MessageHeader,
  MessageType,
  messageName,
  PROTOCOL_VERSION,
} from '../wire/messages.js';
import type { Ticket } from '../wire/tickets.js';
import type { BankPool } from './banks.js';
import type { Chain } from './chains.js';
import type { Place } from './log.js';
import type { Migration, Role } from './migration.js';
import type { Migrations } from './migrations.js';
import { Questions } from './questions.js';

/** More than this waiting to be written to a client: nothing is read from it until half has left. */
const MAX_PENDING_BYTES = 4 * 2 ** 20;
/** Likewise for answers without a frame, which cost heap rather than bytes. */
const MAX_PENDING_MESSAGES = 1024;

/** What happens on a connection. */
export type Happening =
  | { readonly type: 'hello'; readonly migration: string; readonly role: Role }
  | {
      readonly type: 'refused';
      readonly migration: string;
      readonly frame: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly type: 'claimed'; readonly migration: string; readonly by: string }
  | { readonly type: 'closed'; readonly migration: string | null; readonly error: AbdmError | null };

/** What happens on connections, for whoever watches. */
export type SessionEvent = { readonly peer: string } & Happening;

/** What all connections to a node share. */
export interface SessionOptions {
  /** The node's id. */
  readonly own: string;
  readonly pool: BankPool;
  readonly migrations: Migrations;
  readonly onEvent: (event: SessionEvent) => void;
  /** A ticket for whom this is; null: there is no need of any. */
  readonly issue: (pass: Pass) => Ticket | null;
}

/** Whom a ticket lets in: whoever speaks on this session, for this migration. */
export interface Pass {
  readonly talk: Session;
  readonly migration: Migration;
  readonly role: Role;
}

export class Session implements ChannelHandler {
  readonly #channel: Channel;
  readonly #options: SessionOptions;
  readonly #questions: Questions;
  #role: Role = 'source';
  #migration: Migration | null = null;
  /** By the numbers that this client has given them. */
  readonly #chains = new Map<number, Chain>();
  /** Where the body of the PUT that is coming in goes. */
  #place: Place | null = null;
  #waiting = false;
  /** What it came in by, if it is a plain connection. */
  readonly #pass: Pass | null;
  /** The other one of the two connections that belong together. */
  #partner: Channel | null = null;

  constructor(channel: Channel, options: SessionOptions, pass: Pass | null = null) {
    this.#channel = channel;
    this.#options = options;
    this.#pass = pass;
    if (pass !== null) {
      this.#migration = pass.migration;
      this.#role = pass.role;
      this.#partner = pass.talk.#channel;
      pass.talk.#partner = channel;
    }
    this.#questions = new Questions(options.migrations, (type, body, id = 0) => this.#answer(type, id, body));
  }

  bodyTarget(header: MessageHeader): BodyTarget {
    if (!this.#hasCalm(1)) {
      this.#waiting = true;
      return 'wait';
    }
    if (this.#pass !== null && !isAboutBlocks(header.type)) {
      throw new AbdmError('PROTOCOL', `${messageName(header.type)} is nothing for a plain connection`);
    }
    switch (header.type) {
      case MessageType.HELLO:
        if (this.#migration !== null) throw new AbdmError('PROTOCOL', 'HELLO twice on one connection');
        return null;
      case MessageType.PUT:
        return this.#admit(header, this.#joined(header));
      case MessageType.CHAIN:
      case MessageType.GET:
      case MessageType.DROP:
        this.#joined(header);
        return null;
      default:
        return this.#question(header);
    }
  }

  onMessage(header: MessageHeader, body: Uint8Array): void {
    switch (header.type) {
      case MessageType.HELLO:
        return this.#hello(body);
      case MessageType.PUT:
        return this.#settle(header, this.#joined(header));
      case MessageType.CHAIN:
        return this.#chain(body, this.#joined(header));
      case MessageType.GET:
        return this.#get(header.id, this.#joined(header));
      case MessageType.DROP:
        return this.#answer(MessageType.DROPPED, 0, encodeJson(this.#joined(header).drop('asked')));
      default: {
        const by = this.#questions.answer(header, body, this.#migration, this.#role);
        if (by !== null) this.#event({ type: 'claimed', migration: this.#joined(header).id, by });
      }
    }
  }

  onClose(error: AbdmError | null): void {
    const migration = this.#migration;
    if (this.#place !== null) this.#place.log.rollback(this.#place);
    this.#place = null;
    // The client may not have noticed: what it hears nothing of any more it makes again, both.
    if (error !== null) this.#partner?.end();
    if (this.#pass === null) {
      this.#questions.close(migration);
      migration?.leave(this.#role);
    }
    this.#event({ type: 'closed', migration: migration?.id ?? null, error });
  }

  #hello(body: Uint8Array): void {
    const hello = decodeJson(body, 'HELLO');
    const protocol = need.integer(hello, 'protocol', 'HELLO');
    if (protocol !== PROTOCOL_VERSION) {
      throw new AbdmError('PROTOCOL', `HELLO: protocol ${protocol}, this intermediate speaks ${PROTOCOL_VERSION}`);
    }
    const role = need.oneOf(hello, 'role', 'HELLO', ['source', 'destination', 'intermediate']);
    const id = need.string(hello, 'migration', 'HELLO', 32);
    if (!/^[0-9a-f]{32}$/.test(id)) throw new AbdmError('PROTOCOL', 'HELLO: `migration` is not 32 hexadecimal digits');
    const migration = this.#options.migrations.get(id);
    migration.join(role);
    this.#migration = migration;
    this.#role = role;
    const { own, pool } = this.#options;
    const { freeBytes, memoryBytes } = pool;
    const ticket = this.#options.issue({ talk: this, migration, role }) ?? undefined;
    const welcome = { protocol: PROTOCOL_VERSION, role: 'intermediate', id: own, freeBytes, memoryBytes, ticket };
    this.#answer(MessageType.WELCOME, 0, encodeJson(welcome));
    this.#event({ type: 'hello', migration: id, role });
  }

  #question(header: MessageHeader): null {
    const kind = Questions.kind(header.type);
    if (kind === null) {
      throw new AbdmError('PROTOCOL', `${messageName(header.type)} is nothing that an intermediate takes`);
    }
    if (kind === 'after HELLO') this.#joined(header);
    return null;
  }

  #chain(body: Uint8Array, migration: Migration): void {
    const { chain, nodes } = decodeChain(body);
    if (migration.dropped === null) this.#chains.set(chain, migration.chains.intern(nodes));
  }

  #admit(header: MessageHeader, migration: Migration): BodyTarget {
    const { id } = header;
    if (migration.dropped === null && header.chain !== 0) this.#chainOf(header);
    const admission = migration.frames.admit(id, header.bodyBytes);
    if (admission === 'kept') {
      this.#kept(header, migration);
      return 'discard';
    }
    if (admission instanceof AbdmError) {
      this.#refuse(id, migration, admission);
      return 'discard';
    }
    this.#place = admission;
    return admission.log.view(admission.bank, admission.ptr, admission.bytes);
  }

  #settle(header: MessageHeader, migration: Migration): void {
    const place = this.#place!;
    this.#place = null;
    const error = migration.frames.settle(header.id, place);
    if (error === null) this.#kept(header, migration);
    else this.#refuse(header.id, migration, error);
  }

  // The block is here; it is stored when all nodes behind this one have it too.
  #kept(header: MessageHeader, migration: Migration): void {
    const { id } = header;
    const chain = header.chain === 0 ? null : this.#chainOf(header);
    const block = chain?.next ? migration.frames.get(id) : null;
    if (chain === null || block === null) {
      if (chain !== null) migration.hold(id, chain);
      this.#stored(id, []);
      return;
    }
    void chain.next!.forward(id, block.body, chain, block.done).then((result) => {
      this.#forwarded(id, migration, chain, result);
    });
  }

  #forwarded(id: number, migration: Migration, chain: Chain, result: PutResult): void {
    if (migration.dropped !== null) {
      this.#refuse(id, migration, new AbdmError('CANCELLED', `frame ${id} is of a migration that was dropped here`));
    } else if (result.stored) {
      migration.hold(id, chain);
      this.#stored(id, result.freeBytes);
    } else this.#refuse(id, migration, result, result.node);
  }

  #get(frameId: number, migration: Migration): void {
    const frame = migration.frames.get(frameId);
    if (frame === null) this.#answer(MessageType.MISSING, frameId);
    else this.#answer(MessageType.FRAME, frameId, frame.body, frame.done);
  }

  #stored(frameId: number, behind: readonly number[]): void {
    const free = [this.#options.pool.freeBytes, ...behind].slice(0, MAX_REPLICAS);
    this.#answer(MessageType.STORED, frameId, encodeU64s(...free));
  }

  #refuse(frame: number, migration: Migration, error: { code: string; message: string }, node?: string): void {
    const { code, message } = error;
    const { freeBytes } = this.#options.pool;
    this.#answer(MessageType.REFUSED, frame, encodeJson({ code, message, freeBytes, node }));
    this.#event({ type: 'refused', migration: migration.id, frame, code, message });
  }

  #joined(header: MessageHeader): Migration {
    if (this.#migration === null) throw new AbdmError('PROTOCOL', `${messageName(header.type)} before HELLO`);
    return this.#migration;
  }

  #chainOf(header: MessageHeader): Chain {
    const chain = this.#chains.get(header.chain);
    if (chain === undefined)
      throw new AbdmError('PROTOCOL', `PUT ${header.id}: no CHAIN has said what chain ${header.chain} is`);
    return chain;
  }

  #answer(type: MessageType, id: number, body?: Uint8Array, done?: () => void): void {
    this.#channel.send(type, id, body, () => {
      done?.();
      if (!this.#waiting || !this.#hasCalm(0.5)) return;
      this.#waiting = false;
      this.#channel.resume();
    });
  }

  // Less than this part of what may be pending is pending.
  #hasCalm(part: number): boolean {
    const { pendingBytes, pendingMessages } = this.#channel;
    return pendingBytes <= part * MAX_PENDING_BYTES && pendingMessages <= part * MAX_PENDING_MESSAGES;
  }

  #event(event: Happening): void {
    this.#options.onEvent({ peer: this.#channel.peer, ...event });
  }
}
