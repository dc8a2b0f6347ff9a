// The raw engine for kernel tests: dist/abdm.wasm over one fixed memory, and room behind the engine's own part.
import { readFileSync } from 'node:fs';
import { type EngineExports, FIXED_BYTES } from '#abdm/bindings/abi.js';

const wasm = new WebAssembly.Module(readFileSync(new URL('../dist/abdm.wasm', import.meta.url)));

export interface RawEngine extends EngineExports {
  /** All of the memory. */
  bytes: Uint8Array;
  /** First address that the engine itself does not use. */
  free: number;
}

/** A fresh engine with `roomBytes` of free memory behind its fixed part. */
export function rawEngine(roomBytes = 1 << 20): RawEngine {
  const pages = Math.ceil((FIXED_BYTES + roomBytes) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const instance = new WebAssembly.Instance(wasm, { env: { memory } });
  const exports = instance.exports as unknown as EngineExports;
  return { ...exports, bytes: new Uint8Array(memory.buffer), free: FIXED_BYTES };
}

/** xorshift32: a seeded source of numbers in [0, 2^32), the same on every machine. */
export function seeded(seed: number): () => number {
  let x = (seed * 2654435761 + 1) >>> 0 || 1;
  return () => {
    x ^= x << 13;
    x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
    return x;
  };
}

/** `count`, times ABDM_TEST_SCALE: how long the seeded tests run is decided from outside. */
export function scale(count: number): number {
  return Math.max(1, Math.round(count * Number(process.env.ABDM_TEST_SCALE ?? 1)));
}
