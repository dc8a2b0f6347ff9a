// What is asked of a store, and not waited for any longer than it may take.

import { AbdmError } from '../../bindings/errors.js';
import { within as inTime } from '../wire/within.js';

/** Rejects with PEER_UNREACHABLE, and `what`, if it takes longer. */
export function within<T>(ms: number | undefined, what: string, asked: Promise<T>): Promise<T> {
  if (ms === undefined) return asked;
  return inTime(ms, asked, () => new AbdmError('PEER_UNREACHABLE', `${what} within ${ms} ms`));
}
