// Checks frames where they lie, for those who keep frames but have no key: lengths, header, page table, checksum.

import { compileEngine, type EngineMemory, engineOver } from './engine.js';
import { type AbdmErrorCode, frameError } from './errors.js';

/** Looks at the `bytes` bytes at `ptr` of a memory; null if they are a frame with the id `frameId`, or the code of what is wrong. */
export type FrameChecker = (memory: EngineMemory, ptr: number, bytes: number, frameId: number) => AbdmErrorCode | null;

/**
 * A checker for memories whose first `FIXED_BYTES` bytes are left to the engine. One engine is made for each memory, and goes with it.
 */
export async function createFrameChecker(): Promise<FrameChecker> {
  const module = await compileEngine();
  const engines = new WeakMap<EngineMemory, ReturnType<typeof engineOver>>();
  return (memory, ptr, bytes, frameId) => {
    let engine = engines.get(memory);
    if (!engine) {
      engine = engineOver(module, memory);
      engines.set(memory, engine);
    }
    const error = engine.exports.frameCheck(ptr, bytes);
    if (error !== 0) return frameError(error, '').code;
    const id = new DataView(memory.buffer).getBigUint64(ptr + 8, true);
    return id === BigInt(frameId) ? null : 'FRAME_MALFORMED';
  };
}
