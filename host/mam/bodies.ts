// The JSON bodies that travel between a node and its clients, beside frames: chains, registrations, lookups, claims, leases (docs/protocol.md
// shows them in conversation). Both ends use these, so that what one says the other reads; every list and text is bounded.

import { MAX_VMS } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { checkKeeperAddress } from '../wire/address.js';
import { decodeJson, type JsonObject, need, printable } from '../wire/json.js';
import { MAX_CHAIN, MAX_REPLICAS } from '../wire/messages.js';
import type { NodeRef } from './keeper.js';

/** What a source tells the nodes of its migration, so that others can find and claim it without the source. */
export interface Registration {
  /** Names of the VMs, at most 64. */
  readonly vms: readonly string[];
  /** Those of them that stayed where they were: what there is of them is not whole. */
  readonly over?: readonly string[];
  readonly replicas: number;
  /** It waits for whoever claims it, rather than for a destination that the source knows. */
  readonly parked: boolean;
  /** How long it stays when nobody is connected for it and it is complete. */
  readonly leaseMs: number;
  /** The nodes that decide who gets it: at most 5. */
  readonly voters: readonly NodeRef[];
  /** The claim of the destination that the source knows; 32 hexadecimal digits. */
  readonly token: string | null;
  /** The source has left, and everything is here; it is `frames` frames. */
  readonly complete: boolean;
  readonly frames: number;
}

/** What a node knows of a migration that somebody looked up. */
export interface FoundMigration {
  readonly migration: string;
  readonly vms: readonly string[];
  readonly over: readonly string[];
  readonly parked: boolean;
  readonly complete: boolean;
  readonly frames: number;
  readonly replicas: number;
  readonly voters: readonly NodeRef[];
  /** Who has claimed it, in words for people. */
  readonly claimed: string | null;
  readonly sourceConnected: boolean;
  /** Until it is dropped, if nobody connects for it; while somebody is connected, what it would be if he left now. */
  readonly expiresInMs: number;
}

/** A node's answer to a claim. */
export interface Claimed {
  readonly granted: boolean;
  /** Who has it now, in words for people; null: nobody. */
  readonly by: string | null;
  /** For how long; 0 if nobody has it. */
  readonly sinceMs: number;
}

export const MAX_VOTERS = 5;
/** A registration is at most so long, so that what is found of it fits into one answer. */
export const MAX_REGISTRATION_BYTES = 32 * 1024;
export const MAX_FOUND = 100;
export const MAX_CLAIMANT_CHARS = 200;
/** The longest delay that a timer takes. */
export const MAX_LEASE_MS = 2 ** 31 - 1;

export const isNodeId = (text: string) => /^[0-9a-f]{32}$/.test(text);

/** The body of CHAIN: the number that PUTs will have, and the holders in order, the receiver being one of them. */
export function decodeChain(body: Uint8Array): { chain: number; nodes: NodeRef[] } {
  const json = decodeJson(body, 'CHAIN');
  const chain = need.integer(json, 'chain', 'CHAIN', 1, MAX_CHAIN);
  const nodes = need.list(json, 'nodes', 'CHAIN', MAX_REPLICAS, (item) => decodeNodeRef(item, 'CHAIN'));
  if (new Set(nodes.map(({ id }) => id)).size < nodes.length) throw bad('CHAIN: a node stands in it twice');
  return { chain, nodes };
}

export function decodeRegistration(body: Uint8Array): Registration {
  const what = 'REGISTER';
  const json = decodeJson(body, what, MAX_REGISTRATION_BYTES);
  return {
    ...decodeVoted(json, what),
    leaseMs: decodeLeaseMs(json, what),
    token: optional(json, 'token', decodeToken),
  };
}

/** The body of LOOKUP: the name of a VM, or null for all. */
export function decodeLookup(body: Uint8Array): string | null {
  return optional(decodeJson(body, 'LOOKUP'), 'name', (json) => need.string(json, 'name', 'LOOKUP'));
}

export function decodeFound(body: Uint8Array): FoundMigration[] {
  const what = 'FOUND';
  return need.list(decodeJson(body, what), 'found', what, MAX_FOUND, (item) => {
    const json = need.isObject(item, what, 'found');
    return {
      ...decodeVoted(json, what),
      migration: needHex(json, 'migration', what),
      claimed: nullable(json, 'claimed', () => need.string(json, 'claimed', what, MAX_CLAIMANT_CHARS)),
      sourceConnected: need.boolean(json, 'sourceConnected', what),
      expiresInMs: need.integer(json, 'expiresInMs', what),
    };
  });
}

export function decodeClaim(body: Uint8Array): { token: string; by: string; release: boolean; forGood: boolean } {
  const json = decodeJson(body, 'CLAIM');
  const by = printable(need.string(json, 'by', 'CLAIM', MAX_CLAIMANT_CHARS));
  const flag = (name: string) => optional(json, name, () => need.boolean(json, name, 'CLAIM')) ?? false;
  const [release, forGood] = [flag('release'), flag('forGood')];
  if (release && forGood) throw bad('CLAIM: what is released is not kept for good');
  return { token: needHex(json, 'token', 'CLAIM'), by, release, forGood };
}

export function decodeClaimed(body: Uint8Array): Claimed {
  const what = 'CLAIMED';
  const json = decodeJson(body, what);
  return {
    granted: need.boolean(json, 'granted', what),
    by: nullable(json, 'by', () => need.string(json, 'by', what, MAX_CLAIMANT_CHARS)),
    sinceMs: need.integer(json, 'sinceMs', what),
  };
}

export function decodeLease(body: Uint8Array): number {
  return decodeLeaseMs(decodeJson(body, 'LEASE'), 'LEASE');
}

export function decodeLeased(body: Uint8Array): { expiresInMs: number } {
  return { expiresInMs: need.integer(decodeJson(body, 'LEASED'), 'expiresInMs', 'LEASED') };
}

function decodeVoted(json: JsonObject, what: string) {
  const names = (list: string) => need.list(json, list, what, MAX_VMS, (name) => need.string({ name }, 'name', what));
  return {
    vms: names('vms'),
    over: optional(json, 'over', () => names('over')) ?? [],
    replicas: need.integer(json, 'replicas', what, 1, MAX_REPLICAS),
    parked: need.boolean(json, 'parked', what),
    voters: need.list(json, 'voters', what, MAX_VOTERS, (item) => decodeNodeRef(item, what)),
    complete: need.boolean(json, 'complete', what),
    frames: need.integer(json, 'frames', what),
  };
}

/** @throws {AbdmError} PROTOCOL. */
export function decodeNodeRef(item: unknown, what: string): NodeRef {
  const json = need.isObject(item, what, 'nodes');
  const address = need.string(json, 'address', what, 300);
  try {
    checkKeeperAddress(address);
  } catch (cause) {
    throw new AbdmError('PROTOCOL', `${what}: ${(cause as Error).message}`, { cause });
  }
  return { address, id: needHex(json, 'id', what) };
}

function decodeLeaseMs(json: JsonObject, what: string): number {
  return need.integer(json, 'leaseMs', what, 1, MAX_LEASE_MS);
}

function decodeToken(json: JsonObject): string {
  return needHex(json, 'token', 'REGISTER');
}

/** Of a migration, a node, or a token: 32 hexadecimal digits. @throws {AbdmError} PROTOCOL. */
export function needHex(json: JsonObject, name: string, what: string): string {
  const text = need.string(json, name, what, 32);
  if (!isNodeId(text)) throw bad(`${what}: \`${name}\` is not 32 hexadecimal digits`);
  return text;
}

function optional<T>(json: JsonObject, name: string, read: (json: JsonObject) => T): T | null {
  return Object.hasOwn(json, name) && json[name] !== null ? read(json) : null;
}

function nullable<T>(json: JsonObject, name: string, read: () => T): T | null {
  return json[name] === null ? null : read();
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', text);
}
