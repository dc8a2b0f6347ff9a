// What is said on a control socket: one line of JSON asked, one line answered, and the connection ends.
//
//   abdm status   ->  {"ask":"status"}                            <-  {"ok":true,"role":"eject","pid":77,"names":["vm1"],"status":{...}}
//   abdm rate     ->  {"ask":"rate","bytesPerS":50000000}         <-  {"ok":true}
//   abdm cancel   ->  {"ask":"cancel","reason":"wrong host"}      <-  (when it is over) {"ok":true,"outcome":"aborted","reason":{...},"vms":[{"name":"vm1","outcome":"aborted"}]}
//   whatever is refused                                           <-  {"ok":false,"code":"USAGE","message":"..."}

import type { Socket } from 'node:net';
import { AbdmError } from '../../bindings/errors.js';
import { decodeJson, type JsonObject, need } from '../wire/json.js';

/** What can be asked of a running role. */
export type Request =
  | { readonly ask: 'status' }
  | { readonly ask: 'cancel'; readonly reason: string }
  | { readonly ask: 'rate'; readonly bytesPerS: number | null };

/** How a role ended, for whoever cancelled it. */
export interface Ending {
  readonly outcome: string;
  readonly reason: { readonly code: string; readonly message: string } | null;
  /** None, if it was never known which there are. */
  readonly vms: readonly { readonly name: string; readonly outcome: string }[];
}

export const MAX_REASON_CHARS = 500;
/** A request; an answer may have a status with every node in it. */
export const MAX_REQUEST_BYTES = 4 * 1024;
export const MAX_ANSWER_BYTES = 1024 * 1024;

/** @throws {AbdmError} PROTOCOL that names the field. */
export function readRequest(line: Uint8Array): Request {
  const what = 'the request';
  const from = decodeJson(line, what, MAX_REQUEST_BYTES);
  const ask = need.oneOf(from, 'ask', what, ['status', 'cancel', 'rate']);
  if (ask === 'status') return { ask };
  if (ask === 'cancel') return { ask, reason: need.string(from, 'reason', what, MAX_REASON_CHARS) };
  return { ask, bytesPerS: from.bytesPerS === null ? null : need.integer(from, 'bytesPerS', what, 1) };
}

/** @throws {AbdmError} what the role refused; PROTOCOL. */
export function readAnswer(line: Uint8Array): JsonObject {
  const what = 'the answer';
  const from = decodeJson(line, what, MAX_ANSWER_BYTES);
  if (need.boolean(from, 'ok', what)) return from;
  // Any code of ours, or one that a later version has.
  throw new AbdmError(need.string(from, 'code', what) as 'USAGE', need.string(from, 'message', what, 2_000));
}

export function encodeLine(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

/** The next line of a socket, without its end. Rejects if the socket ends first, or the line is longer than `maxBytes`. */
export function readLine(socket: Socket, maxBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => {
      const end = chunk.indexOf(10);
      chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
      bytes += chunks.at(-1)!.byteLength;
      if (bytes > maxBytes) reject(new AbdmError('PROTOCOL', `a line is longer than ${maxBytes} bytes`));
      if (end < 0 && bytes <= maxBytes) return;
      // Nothing else is expected: what comes anyway is read, so that an end is seen, and thrown away.
      socket.removeAllListeners('data').resume();
      if (bytes <= maxBytes) resolve(Buffer.concat(chunks));
    });
    socket.once('error', (cause) => reject(new AbdmError('PEER_GONE', cause.message, { cause })));
    socket.once('close', () => reject(new AbdmError('PEER_GONE', 'the connection ended before a line was complete')));
  });
}
