// The sealed block: named bytes that only the holders of the migration's key can read or make. It has a checksum besides the tag, so that whoever
// keeps it without the key can tell damage before he acknowledges it. host/mam/seal.ts seals and opens; this is what can be told without the key.
//
//    0  u32 magic "ABDS" | u8 version | u8 0 | u16 generation
//    8  u64 id
//   16  ciphertext       AES-256-GCM; the 16 bytes above are authenticated with it
//       tag              16 bytes
//       checksum         u64, XXH3-64 over all of the above

import { MAX_FRAME_BYTES, RESULT_PTR } from './abi.js';
import type { Engine } from './engine.js';
import type { AbdmErrorCode } from './errors.js';

export const SEAL_MAGIC = 0x53444241;
export const SEAL_VERSION = 1;
export const SEAL_HEADER_BYTES = 16;
export const SEAL_TAG_BYTES = 16;
export const SEAL_CHECKSUM_BYTES = 8;
/** What a seal adds to the bytes that it seals. */
export const SEAL_BYTES = SEAL_HEADER_BYTES + SEAL_TAG_BYTES + SEAL_CHECKSUM_BYTES;
/** Any frame can be sealed. */
export const MAX_SEALED_BYTES = MAX_FRAME_BYTES + SEAL_BYTES;

/** Whether the memory at `ptr` begins like a sealed block: four bytes are looked at. */
export function looksSealed(view: DataView, ptr: number): boolean {
  return view.getUint32(ptr, true) === SEAL_MAGIC;
}

/** Everything about the block at `ptr` of the engine's memory that can be told without a key; null if that is good. */
export function checkSealed(
  { exports }: Engine,
  view: DataView,
  ptr: number,
  bytes: number,
  id: number,
): AbdmErrorCode | null {
  if (bytes < SEAL_BYTES || bytes > MAX_SEALED_BYTES || !looksSealed(view, ptr)) return 'FRAME_MALFORMED';
  if (view.getUint8(ptr + 4) !== SEAL_VERSION || view.getUint8(ptr + 5) !== 0) return 'FRAME_MALFORMED';
  const body = bytes - SEAL_CHECKSUM_BYTES;
  exports.xxh3(ptr, body, RESULT_PTR);
  if (view.getBigUint64(RESULT_PTR, true) !== view.getBigUint64(ptr + body, true)) return 'FRAME_CHECKSUM';
  return view.getBigUint64(ptr + 8, true) === BigInt(id) ? null : 'FRAME_MALFORMED';
}
