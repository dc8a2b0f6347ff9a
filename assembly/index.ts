// The engine's exports and nothing else. bindings/abi.ts is this file as a TypeScript interface.

export { isZero } from './page';
