// A frame -> pages, in one call.
//
// Everything is checked before anything counts: first the whole frame is validated, decoded and each page's content id recomputed; only then the page map
// changes. A raw page is not copied: its place is reported where it lies in the frame. Compressed pages are decoded one behind the other. Only where
// blocks refer to a window across the frame raw pages are copied in between, so that it is without gaps.
//
// RESULT:   0  u32 vm | u32 pages
//           8  f64 frame id | f64 base pfn
//          24  u32 slot that an error is about | u32 frames at 1472
//          64  u32 x 64  place of the page's bytes, 0 if it has none here
//         320  u32 x 64  pfn - base pfn
//         576  u8  x 64  kind
//         640  u8  x 64  what to do: STALE, WRITE, ZERO or WAIT
//         704  u32 x 64  place of its content id
//         960  f64 x 64  for a duplicate whose content is in another frame: frame id * 64 + slot
//        1472  f64 x 512  frames from which pages were taken that they had not brought: one for each such page (map.ts)

import { contentId } from './content-id';
import {
  BAD_CONTENT,
  BAD_LZ4,
  BAD_RANGE,
  BAD_TAG,
  check,
  entryAt,
  entryDelta,
  entryKind,
  entryLength,
  entrySlot,
  frameBase,
  frameHasIds,
  frameHasWindow,
  frameId,
  framePages,
  frameVm,
  ID_BYTES,
  idsAt,
  KIND_DUPLICATE,
  KIND_LZ4,
  KIND_ZERO,
  OK,
  payloadAt,
  referencesAt,
  tagHolds,
} from './frame';
import { BATCH_IDS, MAX_VMS, PAGE_BYTES, RESULT } from './layout';
import { lz4DecompressInWindow } from './lz4';
import { beginSuperseding, firstOf, inPlace, isFrozen, pagesOf, want } from './map';

const ERROR_SLOT: usize = RESULT + 24;
const PLACES: usize = RESULT + 64;
const DELTAS: usize = RESULT + 320;
const KINDS: usize = RESULT + 576;
const ACTIONS: usize = RESULT + 640;
const NAMES: usize = RESULT + 704;
const REFERENCES: usize = RESULT + 960;

const STALE: u8 = 0;
const WRITE: u8 = 1;
const ZERO: u8 = 2;
const WAIT: u8 = 3;

/** Where an id that is recomputed lies: the divider's batch is not in use while a frame is merged. */
const SCRATCH: usize = BATCH_IDS;

/** Checks a frame, decodes it to `outPtr` (256 KiB) and says in RESULT what to do with each page. Returns OK or what is wrong (frame.ts). */
export function merge(frame: usize, bytes: usize, outPtr: usize): i32 {
  const error = check(frame, bytes);
  if (error !== OK) return error;
  if (!tagHolds(frame, SCRATCH)) return BAD_TAG;
  const pages = framePages(frame);
  const vm = frameVm(frame);
  const base = frameBase(frame);
  if (vm >= MAX_VMS) return BAD_RANGE;
  const last = base + <u64>entryDelta(entryAt(frame, pages - 1));
  if (last >= <u64>pagesOf(vm)) return BAD_RANGE;

  store<u32>(RESULT, vm);
  store<u32>(RESULT, pages, 4);
  store<f64>(RESULT, <f64>frameId(frame), 8);
  store<f64>(RESULT, <f64>base, 16);
  const decoded = decode(frame, pages, outPtr);
  if (decoded === OK) place(frame, pages, firstOf(vm) + <u32>base, isFrozen(vm));
  return decoded;
}

/** Finds or makes every page's bytes, and proves that they are what its content id names. */
function decode(frame: usize, pages: u32, outPtr: usize): i32 {
  const withIds = frameHasIds(frame);
  const withWindow = frameHasWindow(frame);
  const windowPtr = outPtr;
  const id = frameId(frame);
  let payload = payloadAt(frame);
  let name = idsAt(frame);
  let reference = referencesAt(frame);
  for (let slot: usize = 0; slot < <usize>pages; slot++) {
    const entry = entryAt(frame, slot);
    const kind = entryKind(entry);
    const length = entryLength(entry);
    const place = PLACES + (slot << 2);
    store<u32>(DELTAS + (slot << 2), entryDelta(entry));
    store<u8>(KINDS + slot, kind);
    store<u32>(place, 0);
    store<u32>(ERROR_SLOT, <u32>slot);
    if (kind === KIND_ZERO) continue;
    store<u32>(NAMES + (slot << 2), name);
    if (kind === KIND_DUPLICATE) {
      const target = load<u64>(reference);
      const targetSlot: usize = entrySlot(entry);
      store<f64>(REFERENCES + (slot << 3), <f64>((target << 6) | targetSlot));
      reference += 8;
      if (target === id) {
        if (!sameId(load<u32>(NAMES + (targetSlot << 2)), name)) return BAD_CONTENT;
        store<u32>(place, load<u32>(PLACES + (targetSlot << 2)));
      }
    } else {
      let page = payload;
      if (kind === KIND_LZ4 || withWindow) {
        page = outPtr;
        outPtr += PAGE_BYTES;
        if (kind !== KIND_LZ4) memory.copy(page, payload, PAGE_BYTES);
        else if (!lz4DecompressInWindow(withWindow ? windowPtr : page, payload, length, page, PAGE_BYTES))
          return BAD_LZ4;
      }
      payload += length;
      if (withIds && !hasContent(page, name)) return BAD_CONTENT;
      store<u32>(place, page);
    }
    if (withIds) name += ID_BYTES;
  }
  return OK;
}

/** Enters a frame that holds into the page map. */
function place(frame: usize, pages: u32, first: u32, frozen: bool): void {
  beginSuperseding();
  const version = frameId(frame) << 1;
  for (let slot: usize = 0; slot < <usize>pages; slot++) {
    const page = first + load<u32>(DELTAS + (slot << 2));
    let action = STALE;
    if (want(page, version, frozen)) {
      action = WAIT;
      if (load<u8>(KINDS + slot) === KIND_ZERO) action = ZERO;
      else if (load<u32>(PLACES + (slot << 2)) !== 0) action = WRITE;
      if (action !== WAIT) inPlace(page);
    }
    store<u8>(ACTIONS + slot, action);
  }
}

/** True if the page at `pagePtr` has the content that the 16 bytes at `idPtr` name. */
export function hasContent(pagePtr: usize, idPtr: usize): bool {
  contentId(pagePtr, SCRATCH);
  return sameId(SCRATCH, idPtr);
}

function sameId(a: usize, b: usize): bool {
  return v128.all_true<i64>(v128.eq<i64>(v128.load(a), v128.load(b)));
}
