// What is said on a guest's socket: lines of JSON, and where one has `body`, so many bytes behind it. Answers come in the order of requests; a fault comes
// at any time. Whatever comes is checked, at both ends.
//
//   anybody                                              the guest
//   {"ask":"status"}                                     {"ok":true,"state":"running","guest":"3f..","operation":77,...}
//   {"ask":"verify"}                                     {"ok":true,"pages":262144,"absent":0,"absentRanges":[],"wrong":0,"first":[]}
//   {"ask":"stop"}, {"ask":"resume"}, {"ask":"quit"}     {"ok":true}
//   whatever is refused                                  {"ok":false,"code":"IMAGE","message":"..."}
//
//   who sends its memory                                 (whoever says `source` or `sink` has the guest until the connection ends)
//   {"ask":"source"}                                     {"ok":true,"guest":"3f..","bytes":1073741824,"memory":"/proc/77/fd/20"}
//   {"ask":"dirty"}                                      {"ok":true,"body":32768} and the bitmap
//   {"ask":"stop"}                                       {"ok":true,"body":70344} and the execution state
//   {"ask":"resume"}, {"ask":"release"}                  {"ok":true}
//
//   who brings it
//   {"ask":"sink","bytes":1073741824,"keep":false}       {"ok":true,"guest":"91..","hasRun":false,"isEmpty":true,
//                                                       "memory":"/proc/78/fd/20","presence":"/proc/78/fd/21"}
//   {"ask":"load","body":70344} and the state            {"ok":true}
//   {"ask":"run"}, {"ask":"commit"}, {"ask":"reset"}     {"ok":true}
//                                                        {"fault":[17]}       these pages are waited for
//   {"came":[17]}                                        (no answer)          they are there now

import { AbdmError } from '../../bindings/errors.js';
import { type JsonObject, need } from '../wire/json.js';
import { MAX_STATE_BYTES } from './state.js';
import { MAX_MEMORY_BYTES, MAX_VCPUS } from './workload.js';

export const ASKS = ['status', 'verify', 'stop', 'resume', 'quit'] as const;
/** What can be asked by whoever has the guest, and by nobody else. */
const MIGRATOR_ASKS = ['source', 'dirty', 'release', 'sink', 'load', 'run', 'commit', 'reset'] as const;

export type Ask = (typeof ASKS)[number] | (typeof MIGRATOR_ASKS)[number];

/** Said to a guest. */
export type Request =
  | { readonly ask: Exclude<Ask, 'sink'> }
  | { readonly ask: 'sink'; readonly bytes: number; readonly keep: boolean }
  | { readonly came: readonly number[] };

export type GuestState = 'running' | 'stopped' | 'waiting' | 'loaded' | 'left';

const MAX_PFN = MAX_MEMORY_BYTES / 4096;

/** @throws {AbdmError} PROTOCOL that names what is wrong. */
export function readRequest(from: JsonObject): Request {
  const what = 'the request';
  if (Object.hasOwn(from, 'came')) return { came: readPfns(from, 'came', what) };
  const ask = need.oneOf(from, 'ask', what, [...ASKS, ...MIGRATOR_ASKS]);
  if (ask !== 'sink') return { ask };
  // How large a guest can be is for the guest to say.
  return { ask, bytes: need.integer(from, 'bytes', what), keep: need.boolean(from, 'keep', what) };
}

/** The pages that a guest says it waits for; null: it says something else. @throws {AbdmError} PROTOCOL. */
export function readFault(from: JsonObject): readonly number[] | null {
  return Object.hasOwn(from, 'fault') ? readPfns(from, 'fault', 'a fault') : null;
}

/** @throws {AbdmError} what the guest refused; PROTOCOL. */
export function readAnswer(from: JsonObject): JsonObject {
  const what = 'the answer';
  if (need.boolean(from, 'ok', what)) return from;
  throw new AbdmError(need.string(from, 'code', what) as 'IMAGE', need.string(from, 'message', what, 8_000));
}

/** The bytes that follow a request, and those that follow an answer. @throws {AbdmError} PROTOCOL. */
export const bodyBytes = {
  ofRequest: (from: JsonObject) =>
    from.ask === 'load' ? need.integer(from, 'body', 'a request', 1, MAX_STATE_BYTES) : 0,
  ofAnswer: (from: JsonObject) =>
    Object.hasOwn(from, 'body') ? need.integer(from, 'body', 'an answer', 1, MAX_STATE_BYTES) : 0,
};

function readPfns(from: JsonObject, name: string, what: string): number[] {
  return need.list(from, name, what, MAX_VCPUS, (pfn) => need.integer({ pfn }, 'pfn', what, 0, MAX_PFN - 1));
}
