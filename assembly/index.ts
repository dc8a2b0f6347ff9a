// The engine's exports and nothing else. bindings/abi.ts is this file as a TypeScript interface.

export {
  bitmapClear,
  bitmapCount,
  bitmapNextUnset,
  bitmapSet,
  bitmapSetRange,
  bitmapTest,
} from './bitmap';
export { dedupFind, dedupInit, dedupInsert } from './dedup';
export { isZero } from './page';
export { place } from './place';
