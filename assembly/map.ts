// The page map: for every page of every VM which version of it is wanted, and whether that is in place.
//
// A version is the frame that brings it: of two frames with the same page the one with the higher id is the later. What is wanted is a u64 a page:
//
//   0               nothing is known
//   id * 2          frame `id` brings the page, or has brought it
//   floor * 2 - 1   a frame brings it that is not known yet, with the id `floor` or a higher one
//
// so that what is later is greater, whichever of the two it is. A bit a page says that what is wanted is in place. In a frozen VM, on whose pages a guest runs, it
// stays so: nothing is later than what the guest has seen.

import { bitmapClear, bitmapSet, bitmapTest } from './bitmap';
import { BATCH_PFNS, MAX_VMS, RESULT, VMS } from './layout';

/** Frames from which pages were taken that they had not brought: u32 how many, f64 each. merge.ts draws the rest of RESULT. */
const SUPERSEDED: usize = RESULT + 28;
const SUPERSEDED_IDS: usize = RESULT + 1472;

let wantedPtr: usize = 0;
let mergedPtr: usize = 0;
/** Bit `vm`. */
let frozenVms: u64 = 0;

/** What is wanted (u64 a page), and the bitmap of merged pages, both filled with zeros by the host. */
export function mapInit(wanted: usize, merged: usize): void {
  wantedPtr = wanted;
  mergedPtr = merged;
  frozenVms = 0;
  memory.fill(VMS, 0, MAX_VMS * 8);
}

/** VM `vm` has `pages` pages, from `first` on in the page map. */
export function mapVm(vm: u32, first: u32, pages: u32): void {
  store<u32>(VMS + ((<usize>vm) << 3), first);
  store<u32>(VMS + ((<usize>vm) << 3), pages, 4);
}

/** The first page of `vm` in the page map. */
export function firstOf(vm: u32): u32 {
  return load<u32>(VMS + ((<usize>vm) << 3));
}

export function pagesOf(vm: u32): u32 {
  return load<u32>(VMS + ((<usize>vm) << 3), 4);
}

/** What is in place in `vm` stays as it is. */
export function mapFreeze(vm: u32): void {
  frozenVms |= (<u64>1) << vm;
}

/** Pages from `from` on of `vm` are in place, by the `pages` bits at `bitmapPtr`. */
export function mapAdopt(vm: u32, from: u32, pages: u32, bitmapPtr: usize): void {
  const first = firstOf(vm) + from;
  for (let i: u32 = 0; i < pages; i++) if (bitmapTest(bitmapPtr, i)) bitmapSet(mergedPtr, first + i);
}

/** The frame that is to bring page `pfn` of `vm`, or has; 0 if none is known. */
export function mapNewest(vm: u32, pfn: u32): f64 {
  const wanted = load<u64>(wantedAt(firstOf(vm) + pfn));
  return wanted & 1 ? 0 : <f64>(wanted >> 1);
}

/** Frame `id` brings the `pages` pages of `vm` at BATCH_PFNS. Returns how many of them are to come, and in no later one. */
export function mapExpect(vm: u32, id: f64, pages: u32): u32 {
  beginSuperseding();
  const version = (<u64>id) << 1;
  const frozen = isFrozen(vm);
  const first = firstOf(vm);
  let own: u32 = 0;
  for (let i: usize = 0; i < <usize>pages; i++)
    own += u32(want(first + load<u32>(BATCH_PFNS + (i << 2)), version, frozen));
  return own;
}

/** Pages from `from` on of `vm`, by the `pages` bits at `bitmapPtr`, come in frames with the id `floor` or a higher one. */
export function mapDiscard(vm: u32, from: u32, pages: u32, bitmapPtr: usize, floor: f64): void {
  beginSuperseding();
  const version = ((<u64>floor) << 1) - 1;
  const frozen = isFrozen(vm);
  const first = firstOf(vm) + from;
  for (let i: u32 = 0; i < pages; i++) if (bitmapTest(bitmapPtr, i)) want(first + i, version, frozen);
}

/** Page `pfn` of `vm`, which frame `id` named a duplicate, still waits for its content. */
export function mapWaits(vm: u32, pfn: u32, id: f64): bool {
  const page = firstOf(vm) + pfn;
  return load<u64>(wantedAt(page)) === (<u64>id) << 1 && !bitmapTest(mergedPtr, page);
}

/** The content that the page has waited for is at hand. Returns 1 if it is still wanted, and counts the page as merged. */
export function settle(vm: u32, pfn: u32, id: f64): bool {
  if (!mapWaits(vm, pfn, id)) return false;
  bitmapSet(mergedPtr, firstOf(vm) + pfn);
  return true;
}

export function isFrozen(vm: u32): bool {
  return <bool>((frozenVms >> vm) & 1);
}

/** Before `want`. */
export function beginSuperseding(): void {
  store<u32>(SUPERSEDED, 0);
}

/** `version` of `page` is known: from now on it is wanted, unless a later one is. True if it is wanted, and not in place. */
export function want(page: u32, version: u64, frozen: bool): bool {
  const at = wantedAt(page);
  const wanted = load<u64>(at);
  const merged = bitmapTest(mergedPtr, page);
  if (wanted >= version) return wanted === version && !merged;
  if (merged) {
    if (frozen) return false;
    bitmapClear(mergedPtr, page);
  } else if (wanted !== 0 && !(wanted & 1)) {
    const count = load<u32>(SUPERSEDED);
    store<f64>(SUPERSEDED_IDS + ((<usize>count) << 3), <f64>(wanted >> 1));
    store<u32>(SUPERSEDED, count + 1);
  }
  store<u64>(at, version);
  return true;
}

/** What is wanted of `page` is in place now. */
export function inPlace(page: u32): void {
  bitmapSet(mergedPtr, page);
}

function wantedAt(page: u32): usize {
  return wantedPtr + ((<usize>page) << 3);
}
