// What the engine says of a frame that it has merged (assembly/merge.ts draws it), and how much room a frame needs.

import { RESULT_PTR } from './abi.js';
import { MAX_SEALED_BYTES } from './sealed.js';

/** Room for a frame, sealed or not. */
export const FRAME_ROOM_BYTES = Math.ceil(MAX_SEALED_BYTES / 128) * 128;

/** How many frames are at SUPERSEDED_IDS. */
export const SUPERSEDED = RESULT_PTR + 28;
export const PLACES = RESULT_PTR + 64;
export const DELTAS = RESULT_PTR + 320;
export const KINDS = RESULT_PTR + 576;
export const ACTIONS = RESULT_PTR + 640;
export const NAMES = RESULT_PTR + 704;
export const REFERENCES = RESULT_PTR + 960;
export const SUPERSEDED_IDS = RESULT_PTR + 1472;
/** There is room for so many: pages of which a later version becomes known in one call. */
export const SUPERSEDED_PAGES = 512;

/** True if the content id at `ptr` is `id`. */
export function sameId(memory: Uint8Array, ptr: number, id: Uint8Array): boolean {
  return id.every((byte, i) => byte === memory[ptr + i]);
}
