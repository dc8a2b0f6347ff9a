// Loads the engine and lays out its memory.
//
// An engine is one WebAssembly instance over one memory of its own, created at its final size and never grown (assembly/layout.ts says why). The
// fixed part is the engine's; what its user needs lies behind it, in the order in which it was reserved:
//
//   0            FIXED_BYTES                                             memory.length
//   +------------+-----------------+---------------+-----+--------------+
//   | fixed part | 1st reservation | 2nd           | ... |              |
//   +------------+-----------------+---------------+-----+--------------+
//                 each 128-byte aligned, zero at first

import { instantiateSync } from '@assemblyscript/loader';
import { type EngineExports, FIXED_BYTES } from './abi.js';
import { AbdmError } from './errors.js';

const WASM_PAGE_BYTES = 65_536;
/** One memory ends at 4 GiB; one page less, so that the address behind its last byte is a u32 too. */
const MAX_WASM_PAGES = 65_535;
const ALIGNMENT = 128;

/** Adds up what an engine's memory has to hold, before the memory is there. */
export class MemoryPlan {
  #end = FIXED_BYTES;

  /** Address of `bytes` bytes that are the caller's. */
  reserve(bytes: number): number {
    const ptr = this.#end;
    this.#end = Math.ceil((ptr + bytes) / ALIGNMENT) * ALIGNMENT;
    return ptr;
  }

  get bytes(): number {
    return this.#end;
  }
}

export interface Engine {
  readonly exports: EngineExports;
  /** All of the engine's memory. The view stays valid: the memory never grows. */
  readonly memory: Uint8Array;
}

let compiled: Promise<WebAssembly.Module> | undefined;

/** The engine's code: read and compiled once. In a browser it is fetched from beside this file, elsewhere it is read from there. */
export function compileEngine(): Promise<WebAssembly.Module> {
  compiled ??= (async () => {
    const url = new URL('../abdm.wasm', import.meta.url);
    if (url.protocol !== 'file:') return WebAssembly.compile(await (await fetch(url)).arrayBuffer());
    const { readFile } = await import('node:fs/promises');
    return WebAssembly.compile(await readFile(url));
  })();
  return compiled;
}

/** Creates an engine over a memory of the plan's size. Throws USAGE if that is more than one memory can be, or than there is. */
export async function createEngine(plan: MemoryPlan): Promise<Engine> {
  const pages = Math.ceil(plan.bytes / WASM_PAGE_BYTES);
  if (pages > MAX_WASM_PAGES) {
    throw new AbdmError(
      'USAGE',
      `an engine of ${plan.bytes} bytes is asked for: 4 GiB is the most that one memory can be`,
    );
  }
  let memory: WebAssembly.Memory;
  try {
    memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  } catch (cause) {
    throw new AbdmError('USAGE', `there is no memory for an engine of ${plan.bytes} bytes`, { cause });
  }
  return engineOver(await compileEngine(), memory);
}

/** An engine over a memory that is there already, and whose first FIXED_BYTES bytes are the engine's. */
export function engineOver(module: WebAssembly.Module, memory: WebAssembly.Memory): Engine {
  const { instance } = instantiateSync(module, { env: { memory } });
  return { exports: instance.exports as unknown as EngineExports, memory: new Uint8Array(memory.buffer) };
}
