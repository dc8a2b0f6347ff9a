// The whole ABI between TypeScript and the engine: assembly/index.ts as an interface, and the constants both sides share.
//
// Addresses end in `Ptr`, sizes in `Bytes`. Page numbers and frame ids travel as f64: exact up to 2^53, and no BigInt is made per call.
// Booleans come back as 0 or 1. Nothing here allocates; nothing keeps a pointer beyond its call, except what `init` is given.

/** Bytes of a page. */
export const PAGE_BYTES = 4096;
/** Pages in a frame, at most. */
export const FRAME_PAGES = 64;
/** Pages in one call of `divide`, at most. */
export const BATCH_PAGES = 256;
/** VMs that can leave together in one migration, at most. */
export const MAX_VMS = 64;
/** Pages of all VMs of a gang, 1 TiB: the merger's map of them, 8 bytes a page, has to fit one memory. */
export const MAX_GANG_PAGES = 2 ** 28;
/** Nodes that placement can choose from, at most. */
export const MAX_NODES = 256;
/** Where the sized part of the engine's memory begins (assembly/layout.ts). */
export const FIXED_BYTES = 0x70000;
export const RESULT_PTR = 0x400;
/** The 16 bytes that key frame tags. */
export const TAG_KEY_PTR = 0x3440;
export const NODES_PTR = 0x3800;
export const PICKS_PTR = 0x5000;
export const BATCH_PFNS_PTR = 0x5400;
/** A content id, and a frame tag. */
export const ID_BYTES = 16;
/** The highest id that a frame can have: times 64, plus a slot, it is a number of JavaScript still. */
export const MAX_FRAME_ID = 2 ** 47 - 1;
/** The secret of a migration: 16 bytes that expand to the NH key, 16 that key SipHash. */
export const KEY_BYTES = 32;

/** Deduplication table: a bucket is 128 bytes and holds five contents (assembly/dedup.ts). */
export const DEDUP_BUCKET_BYTES = 128;
export const DEDUP_WAYS = 5;

export interface EngineExports {
  // page.ts
  /** 1 if the 4 KiB at `pagePtr` are all zero. */
  isZero(pagePtr: number): number;
  /** How many of `pages` consecutive pages are all zero. */
  countZero(pagesPtr: number, pages: number): number;

  // xxh3.ts
  /** XXH3-64, seed 0, of `bytes` at `ptr`; written to `outPtr` as a little-endian u64. */
  xxh3(ptr: number, bytes: number, outPtr: number): void;

  // siphash.ts
  /** SipHash-2-4 with 128-bit output of `bytes` at `ptr` under the 16 bytes at `keyPtr`, to `outPtr`. */
  sipHash128(keyPtr: number, ptr: number, bytes: number, outPtr: number): void;

  // content-id.ts
  /** Four Toeplitz passes of NH over one page under the expanded key: four little-endian u64 to `outPtr`. For tests only. */
  nh(pagePtr: number, outPtr: number): void;
  /** Expands the 32 bytes at `keyPtr` into the engine's key schedule. */
  setKey(keyPtr: number): void;
  /** Content id of one page, 16 bytes to `outPtr`. */
  contentId(pagePtr: number, outPtr: number): void;
  /** Content ids of consecutive pages, 16 bytes each. */
  contentIds(pagesPtr: number, pages: number, outPtr: number): void;

  // lz4.ts: pages of a window follow each other, and are compressed in their order: the one at `windowPtr` begins a new window
  /**
   * LZ4 block of the `bytes` at `srcPtr`, whose matches may reach back to `windowPtr`, written within `capacityBytes` at `dstPtr`. `acceleration` >= 1
   * trades ratio for speed as liblz4's does. Returns the block's length, or 0 if it does not fit.
   */
  lz4Compress(
    windowPtr: number,
    srcPtr: number,
    bytes: number,
    dstPtr: number,
    capacityBytes: number,
    acceleration: number,
  ): number;
  /**
   * Decodes the LZ4 block of `bytes` at `srcPtr` into exactly `outBytes` at `dstPtr`. Returns 1, or 0 if the block is malformed or does not
   * decode to exactly `outBytes`; whatever the input, nothing is read outside the block or written outside the output.
   */
  lz4Decompress(srcPtr: number, bytes: number, dstPtr: number, outBytes: number): number;
  /** As lz4Decompress, but matches may reach back to `windowPtr`: what lies from there to `dstPtr` was decoded before. */
  lz4DecompressInWindow(windowPtr: number, srcPtr: number, bytes: number, dstPtr: number, outBytes: number): number;

  // lz4-high.ts
  /** As lz4Compress, smaller and slower, of at most 4,096 bytes that end within 256 KiB from `windowPtr` on. */
  lz4CompressHigh(windowPtr: number, srcPtr: number, bytes: number, dstPtr: number, capacityBytes: number): number;

  // dedup.ts
  /** Makes the table of `buckets` (a power of two) buckets at `tablePtr` the engine's: it is empty where its memory is zero. */
  dedupInit(tablePtr: number, buckets: number): void;
  /** Empties the table. */
  dedupClear(): void;
  /** Where the content with the id at `idPtr` is: frameId * 64 + slot, or -1 if the table does not know it. */
  dedupFind(idPtr: number): number;
  /** Remembers that slot `slot` of frame `frameId` holds the content; in a full bucket the oldest entry gives way. */
  dedupInsert(idPtr: number, frameId: number, slot: number): void;

  // place.ts
  /**
   * Chooses `replicas` different nodes for `key` out of the `nodes` entries at NODES_PTR by weighted rendezvous hashing; entries whose
   * weight is not above 0 are passed over. Their indices go to PICKS_PTR as u32, best first. Returns how many were chosen.
   */
  place(key: number, nodes: number, replicas: number): number;

  // bitmap.ts: bit i of byte i >> 3
  bitmapSet(mapPtr: number, index: number): void;
  bitmapClear(mapPtr: number, index: number): void;
  bitmapTest(mapPtr: number, index: number): number;
  /** Sets bits [from, to). */
  bitmapSetRange(mapPtr: number, from: number, to: number): void;
  /** Set bits in [from, to). */
  bitmapCount(mapPtr: number, from: number, to: number): number;
  /** First unset bit in [from, to), or `to`. */
  bitmapNextUnset(mapPtr: number, from: number, to: number): number;

  // frame.ts
  /** Everything about a frame that can be told without a key. Returns 0, or what is wrong with it (FRAME_ERRORS in errors.ts). */
  frameCheck(framePtr: number, bytes: number): number;

  // divide.ts
  /** Which frames are unfetchable: a bit each, by id, at `bitmapPtr`; those beyond its `bits` are too. */
  divideInit(bitmapPtr: number, bits: number): void;
  /**
   * Divides `pages` pages at `pagesPtr` into frames at `outPtr`; their pfns are `base` plus the ascending u32 at BATCH_PFNS_PTR. Returns the
   * number of frames, described at RESULT_PTR, or -1 if they might not fit. Of the pages to be sent the first `tries` are compressed, with high
   * ratio if `acceleration` is 0, through one window across each frame, whose 256 KiB lie at `windowPtr` if they have to be copied together.
   * `naming`: 0 without content ids, 1 with content ids and deduplication, 2 with content ids only, 3 with content ids and deduplication in which what
   * only unfetchable frames hold is new.
   */
  divide(
    pagesPtr: number,
    pages: number,
    vm: number,
    base: number,
    firstId: number,
    outPtr: number,
    outBytes: number,
    acceleration: number,
    tries: number,
    naming: number,
    windowPtr: number,
  ): number;

  // map.ts: page numbers are of the VM, and below its pages. Frames from which pages were taken are described at RESULT_PTR.
  /** The page map: a u64 a page at `wantedPtr`, a bit a page at `mergedPtr`, both zero. */
  mapInit(wantedPtr: number, mergedPtr: number): void;
  /** VM `vm` has `pages` pages, from `first` on in the page map. */
  mapVm(vm: number, first: number, pages: number): void;
  /** What is in place in `vm` stays as it is. */
  mapFreeze(vm: number): void;
  /** Pages from `from` on of `vm` are in place, by the `pages` bits at `bitmapPtr`. */
  mapAdopt(vm: number, from: number, pages: number, bitmapPtr: number): void;
  /** The frame that is to bring page `pfn` of `vm`, or has; 0 if none is known. */
  mapNewest(vm: number, pfn: number): number;
  /** Frame `id` brings the `pages` pages of `vm` at BATCH_PFNS_PTR. Returns how many of them are to come, and in no later one. */
  mapExpect(vm: number, id: number, pages: number): number;
  /** Pages from `from` on of `vm`, by the `pages` (at most 512) bits at `bitmapPtr`, come in frames with the id `floor` or a higher one. */
  mapDiscard(vm: number, from: number, pages: number, bitmapPtr: number, floor: number): void;
  /** 1 if page `pfn` of `vm`, which frame `id` named a duplicate, still waits for its content. */
  mapWaits(vm: number, pfn: number, id: number): number;
  /** The same, and it then counts as merged. */
  settle(vm: number, pfn: number, id: number): number;

  // merge.ts
  /** Checks and decodes a frame; 256 KiB at `outPtr` take the decoded pages. Returns 0, described at RESULT_PTR, or what is wrong. */
  merge(framePtr: number, bytes: number, outPtr: number): number;
  /** 1 if the page at `pagePtr` has the content that the id at `idPtr` names. */
  hasContent(pagePtr: number, idPtr: number): number;
}

/** The most that a frame of `pages` pages can take, in bytes. */
export function frameBound(pages: number): number {
  return 40 + pages * (8 + ID_BYTES + 8) + 16 + pages * PAGE_BYTES + 8;
}

/** What stands before the payload of `frame`, in bytes: header, page table, content ids, references, tag. */
export function frameMetaBytes(frame: Uint8Array): number {
  const count = (at: number) => frame[at]! | (frame[at + 1]! << 8);
  return 40 + 8 * count(28) + ID_BYTES * count(30) + 8 * count(32) + 16;
}

/** Bytes of a frame, at most: 64 pages that do not compress. */
export const MAX_FRAME_BYTES = frameBound(FRAME_PAGES);
