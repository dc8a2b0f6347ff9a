// A promise that is not waited for any longer than it may take.

import { AbdmError } from '../../bindings/errors.js';

/** Rejects with PEER_UNREACHABLE, and `what`, if it takes longer; what was asked for goes on, and how it ends is nobody's business then. */
export async function within<T>(ms: number | undefined, what: string, asked: Promise<T>): Promise<T> {
  if (ms === undefined) return asked;
  asked.catch(() => {});
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new AbdmError('PEER_UNREACHABLE', `${what} within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
  }
}
