// The messages of docs/protocol.md: their numbers, their limits, and the 16-byte header. Whatever comes from a wire is hostile: a header
// is checked in full, its length against the limit of its type, before anybody looks at it or allocates a byte for its body.

import { AbdmError } from '../../bindings/errors.js';

/** Peers that speak another one are refused. */
export const PROTOCOL_VERSION = 1;
export const HEADER_BYTES = 16;
/** A frame, at most: header, tables, 64 raw pages, checksum, and a little for seals. */
export const MAX_FRAME_BYTES = 264 * 1024;
const SMALL_BYTES = 64 * 1024;
/** Frame ids and page numbers are numbers in JavaScript: exact up to here. */
export const MAX_ID = Number.MAX_SAFE_INTEGER;

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
} as const;
/** A kind of message. */
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

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
  rule('STORED', 8, 8, true),
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
];

/** What stands before every body. */
export interface MessageHeader {
  readonly type: MessageType;
  readonly bodyBytes: number;
  /** The frame that the message is about, otherwise 0. */
  readonly id: number;
}

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
export function encodeHeader(out: Uint8Array, at: number, type: MessageType, bodyBytes: number, id: number): void {
  const fault = findFault(type, bodyBytes, id);
  if (fault !== null) throw new RangeError(fault);
  const view = new DataView(out.buffer, out.byteOffset + at, HEADER_BYTES);
  view.setUint32(0, type, true);
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
  if (view.getUint16(2, true) !== 0) throw new AbdmError('PROTOCOL', `${name}: reserved bytes are not 0`);
  const bodyBytes = view.getUint32(4, true);
  const id = view.getUint32(12, true) * 2 ** 32 + view.getUint32(8, true);
  const fault = findFault(type, bodyBytes, id);
  if (fault !== null) throw new AbdmError('PROTOCOL', fault);
  return { type: type as MessageType, bodyBytes, id };
}

function findFault(type: number, bodyBytes: number, id: number): string | null {
  const known = RULES[type];
  if (known === undefined) return `message of unknown type ${type}`;
  const { name, minBytes, maxBytes, hasId } = known;
  if (bodyBytes > maxBytes) return `${name}: a body of ${bodyBytes} bytes, ${maxBytes} are allowed`;
  if (bodyBytes < minBytes) return `${name}: a body of ${bodyBytes} bytes, at least ${minBytes} are needed`;
  if (!(id >= 0 && id <= MAX_ID)) return `${name}: the id is above 2^53 - 1`;
  if (id !== 0 && !hasId) return `${name}: the id is ${id}, not 0`;
  return null;
}

/** The body of STORED. */
export function encodeU64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

/**
 * @throws {AbdmError} `PROTOCOL` if it is not 8 bytes, or above 2^53 - 1.
 */
export function decodeU64(body: Uint8Array, what: string): number {
  if (body.byteLength !== 8) throw new AbdmError('PROTOCOL', `${what}: ${body.byteLength} bytes, not 8`);
  const value = Number(new DataView(body.buffer, body.byteOffset, 8).getBigUint64(0, true));
  if (value > MAX_ID) throw new AbdmError('PROTOCOL', `${what}: above 2^53 - 1`);
  return value;
}
