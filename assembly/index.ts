// The engine's exports and nothing else. bindings/abi.ts is this file as a TypeScript interface.

export { contentId, contentIds, nh, setKey } from './content-id';
export { countZero, isZero } from './page';
export { sipHash128 } from './siphash';
export { xxh3 } from './xxh3';
