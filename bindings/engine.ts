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

// Spelled so that programs whose `lib` does not know WebAssembly compile against our typings.
/** A `WebAssembly.Module`. */
export type EngineModule = typeof globalThis extends { WebAssembly: { Module: { prototype: infer M } } } ? M : object;
/** A `WebAssembly.Memory`. */
export type EngineMemory = typeof globalThis extends { WebAssembly: { Memory: { prototype: infer M } } } ? M : object;

let compiled: Promise<WebAssembly.Module> | undefined;

/**
 * The engine's code, compiled once and then kept. Nobody needs to call this where `abdm.wasm` lies beside the library: in Node it is read from
 * there, in a browser fetched, and bundlers that understand `new URL(..., import.meta.url)` bring it along. Elsewhere call it once with the bytes of
 * `abdm/abdm.wasm`, or with the module made of them, before anything is created.
 * @returns the module, such as to hand it to a worker.
 * @throws {AbdmError} `USAGE` if the engine cannot be found or compiled; the next call tries again.
 */
export function compileEngine(source?: Uint8Array | ArrayBuffer | EngineModule): Promise<EngineModule> {
  if (source !== undefined || compiled === undefined) {
    const compiling = compile(source as BufferSource | WebAssembly.Module | undefined);
    compiled = compiling;
    compiling.catch(() => {
      if (compiled === compiling) compiled = undefined;
    });
  }
  return compiled;
}

async function compile(source: BufferSource | WebAssembly.Module | undefined): Promise<WebAssembly.Module> {
  if (source instanceof WebAssembly.Module) return source;
  // Literally like this: it is the form in which bundlers recognize an asset.
  const url = new URL('../abdm.wasm', import.meta.url);
  try {
    return await WebAssembly.compile(source ?? (await read(url)));
  } catch (cause) {
    const which = source ? 'that was given' : `at ${url}`;
    throw new AbdmError('USAGE', `the engine ${which} cannot be loaded (${cause}): see compileEngine`, { cause });
  }
}

async function read(url: URL): Promise<BufferSource> {
  // Not an import: bundlers for browsers would stumble over it.
  const node = url.protocol === 'file:' ? globalThis.process?.getBuiltinModule?.('node:fs/promises') : undefined;
  if (node) return node.readFile(url);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.arrayBuffer();
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
export function engineOver(module: EngineModule, memory: EngineMemory): Engine {
  const { instance } = instantiateSync(module, { env: { memory } });
  return { exports: instance.exports as unknown as EngineExports, memory: new Uint8Array(memory.buffer) };
}
