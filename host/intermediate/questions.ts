// What may be asked of an intermediate beside blocks: what it keeps, for whom, who has claimed it, how long it stays, and whether it is there.
// LOOKUP and PING need no HELLO.
//
//   source -> REGISTER { vms, replicas, parked, leaseMs, voters, ... }       <- LEASED { expiresInMs }
//   dest.  -> LOOKUP { name: "web" }                                         <- FOUND { found: [ { migration, ... } ] }
//          -> HELLO                                                          <- WELCOME
//          -> CLAIM { token, by: "merge at host b, process 812" }            <- CLAIMED { granted: true, by, sinceMs: 0 }
//          -> LIST 2^48                                                      <- LISTED 2^48, 2^49, 2^49 + 1, ...
//   anyone -> LEASE { leaseMs: 86400000 }                                    <- LEASED { expiresInMs }
//          -> PING                                                           <- PONG

import { AbdmError } from '../../bindings/errors.js';
import { decodeClaim, decodeLease, decodeLookup, decodeRegistration, MAX_FOUND } from '../mam/bodies.js';
import { encodeJson } from '../wire/json.js';
import { encodeU64s, type MessageHeader, MessageType, messageName } from '../wire/messages.js';
import type { Migration, Role } from './migration.js';
import type { Migrations } from './migrations.js';

/** Ids in one LISTED. */
const MAX_LISTED = 8192;
/** What is found goes into one message; the rest is left out. */
const MAX_FOUND_BYTES = 60 * 1024;

const { LIST, REGISTER, LOOKUP, CLAIM, LEASE, PING } = MessageType;
const { LISTED, LEASED, FOUND, CLAIMED, PONG } = MessageType;
const ALWAYS: readonly MessageType[] = [LOOKUP, PING];
const AFTER_HELLO: readonly MessageType[] = [LIST, REGISTER, CLAIM, LEASE];

export class Questions {
  readonly #migrations: Migrations;
  readonly #answer: (type: MessageType, body?: Uint8Array, id?: number) => void;
  /** The token that this connection speaks for: while it stands, its claimant is alive. */
  #token: string | null = null;

  constructor(migrations: Migrations, answer: (type: MessageType, body?: Uint8Array, id?: number) => void) {
    this.#migrations = migrations;
    this.#answer = answer;
  }

  /** Whether a message is a question, and when it may be asked. */
  static kind(type: MessageType): 'always' | 'after HELLO' | null {
    if (ALWAYS.includes(type)) return 'always';
    return AFTER_HELLO.includes(type) ? 'after HELLO' : null;
  }

  /** Answers. Returns who has been granted a claim, if that is what was asked. @throws {AbdmError} PROTOCOL, CANCELLED, USAGE. */
  answer(header: MessageHeader, body: Uint8Array, migration: Migration | null, role: Role): string | null {
    if (header.type === LOOKUP) {
      this.#answer(FOUND, this.#find(decodeLookup(body)));
      return null;
    }
    migration?.requireLive();
    if (header.type === PING) this.#answer(PONG);
    else if (header.type === CLAIM) return this.#claim(body, migration!);
    else if (header.type === REGISTER) this.#register(body, migration!, role);
    else if (header.type === LEASE) {
      migration!.renew(decodeLease(body));
      this.#leased(migration!);
    } else this.#answer(LISTED, encodeU64s(...migration!.frames.list(header.id, MAX_LISTED)), header.id);
    return null;
  }

  /** The connection is gone. */
  close(migration: Migration | null): void {
    if (this.#token !== null) migration?.claim.leave(this.#token);
    this.#token = null;
  }

  #register(body: Uint8Array, migration: Migration, role: Role): void {
    if (role === 'destination') {
      throw new AbdmError('PROTOCOL', `${messageName(REGISTER)} is nothing that a destination says`);
    }
    const registration = decodeRegistration(body);
    // Another node only passes on what the source was allowed to say.
    if (role === 'source') this.#migrations.requireFreeNames(migration.id, registration);
    migration.register(registration);
    if (role === 'source') {
      if (registration.token !== null) this.#speakFor(registration.token, migration);
      migration.peers.register();
    }
    this.#leased(migration);
  }

  #claim(body: Uint8Array, migration: Migration): string | null {
    const { token, by, release, forGood } = decodeClaim(body);
    const claimed = release ? migration.claim.release(token) : migration.claim.ask(token, by, forGood);
    if (!release && claimed.granted) this.#speakFor(token, migration);
    this.#answer(CLAIMED, encodeJson(claimed));
    return !release && claimed.granted ? by : null;
  }

  #speakFor(token: string, migration: Migration): void {
    if (this.#token !== null) migration.claim.leave(this.#token);
    this.#token = token;
    migration.claim.enter(token);
  }

  #leased(migration: Migration): void {
    this.#answer(LEASED, encodeJson({ expiresInMs: migration.expiresInMs }));
  }

  #find(name: string | null): Uint8Array {
    const found: string[] = [];
    let bytes = 0;
    for (const migration of this.#migrations) {
      const description = migration.describe();
      if (description === null || (name !== null && !description.vms.includes(name))) continue;
      const text = JSON.stringify(description);
      bytes += Buffer.byteLength(text) + 1;
      if (found.length === MAX_FOUND || bytes > MAX_FOUND_BYTES) break;
      found.push(text);
    }
    return Buffer.from(`{"found":[${found.join()}]}`);
  }
}
