// What a store has of a migration beside its blocks, and under which keys. Everything of one migration begins with its prefix, expires by itself, and is
// found from its head, so that nobody ever searches a store that others use too.
//
//   abdm:{migration}:head       JSON: which keeper this is, how long it stays, up to which number there are blocks, and what the source registered
//   abdm:{migration}:source     a source is connected: expires soon after it is not
//   abdm:{migration}:claim      JSON: who has it
//   abdm:{migration}:{keeper}:{id}   a block; `keeper` is half of the head's id, so that what is left of one that was lost is nobody else's
//   abdm:vm:{hash of a name}    JSON: migrations of a VM of that name
//
// The head says of each range of ids below which there may be blocks, rounded up, so that it is written seldom.

import { createHash } from 'node:crypto';
import { decodeRegistration, MAX_CLAIMANT_CHARS, needHex, type Registration } from '../mam/bodies.js';
import { MANIFEST_ID, RECORDS_ID, STATE_ID } from '../mam/catalog.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';

/** A head, and everything in it, is at most so long. */
const MAX_HEAD_BYTES = 64 * 1024;
const MAX_RANGES = 128;
const MAX_MIGRATIONS = 100;
/** Ids of one execution state. */
const STATE_IDS = 2 ** 16;
/** No migration has more blocks in one range. */
const MAX_RANGE = 2 ** 28;

/** What a migration is at this store. */
export interface Head {
  /** 32 hexadecimal digits, made when it was first put here. A store that was emptied has none, or another one. */
  readonly id: string;
  readonly leaseMs: number;
  /** For the first id of each range: below which there may be blocks. */
  readonly ends: ReadonlyMap<number, number>;
  readonly registration: Registration | null;
}

/** Who has claimed a migration. */
export interface Holder {
  readonly token: string;
  readonly by: string;
  /** Since 1970. */
  readonly sinceMs: number;
  readonly forGood: boolean;
}

/** The keys of one migration. */
export class Keys {
  readonly head: string;
  readonly source: string;
  readonly claim: string;
  readonly #prefix: string;

  constructor(migration: string) {
    this.#prefix = `abdm:${migration}:`;
    this.head = `${this.#prefix}head`;
    this.source = `${this.#prefix}source`;
    this.claim = `${this.#prefix}claim`;
  }

  block(keeper: string, id: number): string {
    return `${this.#prefix}${keeper.slice(0, 16)}:${id}`;
  }
}

/** The key of what is known of a VM's name, which may hold what no key may. */
export function nameKey(name: string): string {
  return `abdm:vm:${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
}

/** The first id of the range that this one is in. */
export function rangeOf(id: number): number {
  if (id < MANIFEST_ID) return 1;
  if (id < RECORDS_ID) return MANIFEST_ID;
  if (id < STATE_ID) return RECORDS_ID;
  return STATE_ID + Math.floor((id - STATE_ID) / STATE_IDS) * STATE_IDS;
}

/** Where a range ends that has this id, for the head. */
export function endOf(id: number): number {
  const first = rangeOf(id);
  const step = first === 1 ? 1024 : 64;
  return first + Math.ceil((id - first + 1) / step) * step;
}

export function encodeHead({ id, leaseMs, ends, registration }: Head): Uint8Array {
  return encodeJson({ id, leaseMs, ends: [...ends], registration });
}

/** @throws {AbdmError} PROTOCOL. */
export function decodeHead(bytes: Uint8Array): Head {
  const what = 'the head of a migration';
  const json = decodeJson(bytes, what, MAX_HEAD_BYTES);
  const ends = need.list(json, 'ends', what, MAX_RANGES, (item): [number, number] => {
    const [first, end] = Array.isArray(item) ? item : [];
    const pair = { first, end };
    const from = need.integer(pair, 'first', what, 1);
    return [from, need.integer(pair, 'end', what, from, from + MAX_RANGE)];
  });
  const { registration } = json as { registration?: object | null };
  return {
    id: needHex(json, 'id', what),
    leaseMs: need.integer(json, 'leaseMs', what, 1),
    ends: new Map(ends),
    registration: registration ? decodeRegistration(encodeJson(registration)) : null,
  };
}

export function encodeHolder(holder: Holder): Uint8Array {
  return encodeJson(holder);
}

/** @throws {AbdmError} PROTOCOL. */
export function decodeHolder(bytes: Uint8Array): Holder {
  const what = 'a claim';
  const json = decodeJson(bytes, what);
  return {
    token: needHex(json, 'token', what),
    by: need.string(json, 'by', what, MAX_CLAIMANT_CHARS),
    sinceMs: need.integer(json, 'sinceMs', what),
    forGood: need.boolean(json, 'forGood', what),
  };
}

export function encodeMigrations(migrations: readonly string[]): Uint8Array {
  return encodeJson({ migrations: migrations.slice(-MAX_MIGRATIONS) });
}

/** @throws {AbdmError} PROTOCOL. */
export function decodeMigrations(bytes: Uint8Array): string[] {
  const what = 'the migrations of a VM';
  return need.list(decodeJson(bytes, what), 'migrations', what, MAX_MIGRATIONS, (id) => needHex({ id }, 'id', what));
}
