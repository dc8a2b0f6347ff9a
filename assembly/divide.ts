// A batch of pages -> frames, in one call.
//
// Three passes over the batch while it is in the cache. First every page is tested for zero and named (content id); then the table is asked
// for each name, so that the lookups' cache misses overlap; then what is new is compressed straight into its place in the frame. Only after
// the second pass the number of ids and references is known, and with it where the payload begins: no byte is moved twice. Only the pages that have
// to be sent are put one behind the other, if zero pages or duplicates lie between them: they are compressed through one window (lz4.ts).
//
// RESULT:   0  u32 frames | u32 zero | u32 duplicate | u32 compressed | u32 normal pages | u32 bytes that compression saved
//          24  a frame each: { u32 ptr | u32 bytes | u32 index of its first page in the batch | u32 pages }

import { bitmapTest } from './bitmap';
import { contentId } from './content-id';
import { find, insert } from './dedup';
import {
  ENTRY_BYTES,
  entryAt,
  FLAG_NO_IDS,
  FLAG_WINDOW,
  frameBound,
  HEADER_BYTES,
  ID_BYTES,
  KIND_DUPLICATE,
  KIND_LZ4,
  KIND_RAW,
  KIND_ZERO,
  metaBytes,
  seal,
  writeEntry,
  writeHeader,
} from './frame';
import { BATCH_IDS, BATCH_KINDS, BATCH_PAGES, BATCH_PFNS, BATCH_REFS, FRAME_PAGES, PAGE_BYTES, RESULT } from './layout';
import { lz4Compress } from './lz4';
import { lz4CompressHigh } from './lz4-high';
import { isZero, touch } from './page';

/** A block that saves less than this is not worth decoding: the page travels raw. */
const MIN_SAVED_BYTES: u32 = 128;
/** The page table has 16 bits for a pfn relative to the frame's first. */
const MAX_DELTA: u32 = 0xffff;

const RESULT_FRAMES: usize = RESULT + 24;

/** Values of `naming`. A frame that is made again is NAMED, for what it holds left before and must not be taken for a duplicate of itself. */
const NAMELESS: u32 = 0;
const DEDUPLICATED: u32 = 1;
// NAMED: u32 = 2
/** As DEDUPLICATED, but what only unfetchable frames hold is new. */
const FETCHABLE: u32 = 3;

let unfetchablePtr: usize = 0;
let unfetchableBits: u64 = 0;

/** A bitmap of frames, by id: what is in those cannot be fetched again. Frames beyond its `bits` cannot either. */
export function divideInit(bitmap: usize, bits: u32): void {
  unfetchablePtr = bitmap;
  unfetchableBits = bits;
}

/**
 * Divides `pages` pages at `pagesPtr` into frames at `outPtr`. Their pfns are `base` plus the ascending u32 at BATCH_PFNS. Frames get the ids
 * `firstId`, `firstId` + 1, ... and lie one behind the other, 16-byte aligned. Of the pages that have to be sent the first `tries` are compressed if
 * that makes them smaller, with high ratio if `acceleration` is 0, through one window across each frame, for which there are 256 KiB of room at
 * `windowPtr`. Pages have content ids unless `naming` is NAMELESS, and are deduplicated, and remembered for that, if it is DEDUPLICATED or
 * FETCHABLE. Returns the number of frames, or -1 if they might not fit into `outBytes`.
 */
export function divide(
  pagesPtr: usize,
  pages: u32,
  vm: u32,
  base: f64,
  firstId: f64,
  outPtr: usize,
  outBytes: usize,
  acceleration: u32,
  tries: u32,
  naming: u32,
  windowPtr: usize,
): i32 {
  const withIds = naming !== NAMELESS;
  // Before anything is remembered in the table: it must never refer to a frame that was not written.
  if (pages === 0 || pages > BATCH_PAGES || batchBound(pages) > outBytes) return -1;
  memory.fill(RESULT, 0, 24);
  namePages(pagesPtr, pages, withIds);
  let id = <u64>firstId;
  let first: u32 = 0;
  let frames = 0;
  let record = RESULT_FRAMES;
  while (first < pages) {
    const count = frameExtent(first, pages);
    if (naming === DEDUPLICATED || naming === FETCHABLE) findDuplicates(first, count, id, naming === FETCHABLE);
    const sent = load<u32>(RESULT, 12) + load<u32>(RESULT, 16);
    const left = tries > sent ? tries - sent : 0;
    const bytes = writeFrame(pagesPtr, first, count, vm, <u64>base, id, outPtr, acceleration, left, withIds, windowPtr);
    store<u32>(record, outPtr);
    store<u32>(record, bytes, 4);
    store<u32>(record, first, 8);
    store<u32>(record, count, 12);
    record += 16;
    outPtr = (outPtr + bytes + 15) & ~15;
    first += count;
    id++;
    frames++;
  }
  store<u32>(RESULT, frames);
  return frames;
}

/** Kinds (zero or raw, so far) and content ids of the batch. */
function namePages(page: usize, pages: u32, withIds: bool): void {
  for (let i: u32 = 0; i < pages; i++, page += PAGE_BYTES) {
    touch(page, PAGE_BYTES);
    const zero = isZero(page);
    store<u8>(BATCH_KINDS + i, zero ? KIND_ZERO : KIND_RAW);
    if (withIds && !zero) contentId(page, BATCH_IDS + <usize>i * ID_BYTES);
  }
}

/** The most that the frames of a batch can take. */
function batchBound(pages: u32): usize {
  let bytes: usize = 0;
  for (let first: u32 = 0; first < pages; ) {
    const count = frameExtent(first, pages);
    bytes += (frameBound(count) + 15) & ~15;
    first += count;
  }
  return bytes;
}

/** How many of the pages from `first` on fit one frame. */
function frameExtent(first: u32, pages: u32): u32 {
  const limit = load<u32>(BATCH_PFNS + ((<usize>first) << 2)) + MAX_DELTA;
  const most = min(pages - first, FRAME_PAGES);
  let count: u32 = 1;
  while (count < most && load<u32>(BATCH_PFNS + ((<usize>(first + count)) << 2)) <= limit) count++;
  return count;
}

/** Marks the pages whose content left earlier, and remembers where the others' will lie. */
function findDuplicates(first: u32, count: u32, id: u64, fetchable: bool): void {
  for (let slot: u32 = 0; slot < count; slot++) {
    const i = first + slot;
    if (load<u8>(BATCH_KINDS + i) === KIND_ZERO) continue;
    const name = BATCH_IDS + <usize>i * ID_BYTES;
    const reference = find(name);
    if (reference !== 0 && !(fetchable && isUnfetchable(reference >> 6, id))) {
      store<u8>(BATCH_KINDS + i, KIND_DUPLICATE);
      store<u64>(BATCH_REFS + ((<usize>i) << 3), reference);
    } else insert(name, (id << 6) | slot);
  }
}

/** What frame `own` itself holds comes with it. */
function isUnfetchable(frame: u64, own: u64): bool {
  if (frame === own) return false;
  return frame >= unfetchableBits || bitmapTest(unfetchablePtr, <u32>frame);
}

function writeFrame(
  pagesPtr: usize,
  first: u32,
  count: u32,
  vm: u32,
  base: u64,
  id: u64,
  frame: usize,
  acceleration: u32,
  tries: u32,
  withIds: bool,
  windowPtr: usize,
): usize {
  let zeros: u32 = 0;
  let duplicates: u32 = 0;
  let firstSent = first + count;
  let lastSent = first;
  for (let i = first; i < first + count; i++) {
    const kind = load<u8>(BATCH_KINDS + i);
    zeros += u32(kind === KIND_ZERO);
    duplicates += u32(kind === KIND_DUPLICATE);
    if (kind === KIND_RAW) {
      firstSent = min(firstSent, i);
      lastSent = i;
    }
  }
  /** The pages to be sent lie one behind the other as they are. */
  const inPlace = lastSent + 1 - firstSent === count - zeros - duplicates;
  if (inPlace) windowPtr = pagesPtr + <usize>firstSent * PAGE_BYTES;
  const ids = withIds ? count - zeros : 0;
  const firstDelta = load<u32>(BATCH_PFNS + ((<usize>first) << 2));

  let entry = entryAt(frame, 0);
  let name = frame + HEADER_BYTES + <usize>count * ENTRY_BYTES;
  let reference = name + <usize>ids * ID_BYTES;
  let payload = frame + metaBytes(count, ids, duplicates);
  let compressed: u32 = 0;
  let normal: u32 = 0;
  const payloadStart = payload;
  for (let i = first; i < first + count; i++, entry += ENTRY_BYTES) {
    const delta = load<u32>(BATCH_PFNS + ((<usize>i) << 2)) - firstDelta;
    const kind = load<u8>(BATCH_KINDS + i);
    if (kind === KIND_ZERO) {
      writeEntry(entry, delta, KIND_ZERO, 0, 0);
      continue;
    }
    if (withIds) {
      v128.store(name, v128.load(BATCH_IDS + <usize>i * ID_BYTES));
      name += ID_BYTES;
    }
    if (kind === KIND_DUPLICATE) {
      const ref = load<u64>(BATCH_REFS + ((<usize>i) << 3));
      store<u64>(reference, ref >> 6);
      reference += 8;
      writeEntry(entry, delta, KIND_DUPLICATE, <u32>(ref & 63), 0);
      continue;
    }
    let page = pagesPtr + <usize>i * PAGE_BYTES;
    let length: u32 = 0;
    const sent = compressed + normal;
    if (sent < tries) {
      const capacity = PAGE_BYTES - MIN_SAVED_BYTES;
      if (!inPlace) {
        memory.copy(windowPtr + <usize>sent * PAGE_BYTES, page, PAGE_BYTES);
        page = windowPtr + <usize>sent * PAGE_BYTES;
      }
      if (acceleration === 0) length = lz4CompressHigh(windowPtr, page, PAGE_BYTES, payload, capacity);
      else length = lz4Compress(windowPtr, page, PAGE_BYTES, payload, capacity, acceleration);
    }
    if (length !== 0) {
      writeEntry(entry, delta, KIND_LZ4, 0, length);
      compressed++;
    } else {
      normal++;
      length = PAGE_BYTES;
      memory.copy(payload, page, PAGE_BYTES);
      writeEntry(entry, delta, KIND_RAW, 0, PAGE_BYTES);
    }
    payload += length;
  }
  // A frame of raw pages only has no window: then nobody copies them to make one.
  const flags = <u8>((withIds ? 0 : FLAG_NO_IDS) | (compressed > 0 ? FLAG_WINDOW : 0));
  writeHeader(frame, vm, id, base + firstDelta, count, ids, duplicates, flags);
  add(4, zeros);
  add(8, duplicates);
  add(12, compressed);
  add(16, normal);
  add(20, (compressed + normal) * PAGE_BYTES - <u32>(payload - payloadStart));
  return seal(frame, payload);
}

function add(offset: usize, value: u32): void {
  store<u32>(RESULT + offset, load<u32>(RESULT + offset) + value);
}
