// What an intermediate says of itself once a second: one datagram, drawn here and in docs/protocol.md. Whoever has the cluster's key can make one,
// nobody else; it says nothing that is secret.
//
//  0                                   4        5        6                 8
//  +-----------------------------------+--------+--------+-----------------+
//  | magic "ABDA"                      | ver 1  | flags  | protocol (u16)  |  flags bit 0: goodbye, it is leaving
//  +-----------------------------------+--------+--------+-----------------+
//  | node id, 16 bytes: random at its start                                |
//  |                                                                       |
//  +-----------------------------------------------------------------------+
//  | started (u64): its clock when it started, ms since 1970               |
//  +-----------------------------------------------------------------------+
//  | sequence (u64): grows with every announcement                         |
//  +-----------------------------------------------------------------------+
//  | clock (u64): its clock now, ms since 1970                             |
//  +-----------------------------------------------------------------------+
//  | free bytes (u64)                                                      |
//  +-----------------------------------------------------------------------+
//  | memory bytes (u64)                                                    |
//  +-----------------+-----------------+-----------------+-----------------+
//  | load (u16)      | connect. (u16)  | address a (u16) | 0               |  load: thousandths of a core
//  +-----------------+-----------------+-----------------+-----------------+
//  72: HOST:PORT, a bytes of printable ASCII
//  72 + a: HMAC-SHA256 of all of the above, 32 bytes; without a key nothing

import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { AbdmError } from '../../bindings/errors.js';
import { parseAddress } from '../wire/address.js';
import type { Security } from '../wire/security.js';

/** No datagram that is longer is looked at. */
export const MAX_ANNOUNCEMENT_BYTES = 1200;
const MAGIC = 0x4144_4241; // "ABDA"
const VERSION = 1;
const LEAVING = 1;
const ID_AT = 8;
const ID_BYTES = 16;
const FIXED_BYTES = 72;
const MAC_BYTES = 32;
const MAX_U16 = 0xffff;

/** What a node says of itself. */
export interface Announcement {
  /** 32 hex digits, random at the node's start. */
  readonly id: string;
  /** HOST:PORT under which it is reached. */
  readonly address: string;
  /** The version of the protocol that it speaks. */
  readonly protocol: number;
  /** Its clock, ms since 1970: when it started, and when it said this. */
  readonly startedMs: number;
  readonly clockMs: number;
  /** Grows with every announcement since the start. */
  readonly sequence: number;
  readonly freeBytes: number;
  readonly memoryBytes: number;
  /** CPU time of its process over the last second, as a share of one core. */
  readonly load: number;
  readonly connections: number;
  /** It is going away: this is its last announcement. */
  readonly leaving: boolean;
}

/**
 * The key that announcements are authenticated with, or null where there is no security: they then stay on loopback.
 * @throws {AbdmError} `USAGE` with certificates and no key: a datagram cannot be authenticated with those.
 */
export function announcementKey({ clusterKey, tls }: Security): Uint8Array | null {
  if (clusterKey) return new Uint8Array(hkdfSync('sha256', clusterKey, '', 'abdm announcements', MAC_BYTES));
  if (!tls) return null;
  const text = 'announcements need the cluster key, certificates are not enough: add --key, or list the intermediates';
  throw new AbdmError('USAGE', text);
}

export function encodeAnnouncement(said: Announcement, key: Uint8Array | null): Uint8Array {
  const address = Buffer.from(said.address, 'ascii');
  const bodyBytes = FIXED_BYTES + address.length;
  const out = Buffer.alloc(bodyBytes + (key ? MAC_BYTES : 0));
  out.writeUInt32LE(MAGIC, 0);
  out[4] = VERSION;
  out[5] = said.leaving ? LEAVING : 0;
  out.writeUInt16LE(said.protocol, 6);
  out.write(said.id, ID_AT, 'hex');
  const numbers = [said.startedMs, said.sequence, said.clockMs, said.freeBytes, said.memoryBytes];
  for (const [i, value] of numbers.entries()) out.writeBigUInt64LE(BigInt(value), 24 + 8 * i);
  out.writeUInt16LE(Math.min(Math.round(said.load * 1000), MAX_U16), 64);
  out.writeUInt16LE(Math.min(said.connections, MAX_U16), 66);
  out.writeUInt16LE(address.length, 68);
  address.copy(out, FIXED_BYTES);
  if (key) macOf(out.subarray(0, bodyBytes), key).copy(out, bodyBytes);
  return out;
}

/**
 * Reads a datagram from anybody: `malformed` if it is no announcement, `forged` if it was not made with this key (or not without one). Whether it
 * is new is for the reader to judge.
 */
export function decodeAnnouncement(
  datagram: Uint8Array,
  key: Uint8Array | null,
): Announcement | 'malformed' | 'forged' {
  const { byteLength } = datagram;
  if (byteLength < FIXED_BYTES || byteLength > MAX_ANNOUNCEMENT_BYTES) return 'malformed';
  const from = Buffer.from(datagram.buffer, datagram.byteOffset, byteLength);
  const bodyBytes = FIXED_BYTES + from.readUInt16LE(68);
  if (from.readUInt32LE(0) !== MAGIC || from[4] !== VERSION) return 'malformed';
  if (byteLength !== bodyBytes && byteLength !== bodyBytes + MAC_BYTES) return 'malformed';

  // Nothing else is looked at before it is known who said it.
  const mac = from.subarray(bodyBytes);
  if ((key !== null) !== mac.length > 0) return 'forged';
  if (key && !timingSafeEqual(mac, macOf(from.subarray(0, bodyBytes), key))) return 'forged';

  const flags = from[5]!;
  const address = from.toString('latin1', FIXED_BYTES, bodyBytes);
  const [startedMs, sequence, clockMs, freeBytes, memoryBytes] = [0, 1, 2, 3, 4].map((i) =>
    Number(from.readBigUInt64LE(24 + 8 * i)),
  ) as [number, number, number, number, number];
  const exact = [startedMs, sequence, clockMs, freeBytes, memoryBytes].every(Number.isSafeInteger);
  if (!exact || freeBytes > memoryBytes || flags > LEAVING || from.readUInt16LE(70) !== 0 || !isAddress(address)) {
    return 'malformed';
  }
  return {
    id: from.toString('hex', ID_AT, ID_AT + ID_BYTES),
    address,
    protocol: from.readUInt16LE(6),
    startedMs,
    clockMs,
    sequence,
    freeBytes,
    memoryBytes,
    load: from.readUInt16LE(64) / 1000,
    connections: from.readUInt16LE(66),
    leaving: flags === LEAVING,
  };
}

function macOf(body: Uint8Array, key: Uint8Array): Buffer {
  return createHmac('sha256', key).update(body).digest();
}

// Printable, because it is shown on terminals.
function isAddress(text: string): boolean {
  if (!/^[\x21-\x7e]+$/.test(text)) return false;
  try {
    parseAddress(text, 1);
    return true;
  } catch {
    return false;
  }
}
