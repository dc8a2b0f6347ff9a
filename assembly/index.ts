// The engine's exports and nothing else. bindings/abi.ts is this file as a TypeScript interface.

export { bitmapClear, bitmapCount, bitmapNextUnset, bitmapSet, bitmapSetRange, bitmapTest } from './bitmap';
export { contentId, contentIds, nh, setKey } from './content-id';
export { dedupClear, dedupFind, dedupInit, dedupInsert } from './dedup';
export { divide, divideInit } from './divide';
export { check as frameCheck } from './frame';
export { lz4Compress, lz4Decompress, lz4DecompressInWindow } from './lz4';
export { lz4CompressHigh } from './lz4-high';
export { mapAdopt, mapDiscard, mapExpect, mapFreeze, mapInit, mapNewest, mapVm, mapWaits, settle } from './map';
export { hasContent, merge } from './merge';
export { countZero, isZero } from './page';
export { place } from './place';
export { sipHash128 } from './siphash';
export { xxh3 } from './xxh3';
