// The execution state of a guest: all of it that is not in its memory. With it the guest goes on elsewhere just where it stopped, and it says of each page which
// version it must have: so the one that goes on can tell a stale page.
//
//   "ABDMGST1" | u32 length of JSON | JSON: the workload, operations so far, state of each stream | written pages, a bit each |
//   their versions in order, 7 bits a byte, lowest first, the highest bit set in all but the last byte | SHA-256 of all before
//
// It comes from a wire: nothing of it is believed before it is checked.

import { createHash } from 'node:crypto';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { bitmapFor, hasBit, setBit } from './bits.js';
import { MAX_VCPUS, readWorkload, type Workload } from './workload.js';

export const MAX_STATE_BYTES = 64 * 1024 * 1024;
const MAGIC = Buffer.from('ABDMGST1', 'latin1');
const HASH_BYTES = 32;
const HEAD_BYTES = MAGIC.length + 4;
const MAX_VERSION = 2 ** 32 - 1;
const MAX_VERSION_BYTES = 5;
const WHAT = 'the execution state';

/** One stream of operations. */
export interface StreamState {
  /** Of its Random. */
  readonly words: readonly number[];
  /** Operations that it has done. */
  readonly position: number;
}

export interface ExecutionState {
  readonly workload: Workload;
  /** Operations of all streams. */
  readonly operation: number;
  readonly streams: readonly StreamState[];
  /** Of each page; 0: never written. */
  readonly versions: Uint32Array;
}

export function encodeState({ workload, operation, streams, versions }: ExecutionState): Uint8Array {
  const json = encodeJson({ workload, operation, streams });
  const jsonBytes = Buffer.alloc(4);
  jsonBytes.writeUInt32LE(json.length);
  // The guest stands still meanwhile: one pass, in a plain loop.
  const written = bitmapFor(versions.length);
  const encoded = encodeVersions(versions, written);
  const state = Buffer.concat([MAGIC, jsonBytes, json, written, encoded]);
  return Buffer.concat([state, hashOf(state)]);
}

/** @throws {AbdmError} PROTOCOL if it is none, damaged, or of a guest that cannot be. */
export function decodeState(bytes: Uint8Array): ExecutionState {
  const state = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = state.length - HASH_BYTES;
  if (state.length > MAX_STATE_BYTES) throw bad(`${state.length} bytes, ${MAX_STATE_BYTES} are allowed`);
  if (end < HEAD_BYTES || !state.subarray(0, MAGIC.length).equals(MAGIC)) throw bad('it is not that of a guest');
  if (!state.subarray(end).equals(hashOf(state.subarray(0, end)))) throw bad('it is damaged');
  const jsonEnd = HEAD_BYTES + state.readUInt32LE(MAGIC.length);
  if (jsonEnd > end) throw bad('it is too short');
  const from = decodeJson(state.subarray(HEAD_BYTES, jsonEnd), WHAT);
  const workload = readWorkload(need.object(from, 'workload', WHAT), WHAT);
  const streams = need.list(from, 'streams', WHAT, MAX_VCPUS, (item): StreamState => {
    const stream = need.isObject(item, WHAT, 'streams');
    const words = need.list(stream, 'words', WHAT, 4, (word) => need.integer({ word }, 'word', WHAT, 0, 2 ** 32 - 1));
    if (words.length !== 4) throw bad('a stream has not 4 words');
    return { words, position: need.integer(stream, 'position', WHAT) };
  });
  if (streams.length !== workload.vcpus) throw bad(`${workload.vcpus} vcpus with ${streams.length} streams`);
  const versions = decodeVersions(state.subarray(jsonEnd, end), workload.memoryBytes / PAGE_BYTES);
  return { workload, operation: need.integer(from, 'operation', WHAT), streams, versions };
}

function decodeVersions(from: Uint8Array, pages: number): Uint32Array {
  let at = Math.ceil(pages / 8);
  // Before anything is made: no more pages than there are bits.
  if (from.length < at) throw bad('it is too short');
  if (pages % 8 !== 0 && from[at - 1]! >>> (pages % 8) !== 0) throw bad('it has pages behind the last one');
  const versions = new Uint32Array(pages);
  for (let pfn = 0; pfn < pages; pfn++) {
    if (!hasBit(from, pfn)) {
      // Eight at once: most of a guest's pages were not written to, and it stands still meanwhile.
      if (from[pfn >>> 3] === 0) pfn |= 7;
      continue;
    }
    let version = 0;
    let scale = 1;
    let byte: number;
    do {
      if (at === from.length || scale > 2 ** 28) throw bad(`the version of page ${pfn} is none`);
      byte = from[at++]!;
      version += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte & 0x80);
    if (version === 0 || version > MAX_VERSION) throw bad(`the version of page ${pfn} is none`);
    versions[pfn] = version;
  }
  if (at !== from.length) throw bad('it is too long');
  return versions;
}

/** Those of pages that were written, which become bits of `written`. */
function encodeVersions(versions: Uint32Array, written: Uint8Array): Uint8Array {
  let encoded = new Uint8Array(versions.length + MAX_VERSION_BYTES);
  let at = 0;
  for (let pfn = 0; pfn < versions.length; pfn++) {
    let version = versions[pfn]!;
    if (version === 0) continue;
    setBit(written, pfn);
    if (at + MAX_VERSION_BYTES > encoded.length) {
      const longer = new Uint8Array(encoded.length * 2);
      longer.set(encoded);
      encoded = longer;
    }
    for (; version > 0x7f; version = Math.floor(version / 128)) encoded[at++] = (version & 0x7f) | 0x80;
    encoded[at++] = version;
  }
  return encoded.subarray(0, at);
}

function hashOf(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${WHAT}: ${text}`);
}
