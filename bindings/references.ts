// Which frames a frame's duplicates refer to, from its tables (assembly/frame.ts draws them).

import { frameMetaBytes, ID_BYTES } from './abi.js';

const NONE: readonly number[] = [];
/** Between the references and the payload. */
const TAG_BYTES = ID_BYTES;

/** The frames other than `id` itself that hold content of `frame`, which has that id: each once. Trusts the frame. */
export function referencesOf(frame: Uint8Array, id: number): readonly number[] {
  const duplicates = frame[32]! | (frame[33]! << 8);
  if (duplicates === 0) return NONE;
  const end = frameMetaBytes(frame) - TAG_BYTES;
  const view = new DataView(frame.buffer, frame.byteOffset);
  const found: number[] = [];
  let last = id;
  for (let at = end - 8 * duplicates; at < end; at += 8) {
    const reference = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    // Those of neighbours mostly are the same.
    if (reference === last) continue;
    last = reference;
    if (reference !== id && !found.includes(reference)) found.push(reference);
  }
  return found;
}
