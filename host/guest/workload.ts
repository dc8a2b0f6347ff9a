// What a guest is made of and what it does, as it stands in its execution state. Whatever comes from there is checked: it may be anybody's.

import { isAbsolute } from 'node:path';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { type JsonObject, need } from '../wire/json.js';

export const PATTERNS = ['uniform', 'zipf', 'streaming'] as const;

/** With this many bytes even the longest execution state stays below 64 MiB. */
export const MAX_MEMORY_BYTES = 2 ** 35;
export const MAX_VCPUS = 256;
export const MAX_OPERATIONS_PER_S = 1_000_000;
export const MAX_SEED = 2 ** 32 - 1;

export interface Workload {
  readonly memoryBytes: number;
  readonly workingSetBytes: number;
  readonly pattern: (typeof PATTERNS)[number];
  /** Of all streams together; 0: idle. */
  readonly operationsPerS: number;
  /** The share of operations that write. */
  readonly writeShare: number;
  readonly vcpus: number;
  readonly seed: number;
  /** `random`, `zero`, or the absolute path of a file that has it. */
  readonly content: string;
  /** The share of pages whose content every guest has that has this share. */
  readonly commonShare: number;
}

/** @throws {AbdmError} PROTOCOL that names what is wrong. */
export function readWorkload(from: JsonObject, what: string): Workload {
  const memoryBytes = need.integer(from, 'memoryBytes', what, PAGE_BYTES, MAX_MEMORY_BYTES);
  const workingSetBytes = need.integer(from, 'workingSetBytes', what, PAGE_BYTES, memoryBytes);
  for (const bytes of [memoryBytes, workingSetBytes]) {
    if (bytes % PAGE_BYTES !== 0) throw new AbdmError('PROTOCOL', `${what}: ${bytes} bytes are not whole pages`);
  }
  const content = need.string(from, 'content', what, 4096);
  if (!['random', 'zero'].includes(content) && (!isAbsolute(content) || content.includes('\0'))) {
    throw new AbdmError('PROTOCOL', `${what}: \`content\` is neither random, nor zero, nor an absolute path`);
  }
  return {
    memoryBytes,
    workingSetBytes,
    pattern: need.oneOf(from, 'pattern', what, PATTERNS),
    operationsPerS: need.integer(from, 'operationsPerS', what, 0, MAX_OPERATIONS_PER_S),
    writeShare: share(from, 'writeShare', what),
    vcpus: need.integer(from, 'vcpus', what, 1, MAX_VCPUS),
    seed: need.integer(from, 'seed', what, 0, MAX_SEED),
    content,
    commonShare: share(from, 'commonShare', what),
  };
}

function share(from: JsonObject, name: string, what: string): number {
  const value = from[name];
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new AbdmError('PROTOCOL', `${what}: \`${name}\` is not a number from 0 to 1`);
}
