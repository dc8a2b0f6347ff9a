// The frame: what it looks like, and the reader that believes nothing.
//
//    0  u32 magic "ABDF" | u8 version | u8 flags | u16 vm
//    8  u64 frame id
//   16  u64 base pfn
//   24  u32 frame bytes | u16 pages n | u16 content ids m
//   32  u16 duplicates d | u16 0 | u32 0
//   40  page table     n x { u16 pfn - base | u8 kind | u8 slot | u16 length | u16 0 }
//       content ids    m x 16 bytes, one for each page that is not zero
//       references     d x u64, for each duplicate the frame that holds its content
//       tag            16 bytes, SipHash-2-4-128 under the tag key over all of the above
//       payload        the pages' bytes
//       checksum       u64, XXH3-64 over all of the above
//
// Two sums, because they answer different questions. The checksum needs no key: whoever keeps or carries frames can tell a damaged one before
// it acknowledges it. The tag needs the migration's key: only the source can have made the header and the tables, and the content ids in them
// vouch for the payload. A frame without content ids has no such voucher for its payload; only the checksum guards it.
//
// Flags: bit 0, no content ids and so no duplicates; bit 1, one window across the frame. What its LZ4 and raw pages decode to is then laid one behind
// the other, in order of slots, and a block may refer to all of it that is before its own page:
//
//   slot         0       1       2       3       4       5
//   kind         LZ4     zero    raw     LZ4     dup.    LZ4
//   window     | LZ4   | raw   | LZ4   | LZ4   |                  matches of slot 5 begin at most 65,535 bytes back, in slot 0 at the earliest

import { FRAME_PAGES, PAGE_BYTES, TAG_KEY } from './layout';
import { sipHash128 } from './siphash';
import { xxh3Of } from './xxh3';

const MAGIC: u32 = 0x46444241;
const VERSION: u8 = 1;
/** The frame has no content ids, and so no duplicates. */
export const FLAG_NO_IDS: u8 = 1;
/** One window across the frame: LZ4 blocks may refer to its earlier LZ4 and raw pages. */
export const FLAG_WINDOW: u8 = 2;

const FLAGS: usize = 5;
const VM: usize = 6;
const ID: usize = 8;
const BASE: usize = 16;
const BYTES: usize = 24;
const PAGES: usize = 28;
const IDS: usize = 30;
const DUPLICATES: usize = 32;
export const HEADER_BYTES: usize = 40;
export const ENTRY_BYTES: usize = 8;
export const ID_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;

export const KIND_ZERO: u8 = 0;
export const KIND_DUPLICATE: u8 = 1;
export const KIND_LZ4: u8 = 2;
export const KIND_RAW: u8 = 3;

/** A frame's id times 64 plus a slot is a reference and travels as f64: 47 bits for the id. */
export const MAX_FRAME_ID: u64 = (1 << 47) - 1;

// What is wrong with a frame. bindings/errors.ts turns these into coded errors; 0 is none.
export const OK: i32 = 0;
export const BAD_LENGTH: i32 = 1;
export const BAD_HEADER: i32 = 2;
export const BAD_CHECKSUM: i32 = 3;
export const BAD_TABLE: i32 = 4;
export const BAD_TAG: i32 = 5;
export const BAD_RANGE: i32 = 6;
export const BAD_LZ4: i32 = 7;
export const BAD_CONTENT: i32 = 8;

/** Bytes of a frame before its payload. */
export function metaBytes(pages: usize, ids: usize, duplicates: usize): usize {
  return HEADER_BYTES + pages * ENTRY_BYTES + ids * ID_BYTES + duplicates * 8 + TAG_BYTES;
}

/** The most that a frame of so many pages can take. */
export function frameBound(pages: usize): usize {
  return metaBytes(pages, pages, pages) + pages * PAGE_BYTES + CHECKSUM_BYTES;
}

// Reading. These trust their argument: call check first.

export function frameVm(frame: usize): u32 {
  return load<u16>(frame + VM);
}
export function frameId(frame: usize): u64 {
  return load<u64>(frame + ID);
}
export function frameBase(frame: usize): u64 {
  return load<u64>(frame + BASE);
}
export function framePages(frame: usize): u32 {
  return load<u16>(frame + PAGES);
}
export function frameHasIds(frame: usize): bool {
  return (load<u8>(frame + FLAGS) & FLAG_NO_IDS) === 0;
}
export function frameHasWindow(frame: usize): bool {
  return (load<u8>(frame + FLAGS) & FLAG_WINDOW) !== 0;
}
export function entryAt(frame: usize, slot: usize): usize {
  return frame + HEADER_BYTES + slot * ENTRY_BYTES;
}
export function entryDelta(entry: usize): u32 {
  return load<u16>(entry);
}
export function entryKind(entry: usize): u8 {
  return load<u8>(entry, 2);
}
export function entrySlot(entry: usize): u32 {
  return load<u8>(entry, 3);
}
export function entryLength(entry: usize): u32 {
  return load<u16>(entry, 4);
}
export function idsAt(frame: usize): usize {
  return entryAt(frame, framePages(frame));
}
export function referencesAt(frame: usize): usize {
  return idsAt(frame) + <usize>load<u16>(frame + IDS) * ID_BYTES;
}
export function payloadAt(frame: usize): usize {
  return referencesAt(frame) + <usize>load<u16>(frame + DUPLICATES) * 8 + TAG_BYTES;
}

/** True if the tag is the one that the migration's key gives. Call after check. */
export function tagHolds(frame: usize, scratch: usize): bool {
  const tag = payloadAt(frame) - TAG_BYTES;
  sipHash128(TAG_KEY, frame, tag - frame, scratch);
  return v128.all_true<i64>(v128.eq<i64>(v128.load(tag), v128.load(scratch)));
}

/** Everything about a frame that can be told without a key: lengths, header, checksum, page table. */
export function check(frame: usize, bytes: usize): i32 {
  if (bytes < metaBytes(1, 0, 0) + CHECKSUM_BYTES || bytes > frameBound(FRAME_PAGES)) return BAD_LENGTH;
  if (load<u32>(frame + BYTES) !== bytes) return BAD_LENGTH;
  if (load<u32>(frame) !== MAGIC || load<u8>(frame, 4) !== VERSION) return BAD_HEADER;
  const flags = load<u8>(frame + FLAGS);
  if ((flags & ~(FLAG_NO_IDS | FLAG_WINDOW)) !== 0) return BAD_HEADER;
  if (load<u16>(frame, 34) !== 0 || load<u32>(frame, 36) !== 0) return BAD_HEADER;
  const id = frameId(frame);
  if (id === 0 || id > MAX_FRAME_ID || frameBase(frame) > <u64>f64.MAX_SAFE_INTEGER) return BAD_HEADER;

  const pages: usize = load<u16>(frame + PAGES);
  const ids: usize = load<u16>(frame + IDS);
  const duplicates: usize = load<u16>(frame + DUPLICATES);
  if (pages === 0 || pages > FRAME_PAGES || ids > pages || duplicates > ids) return BAD_HEADER;
  if ((flags & FLAG_NO_IDS) !== 0 && ids !== 0) return BAD_HEADER;
  const meta = metaBytes(pages, ids, duplicates);
  if (meta + CHECKSUM_BYTES > bytes) return BAD_LENGTH;

  const payloadEnd = bytes - CHECKSUM_BYTES;
  if (load<u64>(frame + payloadEnd) !== xxh3Of(frame, payloadEnd)) return BAD_CHECKSUM;
  return checkTable(frame, id, pages, ids, duplicates, payloadEnd - meta);
}

function checkTable(frame: usize, id: u64, pages: usize, ids: usize, duplicates: usize, payloadBytes: usize): i32 {
  let reference = referencesAt(frame);
  let named: usize = 0;
  let duplicated: usize = 0;
  let length: usize = 0;
  let previous: i32 = -1;
  for (let slot: usize = 0; slot < pages; slot++) {
    const entry = entryAt(frame, slot);
    const kind = entryKind(entry);
    const delta = <i32>entryDelta(entry);
    if (delta <= previous || (slot === 0 && delta !== 0)) return BAD_TABLE;
    previous = delta;
    if (load<u16>(entry, 6) !== 0) return BAD_TABLE;
    const bytes = entryLength(entry);
    length += bytes;
    if (kind !== KIND_ZERO) named++;
    if (kind === KIND_DUPLICATE) {
      if (bytes !== 0 || ++duplicated > duplicates) return BAD_TABLE;
      const target = load<u64>(reference);
      const targetSlot: usize = entrySlot(entry);
      reference += 8;
      if (target === 0 || target > id || targetSlot >= FRAME_PAGES) return BAD_TABLE;
      if (target === id && (targetSlot >= slot || entryKind(entryAt(frame, targetSlot)) < KIND_LZ4)) return BAD_TABLE;
    } else {
      if (entrySlot(entry) !== 0) return BAD_TABLE;
      if (kind === KIND_ZERO) {
        if (bytes !== 0) return BAD_TABLE;
      } else if (kind === KIND_LZ4) {
        if (bytes === 0 || bytes >= PAGE_BYTES) return BAD_TABLE;
      } else if (kind !== KIND_RAW || bytes !== PAGE_BYTES) return BAD_TABLE;
    }
  }
  if (length !== payloadBytes || duplicated !== duplicates) return BAD_TABLE;
  return named === ids || !frameHasIds(frame) ? OK : BAD_TABLE;
}

// Writing. The table, ids and references are filled in place; writeHeader comes first, seal last.

export function writeHeader(
  frame: usize,
  vm: u32,
  id: u64,
  base: u64,
  pages: u32,
  ids: u32,
  duplicates: u32,
  flags: u8,
): void {
  store<u32>(frame, MAGIC);
  store<u8>(frame, VERSION, 4);
  store<u8>(frame + FLAGS, flags);
  store<u16>(frame + VM, <u16>vm);
  store<u64>(frame + ID, id);
  store<u64>(frame + BASE, base);
  store<u16>(frame + PAGES, <u16>pages);
  store<u16>(frame + IDS, <u16>ids);
  store<u64>(frame + DUPLICATES, <u64>duplicates);
}

export function writeEntry(entry: usize, delta: u32, kind: u8, slot: u32, length: u32): void {
  store<u64>(entry, <u64>delta | ((<u64>kind) << 16) | ((<u64>slot) << 24) | ((<u64>length) << 32));
}

/** Writes length, tag and checksum of a frame whose payload ends at `end`. Returns the frame's length in bytes. */
export function seal(frame: usize, end: usize): usize {
  const bytes = end - frame + CHECKSUM_BYTES;
  store<u32>(frame + BYTES, <u32>bytes);
  const tag = payloadAt(frame) - TAG_BYTES;
  sipHash128(TAG_KEY, frame, tag - frame, tag);
  store<u64>(end, xxh3Of(frame, end - frame));
  return bytes;
}
