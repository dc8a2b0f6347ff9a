// What the engine says of a frame that it has merged (assembly/merge.ts draws it), and the slots that frames are merged in.

import { FRAME_PAGES, MAX_FRAME_BYTES, PAGE_BYTES, RESULT_PTR } from './abi.js';

/** A slot holds a frame, then its decoded pages. */
export const SLOT_BYTES = Math.ceil(MAX_FRAME_BYTES / 128) * 128 + FRAME_PAGES * PAGE_BYTES;
/** Where in a slot the decoded pages begin. */
export const DECODED = SLOT_BYTES - FRAME_PAGES * PAGE_BYTES;

export const PLACES = RESULT_PTR + 64;
export const DELTAS = RESULT_PTR + 320;
export const KINDS = RESULT_PTR + 576;
export const ACTIONS = RESULT_PTR + 640;
export const NAMES = RESULT_PTR + 704;
export const REFERENCES = RESULT_PTR + 960;

/** True if the content id at `ptr` is `id`. */
export function sameId(memory: Uint8Array, ptr: number, id: Uint8Array): boolean {
  return id.every((byte, i) => byte === memory[ptr + i]);
}
