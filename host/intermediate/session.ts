// One connection to an intermediate: HELLO, then any number of PUT, GET and DROP, each answered in the order in which they came. A frame goes
// from the socket into the log and from the log to the socket; its bytes are never copied here. A client that does not read its answers is
// not read from either, so it costs a bounded amount of memory.

import { AbdmError } from '../../bindings/errors.js';
import type { BodyTarget, Channel, ChannelHandler } from '../wire/channel.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { encodeU64s, type MessageHeader, MessageType, messageName, PROTOCOL_VERSION } from '../wire/messages.js';
import type { BankPool } from './banks.js';
import type { Place } from './log.js';
import type { Migration, Migrations } from './migrations.js';

/** More than this waiting to be written to a client: nothing is read from it until half has left. */
const MAX_PENDING_BYTES = 4 * 2 ** 20;
/** Likewise for answers without a frame, which cost heap rather than bytes. */
const MAX_PENDING_MESSAGES = 1024;

/** What happens on connections, for whoever watches. */
export type SessionEvent =
  | { readonly type: 'hello'; readonly peer: string; readonly migration: string; readonly role: string }
  | {
      readonly type: 'refused';
      readonly peer: string;
      readonly migration: string;
      readonly frame: number;
      readonly error: AbdmError;
    }
  | {
      readonly type: 'dropped';
      readonly peer: string;
      readonly migration: string;
      readonly frames: number;
      readonly bytes: number;
    }
  | {
      readonly type: 'closed';
      readonly peer: string;
      readonly migration: string | null;
      readonly error: AbdmError | null;
    };

export class Session implements ChannelHandler {
  readonly #channel: Channel;
  readonly #pool: BankPool;
  readonly #migrations: Migrations;
  readonly #onEvent: (event: SessionEvent) => void;
  #migration: Migration | null = null;
  /** Where the body of the PUT that is coming in goes. */
  #place: Place | null = null;
  #waiting = false;

  constructor(channel: Channel, pool: BankPool, migrations: Migrations, onEvent: (event: SessionEvent) => void) {
    this.#channel = channel;
    this.#pool = pool;
    this.#migrations = migrations;
    this.#onEvent = onEvent;
  }

  bodyTarget(header: MessageHeader): BodyTarget {
    if (!this.#hasCalm(1)) {
      this.#waiting = true;
      return 'wait';
    }
    switch (header.type) {
      case MessageType.HELLO:
        if (this.#migration !== null) throw new AbdmError('PROTOCOL', 'HELLO twice on one connection');
        return null;
      case MessageType.PUT:
        return this.#admit(header, this.#joined(header));
      case MessageType.GET:
      case MessageType.DROP:
        this.#joined(header);
        return null;
      default:
        throw new AbdmError('PROTOCOL', `${messageName(header.type)} is nothing that an intermediate takes`);
    }
  }

  onMessage(header: MessageHeader, body: Uint8Array): void {
    if (header.type === MessageType.HELLO) this.#hello(body);
    else if (header.type === MessageType.PUT) this.#settle(header.id, this.#joined(header));
    else if (header.type === MessageType.GET) this.#get(header.id, this.#joined(header));
    else this.#drop(this.#joined(header));
  }

  onClose(error: AbdmError | null): void {
    const migration = this.#migration;
    if (this.#place !== null) this.#place.log.rollback(this.#place);
    this.#place = null;
    if (migration !== null) this.#migrations.leave(migration);
    this.#onEvent({ type: 'closed', peer: this.#channel.peer, migration: migration?.id ?? null, error });
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
    this.#migration = this.#migrations.join(id);
    const { freeBytes, memoryBytes } = this.#pool;
    const welcome = { protocol: PROTOCOL_VERSION, role: 'intermediate', id: '', freeBytes, memoryBytes };
    this.#answer(MessageType.WELCOME, 0, encodeJson(welcome));
    this.#onEvent({ type: 'hello', peer: this.#channel.peer, migration: id, role });
  }

  #admit(header: MessageHeader, migration: Migration): BodyTarget {
    const admission = migration.frames.admit(header.id, header.bodyBytes);
    if (admission === 'kept') {
      this.#stored(header.id);
      return 'discard';
    }
    if (admission instanceof AbdmError) {
      this.#refuse(header.id, migration, admission);
      return 'discard';
    }
    this.#place = admission;
    return admission.log.view(admission.bank, admission.ptr, admission.bytes);
  }

  #settle(frameId: number, migration: Migration): void {
    const place = this.#place!;
    this.#place = null;
    const error = migration.frames.settle(frameId, place);
    if (error === null) this.#stored(frameId);
    else this.#refuse(frameId, migration, error);
  }

  #get(frameId: number, migration: Migration): void {
    const frame = migration.frames.get(frameId);
    if (frame === null) this.#answer(MessageType.MISSING, frameId);
    else this.#answer(MessageType.FRAME, frameId, frame.body, frame.done);
  }

  #drop(migration: Migration): void {
    const dropped = migration.frames.drop();
    this.#answer(MessageType.DROPPED, 0, encodeJson(dropped));
    this.#onEvent({ type: 'dropped', peer: this.#channel.peer, migration: migration.id, ...dropped });
  }

  #stored(frameId: number): void {
    this.#answer(MessageType.STORED, frameId, encodeU64s(this.#pool.freeBytes));
  }

  #refuse(frameId: number, migration: Migration, error: AbdmError): void {
    const { code, message } = error;
    this.#answer(MessageType.REFUSED, frameId, encodeJson({ code, message, freeBytes: this.#pool.freeBytes }));
    this.#onEvent({ type: 'refused', peer: this.#channel.peer, migration: migration.id, frame: frameId, error });
  }

  #joined(header: MessageHeader): Migration {
    if (this.#migration === null) throw new AbdmError('PROTOCOL', `${messageName(header.type)} before HELLO`);
    return this.#migration;
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
}
