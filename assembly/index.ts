// The engine's exports and nothing else. bindings/abi.ts is this file as a TypeScript interface.

export { lz4Compress, lz4Decompress } from './lz4';
export { isZero } from './page';
