// The messages of docs/protocol.md: their numbers, their limits, and the 16-byte header. Whatever comes from a wire is hostile: a header
// is checked in full, its length against the limit of its type, before anybody looks at it or allocates a byte for its body.

import { AbdmError } from '../../bindings/errors.js';

/** Peers that speak another one are refused. */
export const PROTOCOL_VERSION = 3;
export const HEADER_BYTES = 16;
/** A frame, at most: header, tables, 64 raw pages, checksum, and a little for seals. */
export const MAX_FRAME_BYTES = 264 * 1024;
const SMALL_BYTES = 64 * 1024;
/** More copies of one frame than this are never asked for. */
export const MAX_REPLICAS = 16;
/** Frame ids and page numbers are numbers in JavaScript: exact up to here. */
export const MAX_ID = Number.MAX_SAFE_INTEGER;
/** Chains that a connection can name: 16 bits in the header. */
export const MAX_CHAIN = 0xffff;

/** The kinds of messages by name (docs/protocol.md). */
export const MessageType = {
  HELLO: 1,
  WELCOME: 2,
  PUT: 3,
  STORED: 4,
  REFUSED: 5,
  GET: 6,
  FRAME: 7,
  MISSING: 8,
  DROP: 9,
  DROPPED: 10,
  IMAGES: 11,
  READY: 12,
  RECORDS: 13,
  DIVIDED: 14,
  MERGED: 15,
  ERROR: 16,
  CHAIN: 17,
  LIST: 18,
  LISTED: 19,
  REGISTER: 20,
  LOOKUP: 21,
  FOUND: 22,
  CLAIM: 23,
  CLAIMED: 24,
  LEASE: 25,
  LEASED: 26,
  PING: 27,
  PONG: 28,
  NODES: 29,
  FAULT: 30,
  DISCARD: 31,
  STATE: 32,
  LOADED: 33,
  RUN: 34,
  RUNNING: 35,
  VM_OVER: 36,
} as const;
/** A kind of message. */
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

const { PUT, STORED, REFUSED, GET, FRAME, MISSING, CHAIN, PING, PONG } = MessageType;
const ABOUT_BLOCKS: ReadonlySet<MessageType> = new Set([PUT, STORED, REFUSED, GET, FRAME, MISSING, CHAIN, PING, PONG]);

/** What may be said on a plain connection by ticket: the talk about blocks, with nothing secret in it; and only there, where there is one. */
export function isAboutBlocks(type: MessageType): boolean {
  return ABOUT_BLOCKS.has(type);
}

interface Rule {
  readonly name: string;
  readonly minBytes: number;
  readonly maxBytes: number;
  /** The message is about a frame; in all others the id must be 0. */
  readonly hasId: boolean;
}

const rule = (name: string, minBytes: number, maxBytes: number, hasId = false): Rule => ({
  name,
  minBytes,
  maxBytes,
  hasId,
});

// Indexed by type. A JSON body is at least `{}`.
const RULES: readonly (Rule | undefined)[] = [
  undefined,
  rule('HELLO', 2, SMALL_BYTES),
  rule('WELCOME', 2, SMALL_BYTES),
  rule('PUT', 1, MAX_FRAME_BYTES, true),
  rule('STORED', 8, 16 + 8 * MAX_REPLICAS, true),
  rule('REFUSED', 2, SMALL_BYTES, true),
  rule('GET', 0, 0, true),
  rule('FRAME', 1, MAX_FRAME_BYTES, true),
  rule('MISSING', 0, 0, true),
  rule('DROP', 0, 0),
  rule('DROPPED', 2, SMALL_BYTES),
  rule('IMAGES', 2, 8 * 1024 * 1024),
  rule('READY', 2, SMALL_BYTES),
  rule('RECORDS', 1, SMALL_BYTES),
  rule('DIVIDED', 2, SMALL_BYTES),
  rule('MERGED', 2, SMALL_BYTES),
  rule('ERROR', 2, SMALL_BYTES),
  rule('CHAIN', 2, SMALL_BYTES),
  rule('LIST', 0, 0, true),
  rule('LISTED', 0, SMALL_BYTES, true),
  rule('REGISTER', 2, SMALL_BYTES),
  rule('LOOKUP', 2, SMALL_BYTES),
  rule('FOUND', 2, SMALL_BYTES),
  rule('CLAIM', 2, SMALL_BYTES),
  rule('CLAIMED', 2, SMALL_BYTES),
  rule('LEASE', 2, SMALL_BYTES),
  rule('LEASED', 2, SMALL_BYTES),
  rule('PING', 0, 0),
  rule('PONG', 0, 0),
  rule('NODES', 2, SMALL_BYTES),
  rule('FAULT', 2, SMALL_BYTES),
  rule('DISCARD', 25, SMALL_BYTES),
  rule('STATE', 9, MAX_FRAME_BYTES),
  rule('LOADED', 2, SMALL_BYTES),
  rule('RUN', 2, SMALL_BYTES),
  rule('RUNNING', 2, SMALL_BYTES),
  rule('VM_OVER', 2, SMALL_BYTES),
];

/** What stands before every body. */
export interface MessageHeader {
  readonly type: MessageType;
  readonly bodyBytes: number;
  /** The frame or block that the message is about, otherwise 0. */
  readonly id: number;
  /** Of a PUT: the chain that it is forwarded along, as CHAIN named it on this connection; to a destination, FILLS or 0; otherwise, and for no chain, 0. */
  readonly chain: number;
}

/** Instead of a chain, in a PUT to a destination: what its source sends itself fills its link. */
export const FILLS = 1;

/** `PUT`, or `type 77` for a number that is none of ours. */
export function messageName(type: number): string {
  return RULES[type]?.name ?? `type ${type}`;
}

/** The longest body that a message of this type may have; 0 for an unknown type. */
export function maxBodyBytes(type: MessageType): number {
  return RULES[type]?.maxBytes ?? 0;
}

/**
 * Writes a header into the 16 bytes at `at`.
 * @throws {RangeError} if the message would be refused by the other end: a mistake in our own code, not on the wire.
 */
export function encodeHeader(
  out: Uint8Array,
  at: number,
  type: MessageType,
  bodyBytes: number,
  id: number,
  chain = 0,
): void {
  const fault = findFault(type, bodyBytes, id, chain);
  if (fault !== null) throw new RangeError(fault);
  const view = new DataView(out.buffer, out.byteOffset + at, HEADER_BYTES);
  view.setUint32(0, type, true);
  view.setUint16(2, chain, true);
  view.setUint32(4, bodyBytes, true);
  view.setUint32(8, id >>> 0, true);
  view.setUint32(12, Math.floor(id / 2 ** 32), true);
}

/**
 * Reads and checks the header in the 16 bytes at `at`.
 * @throws {AbdmError} `PROTOCOL` with what is wrong with it.
 */
export function decodeHeader(bytes: Uint8Array, at: number): MessageHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HEADER_BYTES);
  const type = view.getUint8(0);
  const name = messageName(type);
  if (RULES[type] === undefined) throw new AbdmError('PROTOCOL', `message of unknown ${name}`);
  if (view.getUint8(1) !== 0) throw new AbdmError('PROTOCOL', `${name}: flags are ${view.getUint8(1)}, not 0`);
  const chain = view.getUint16(2, true);
  const bodyBytes = view.getUint32(4, true);
  const id = view.getUint32(12, true) * 2 ** 32 + view.getUint32(8, true);
  const fault = findFault(type, bodyBytes, id, chain);
  if (fault !== null) throw new AbdmError('PROTOCOL', fault);
  return { type: type as MessageType, bodyBytes, id, chain };
}

function findFault(type: number, bodyBytes: number, id: number, chain: number): string | null {
  const known = RULES[type];
  if (known === undefined) return `message of unknown type ${type}`;
  const { name, minBytes, maxBytes, hasId } = known;
  if (bodyBytes > maxBytes) return `${name}: a body of ${bodyBytes} bytes, ${maxBytes} are allowed`;
  if (bodyBytes < minBytes) return `${name}: a body of ${bodyBytes} bytes, at least ${minBytes} are needed`;
  if (!(id >= 0 && id <= MAX_ID)) return `${name}: the id is above 2^53 - 1`;
  if (id !== 0 && !hasId) return `${name}: the id is ${id}, not 0`;
  if (!(chain >= 0 && chain <= MAX_CHAIN)) return `${name}: chain ${chain}`;
  if (chain !== 0 && type !== MessageType.PUT) return `${name}: the chain is ${chain}, not 0`;
  return null;
}

/** The body of STORED and LISTED: numbers of 8 bytes each. */
export function encodeU64s(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(8 * values.length);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setBigUint64(8 * i, BigInt(value), true);
  return bytes;
}

/**
 * @throws {AbdmError} `PROTOCOL` if it is no multiple of 8 bytes, or a number is above 2^53 - 1.
 */
export function decodeU64s(body: Uint8Array, what: string): number[] {
  if (body.byteLength % 8 !== 0)
    throw new AbdmError('PROTOCOL', `${what}: ${body.byteLength} bytes, not a multiple of 8`);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  return Array.from({ length: body.byteLength / 8 }, (_, i) => {
    const value = Number(view.getBigUint64(8 * i, true));
    if (value > MAX_ID) throw new AbdmError('PROTOCOL', `${what}: above 2^53 - 1`);
    return value;
  });
}
