// A frame made again from what stands before its payload, and from the pages that it once brought: after a crash the image may still have them, but
// whether it has is told only by the frame's content ids. Compressed pages become raw ones, everything else stays as it was; and since tables and
// payload are other bytes then, the frame gets a new tag and a new checksum.
//
//   header | page table | content ids | references | tag | payload | checksum         assembly/frame.ts draws it
//            LZ4 -> raw                               new    from the image  new

import { frameMetaBytes, ID_BYTES, PAGE_BYTES, TAG_KEY_PTR } from './abi.js';
import type { Engine } from './engine.js';
import { AbdmError } from './errors.js';

const HEADER_BYTES = 40;
const ENTRY_BYTES = 8;
const FLAGS = 5;
const NO_IDS = 1;
const KIND_LZ4 = 2;
const KIND_RAW = 3;
const MAX_PAGES = 64;

/**
 * Builds the frame at `ptr`, where there must be room for a whole one, and returns its length.
 * @param scratchPtr 16 bytes of the engine's memory.
 * @param readPage puts a page at an address; false if it is not at hand.
 * @throws {AbdmError} FRAME_MALFORMED or FRAME_TAG if `meta` is not what stood before a payload, CONTENT_MISMATCH if a page is not at hand.
 */
export function rebuildFrame(
  { exports, memory }: Engine,
  ptr: number,
  scratchPtr: number,
  meta: Uint8Array,
  readPage: (vm: number, pfn: number, ptr: number) => boolean,
): number {
  const view = new DataView(memory.buffer, ptr);
  if (meta.byteLength < HEADER_BYTES + ENTRY_BYTES + ID_BYTES) throw malformed();
  memory.set(meta.subarray(0, HEADER_BYTES), ptr);
  const pages = view.getUint16(28, true);
  const ids = view.getUint16(30, true);
  const duplicates = view.getUint16(32, true);
  const tagAt = frameMetaBytes(meta) - ID_BYTES;
  if (pages > MAX_PAGES || ids > pages || duplicates > ids || meta.byteLength !== tagAt + ID_BYTES) throw malformed();
  memory.set(meta, ptr);
  exports.sipHash128(TAG_KEY_PTR, ptr, tagAt, scratchPtr);
  if (!meta.subarray(tagAt).every((byte, i) => byte === memory[scratchPtr + i])) {
    throw new AbdmError('FRAME_TAG', "what is left of a frame does not have a tag of this migration's key");
  }

  const id = view.getBigUint64(8, true);
  const flags = memory[ptr + FLAGS]!;
  if ((flags & NO_IDS) !== 0) throw gone(id);
  // No window: what is raw stands alone.
  memory[ptr + FLAGS] = 0;
  const vm = view.getUint16(6, true);
  const base = Number(view.getBigUint64(16, true));
  let end = tagAt + ID_BYTES;
  for (let slot = 0; slot < pages; slot++) {
    const entry = HEADER_BYTES + slot * ENTRY_BYTES;
    const kind = view.getUint8(entry + 2);
    if (kind !== KIND_LZ4 && kind !== KIND_RAW) continue;
    view.setUint8(entry + 2, KIND_RAW);
    view.setUint16(entry + 4, PAGE_BYTES, true);
    if (!readPage(vm, base + view.getUint16(entry, true), ptr + end)) throw gone(id);
    end += PAGE_BYTES;
  }
  view.setUint32(24, end + 8, true);
  exports.sipHash128(TAG_KEY_PTR, ptr, tagAt, ptr + tagAt);
  exports.xxh3(ptr, end, ptr + end);
  return end + 8;
}

function malformed(): AbdmError {
  return new AbdmError('FRAME_MALFORMED', 'what is left of a frame is not what stands before its payload');
}

function gone(id: bigint): AbdmError {
  return new AbdmError('CONTENT_MISMATCH', `the pages of frame ${id} cannot be told any more`);
}
