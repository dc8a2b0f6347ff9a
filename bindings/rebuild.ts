// A frame made again from what stands before its payload, and from the pages that it once brought: after a crash the image may still have them, but
// whether it has is told only by the frame's content ids. Compressed pages become raw ones, everything else stays as it was; and since tables and
// payload are other bytes then, the frame gets a new tag and a new checksum. A page of which nothing is needed any more, since a guest may have written to it or
// a later frame has it, becomes a zero page: it keeps the slots of the others what they were, and nobody is given it.
//
//   header | page table | content ids | references | tag | payload | checksum         assembly/frame.ts draws it
//            LZ4 -> raw, not needed -> zero           new    from the image  new

import { frameMetaBytes, ID_BYTES, PAGE_BYTES, TAG_KEY_PTR } from './abi.js';
import type { Engine } from './engine.js';
import { AbdmError } from './errors.js';

const HEADER_BYTES = 40;
const ENTRY_BYTES = 8;
const REFERENCE_BYTES = 8;
const FLAGS = 5;
const NO_IDS = 1;
const KIND_ZERO = 0;
const KIND_DUPLICATE = 1;
const KIND_RAW = 3;
const MAX_PAGES = 64;

/** What there is of the pages of a frame. */
export interface Remains {
  /** Puts a page at an address; false if it is not at hand. */
  read(vm: number, pfn: number, ptr: number): boolean;
  /** Nothing is needed of this page of frame `id`. */
  isDone(vm: number, pfn: number, id: number): boolean;
}

/**
 * Builds the frame at `ptr`, where there must be room for a whole one, and returns its length.
 * @param scratchPtr 16 bytes of the engine's memory.
 * @throws {AbdmError} FRAME_MALFORMED or FRAME_TAG if `meta` is not what stood before a payload, CONTENT_MISMATCH if a page is not at hand.
 */
export function rebuildFrame(
  { exports, memory }: Engine,
  ptr: number,
  scratchPtr: number,
  meta: Uint8Array,
  { read, isDone }: Remains,
): number {
  const view = new DataView(memory.buffer, ptr);
  if (meta.byteLength < HEADER_BYTES + ENTRY_BYTES + ID_BYTES) throw malformed();
  memory.set(meta.subarray(0, HEADER_BYTES), ptr);
  const pages = view.getUint16(28, true);
  const ids = view.getUint16(30, true);
  const duplicates = view.getUint16(32, true);
  const oldTagAt = frameMetaBytes(meta) - ID_BYTES;
  if (pages > MAX_PAGES || ids > pages || duplicates > ids || meta.byteLength !== oldTagAt + ID_BYTES)
    throw malformed();
  memory.set(meta, ptr);
  exports.sipHash128(TAG_KEY_PTR, ptr, oldTagAt, scratchPtr);
  if (!meta.subarray(oldTagAt).every((byte, i) => byte === memory[scratchPtr + i])) {
    throw new AbdmError('FRAME_TAG', "what is left of a frame does not have a tag of this migration's key");
  }

  const id = Number(view.getBigUint64(8, true));
  const flags = memory[ptr + FLAGS]!;
  if ((flags & NO_IDS) !== 0) throw gone(id);
  // No window: what is raw stands alone.
  memory[ptr + FLAGS] = 0;
  const vm = view.getUint16(6, true);
  const base = Number(view.getBigUint64(16, true));
  const entryOf = (slot: number) => HEADER_BYTES + slot * ENTRY_BYTES;
  const pfnOf = (slot: number) => base + view.getUint16(entryOf(slot), true);

  // The tables, without what is not needed. They are read from `meta`.
  const namesAt = entryOf(pages);
  let name = namesAt;
  let reference = namesAt + ids * ID_BYTES;
  const names: number[] = [];
  const references: number[] = [];
  for (let slot = 0; slot < pages; slot++) {
    const entry = entryOf(slot);
    const kind = view.getUint8(entry + 2);
    if (kind === KIND_ZERO) continue;
    const isDuplicate = kind === KIND_DUPLICATE;
    if (isDone(vm, pfnOf(slot), id)) {
      view.setUint8(entry + 2, KIND_ZERO);
      view.setUint8(entry + 3, 0);
      view.setUint16(entry + 4, 0, true);
    } else {
      names.push(name);
      if (isDuplicate) references.push(reference);
      else {
        view.setUint8(entry + 2, KIND_RAW);
        view.setUint16(entry + 4, PAGE_BYTES, true);
      }
    }
    name += ID_BYTES;
    if (isDuplicate) reference += REFERENCE_BYTES;
  }
  let end = namesAt;
  for (const at of names) end = copy(at, ID_BYTES, end);
  for (const at of references) end = copy(at, REFERENCE_BYTES, end);
  view.setUint16(30, names.length, true);
  view.setUint16(32, references.length, true);

  const tagAt = end;
  end += ID_BYTES;
  for (let slot = 0; slot < pages; slot++) {
    if (view.getUint8(entryOf(slot) + 2) !== KIND_RAW) continue;
    if (!read(vm, pfnOf(slot), ptr + end)) throw gone(id);
    end += PAGE_BYTES;
  }
  view.setUint32(24, end + 8, true);
  exports.sipHash128(TAG_KEY_PTR, ptr, tagAt, ptr + tagAt);
  exports.xxh3(ptr, end, ptr + end);
  return end + 8;

  function copy(from: number, bytes: number, to: number): number {
    memory.set(meta.subarray(from, from + bytes), ptr + to);
    return to + bytes;
  }
}

function malformed(): AbdmError {
  return new AbdmError('FRAME_MALFORMED', 'what is left of a frame is not what stands before its payload');
}

function gone(id: number): AbdmError {
  return new AbdmError('CONTENT_MISMATCH', `the pages of frame ${id} cannot be told any more`);
}
