// Checks blocks where they lie, for those who keep them but have no key: frames (lengths, header, page table, checksum) and sealed blocks.

import { compileEngine, type Engine, type EngineMemory, engineOver } from './engine.js';
import { type AbdmErrorCode, frameError } from './errors.js';
import { checkSealed, looksSealed, SEAL_BYTES } from './sealed.js';

/**
 * Looks at the `bytes` bytes at `ptr` of a memory; null if they are a frame or a sealed block with the id `frameId`, or the code of what is
 * wrong.
 */
export type FrameChecker = (memory: EngineMemory, ptr: number, bytes: number, frameId: number) => AbdmErrorCode | null;

/**
 * A checker for memories whose first `FIXED_BYTES` bytes are left to the engine. One engine is made for each memory, and goes with it.
 */
export async function createFrameChecker(): Promise<FrameChecker> {
  const module = await compileEngine();
  const engines = new WeakMap<EngineMemory, Engine>();
  return (memory, ptr, bytes, frameId) => {
    let engine = engines.get(memory);
    if (!engine) {
      engine = engineOver(module, memory);
      engines.set(memory, engine);
    }
    const view = new DataView(memory.buffer);
    if (bytes >= SEAL_BYTES && looksSealed(view, ptr)) return checkSealed(engine, view, ptr, bytes, frameId);
    const error = engine.exports.frameCheck(ptr, bytes);
    if (error !== 0) return frameError(error, '').code;
    return view.getBigUint64(ptr + 8, true) === BigInt(frameId) ? null : 'FRAME_MALFORMED';
  };
}
