// A block on its way to all of a chain: nodes pass it on from one to the next, stores are each given it.

import { asAbdmError } from '../../bindings/errors.js';
import type { PutOptions, PutResult } from './keeper.js';
import type { Member } from './member.js';
import type { Block } from './seal.js';

/** As FrameKeeper.put; fails as the first of the chain does, and names any other that does not take it. */
export async function putAlong(
  chain: readonly Member[],
  { id, bytes }: Pick<Block, 'id' | 'bytes'>,
  options: PutOptions,
): Promise<PutResult> {
  const [first] = chain;
  if (chain.length === 1) return first!.node.put(id, bytes, [], options);
  if (first!.node.chains) return first!.node.put(id, bytes, chain, options);
  let reading = chain.length;
  const onFree = () => {
    if (--reading === 0) options.onFree?.();
  };
  const puts = chain.map(async ({ node, address }, i): Promise<PutResult> => {
    try {
      return await node.put(id, bytes, [], { ...options, onFree });
    } catch (cause) {
      if (i === 0) throw cause;
      const { code, message } = asAbdmError(cause);
      return { stored: false, code, message, node: address };
    }
  });
  const results = await Promise.all(puts);
  const freeBytes: number[] = [];
  for (const result of results) {
    if (!result.stored) return result;
    freeBytes.push(...result.freeBytes);
  }
  return { stored: true, freeBytes };
}
