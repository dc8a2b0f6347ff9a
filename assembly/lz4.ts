// LZ4 blocks: pages are small when they leave, and whole again when they arrive.
//
// A block is a row of sequences, little-endian:
//
//   +-------+-------------------+----------+--------+----------------+
//   | token | more of literals  | literals | offset | more of match  |      token: literals (high 4 bits), match bytes - 4 (low 4 bits)
//   +-------+-------------------+----------+--------+----------------+      15 means: add the bytes of `more` up to the first below 255
//                                                                           offset: u16, how far back the match begins, from 1
//
// The last sequence ends after its literals. The last 5 bytes are literals, and no match begins in the last 12.
//
// Why it is as fast as it is. A page becomes some 200 sequences, and a sequence costs what its mispredicted branches and its longest chain of
// dependent instructions cost. So
//
// - the compressor hashes 6 bytes, not the 4 that a match needs: short matches save next to nothing and cost as much as long ones
//   (a tenth faster for 1.6 % more bytes), and it takes longer steps soon after it stops finding anything;
// - its table is never cleared between pages (see `generation`), and whether an entry is of this page is decided without a branch;
// - how long a match is comes from comparing 16 bytes and counting zeros, backwards likewise with 8, and not from loops over bytes;
// - right after a match the search goes on at its end with a step of one, so neighbouring matches need no code of their own;
// - what is copied is copied 16 bytes at a time, past its end where there is room: what is written too much is written over by what follows;
// - the decompressor has one path for the common sequence (short literals, short match, not near an end), with two checks of
//   room and one of the offset; everything else takes the careful path. A match that overlaps itself is a pattern made by one swizzle.
//
// Blocks may stand alone, or refer to a window: bytes that were decompressed before and lie directly before the output. The decompressor is the same
// for both, it only asks elsewhere how far back a match may reach; the compressor for windows is in lz4-high.ts.
//
// The decompressor's input comes from the network and is not trusted: each length and offset is checked against what is left of block and
// output before it is used. Nothing here works on a memory of the full 4 GiB, whose end has no address.

import { LZ4_TABLE } from './layout';
import { touch } from './page';

const MAX_BYTES: u32 = 65536;
/** The shortest match there is in the format. */
export const MIN_MATCH: usize = 4;
export const LAST_LITERALS: usize = 5;
/** What the shortest last sequence takes: a token and its literals. */
export const LAST_SEQUENCE: usize = 1 + LAST_LITERALS;
/**
 * No match begins in the last 21 bytes. The format asks for 12; with 21, the 16 bytes at any start can be loaded and compared, and may all be
 * the match, without a look at where the last literals begin.
 */
export const NO_START: usize = 21;
/** More than what a sequence can take beyond the bytes it stands for, and what a copy can write past its end. */
const ROOM: usize = 320;

/** 8,192 entries of 4 bytes: with a page it fits an L1 cache of 48 KiB. Half of them find 0.3 % less, and are no faster. */
const TABLE_BITS: u32 = 13;
const TABLE_BYTES: usize = 4 << TABLE_BITS;
/** The search steps one byte further after every 2^5 misses. With 2^4 it is 4 % faster, for 1.4 % more bytes. */
const SKIP_SHIFT: u32 = 5;

/**
 * The table holds positions in the source, counted from this number, and each call moves it past what it used. Entries below it are of
 * earlier calls, or the zeros of fresh memory: the table is never cleared but when the numbers have run out.
 */
let generation: u32 = 1;

/** Where in the table the 6 bytes at the low end of `word` belong. The factor has no meaning: odd, and its bits well mixed. */
function slotOf(word: u64): usize {
  return ((((word << 16) * 0x1e3779b97f4a7d) >> (64 - TABLE_BITS)) << 2) as usize;
}

/** Compresses a block: see bindings/abi.ts. */
export function lz4Compress(srcPtr: usize, bytes: u32, dstPtr: usize, capacityBytes: u32, acceleration: u32): u32 {
  if (bytes > MAX_BYTES) return 0;
  const end = srcPtr + bytes;
  const limit = dstPtr + capacityBytes;
  let to = dstPtr;
  /** First byte that is not in the block yet. */
  let anchor = srcPtr;

  touch(srcPtr, bytes);
  if (bytes > (NO_START as u32)) {
    if (generation > u32.MAX_VALUE - bytes) {
      memory.fill(LZ4_TABLE, 0, TABLE_BYTES);
      generation = 1;
    }
    const base = generation;
    /** Turns an entry into an address. */
    const bias = srcPtr - base;
    generation += bytes;

    const firstMisses = min(max(acceleration, 1), MAX_BYTES / 2) << SKIP_SHIFT;
    let at = srcPtr + 1;
    while (at <= end - NO_START) {
      // Look for 4 bytes that were there before. A stale entry stands for the first byte, which is as good as any.
      let candidate: usize;
      let misses = firstMisses;
      while (true) {
        const word = load<u64>(at);
        const slot = slotOf(word);
        const entry = load<u32>(slot, LZ4_TABLE);
        store<u32>(slot, (at - bias) as u32, LZ4_TABLE);
        candidate = bias + (select<u32>(base, entry, entry < base) as usize);
        if (load<u32>(candidate) === (word as u32)) break;
        at += misses++ >> SKIP_SHIFT;
        if (at > end - NO_START) break;
      }
      if (at > end - NO_START) break;

      const offset = at - candidate;
      const after = endOfMatch(at, offset, end);
      at = startOfMatch(at, offset, anchor, srcPtr);
      const literals = at - anchor;
      const match = after - at - MIN_MATCH;

      // A page that cannot win stops here, at the first sequence after which the block must be too long.
      const isRoomy = limit - to >= after - anchor + ROOM;
      if (!isRoomy && limit - to < 3 + literals + moreBytes(literals) + moreBytes(match) + LAST_SEQUENCE) return 0;

      store<u8>(to++, (min(literals, 15) << 4) | min(match, 15));
      if (literals >= 15) to = writeMore(to, literals - 15);
      if (isRoomy) {
        // What is read too much is in the source still: it goes on for NO_START bytes at least.
        v128.store(to, v128.load(anchor));
        for (let i: usize = 16; i < literals; i += 16) v128.store(to + i, v128.load(anchor + i));
      } else {
        memory.copy(to, anchor, literals);
      }
      to += literals;
      store<u16>(to, offset as u16);
      to += 2;
      if (match >= 15) to = writeMore(to, match - 15);

      at = anchor = after;
      // One position inside the match, near its end, is worth remembering; 3 is as near as can be loaded from without looking.
      store<u32>(slotOf(load<u64>(at - 3)), (at - 3 - bias) as u32, LZ4_TABLE);
    }
  }

  const literals = end - anchor;
  if (limit - to < 1 + moreBytes(literals) + literals) return 0;
  store<u8>(to++, min(literals, 15) << 4);
  if (literals >= 15) to = writeMore(to, literals - 15);
  memory.copy(to, anchor, literals);
  return (to + literals - dstPtr) as u32;
}

/** Where the match of the bytes at `at` with those `offset` before them ends. `at` is NO_START or more before `end`. */
export function endOfMatch(at: usize, offset: usize, end: usize): usize {
  while (true) {
    const differ = i8x16.bitmask(i8x16.ne(v128.load(at), v128.load(at - offset)));
    if (differ !== 0) return at + (ctz(differ) as usize);
    at += 16;
    if (at > end - NO_START) break;
  }
  while (at < end - LAST_LITERALS && load<u8>(at) === load<u8>(at - offset)) at++;
  return at;
}

/** How far back towards `anchor` the match at `at` reaches. */
function startOfMatch(at: usize, offset: usize, anchor: usize, src: usize): usize {
  if (at - offset < src + 8) {
    while (at > anchor && at - offset > src && load<u8>(at - 1) === load<u8>(at - 1 - offset)) at--;
    return at;
  }
  let same: usize;
  do {
    same = (clz(load<u64>(at - 8) ^ load<u64>(at - 8 - offset)) >> 3) as usize;
    at -= min(same, at - anchor);
  } while (same === 8 && at > anchor && at - offset >= src + 8);
  return at;
}

/** How many bytes a length takes behind its token. */
export function moreBytes(length: usize): usize {
  return (length + 240) / 255;
}

/** Writes what a token could not say of a length; returns the address behind it. */
export function writeMore(to: usize, more: usize): usize {
  while (more >= 255) {
    store<u8>(to++, 255);
    more -= 255;
  }
  store<u8>(to, more as u8);
  return to + 1;
}

/** Row n < 16: 0, 1, 2 ... modulo n, which makes a swizzle repeat the first n bytes of a vector. Row 16 leaves the vector as it is. */
// biome-ignore format: one row per offset
const REPEAT: usize = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
  0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0,
  0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0,
  0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
]);
/** The largest multiple of n within 16: the pattern of row n begins again that far on. */
const PERIOD: usize = memory.data<u8>([0, 16, 16, 15, 16, 15, 12, 14, 16, 9, 10, 11, 12, 13, 14, 15, 16]);
/** What the common sequence reads of the block behind its token, at most: 16 bytes of literals, or 14 and an offset. */
const FAST_READ: usize = 16;
/** What it writes, at most: 14 literals and a match of 18. */
const FAST_WRITE: usize = 32;
/** A length that does not end within its block. No real one comes near. */
const ENDLESS: u32 = u32.MAX_VALUE;

/** Decompresses a block: see bindings/abi.ts. */
export function lz4Decompress(srcPtr: usize, bytes: u32, dstPtr: usize, outBytes: u32): u32 {
  touch(srcPtr, bytes);
  return lz4DecompressInWindow(dstPtr, srcPtr, bytes, dstPtr, outBytes);
}

/** Decompresses a block whose matches may reach back to `windowPtr`, at or before `dstPtr`: see bindings/abi.ts. */
export function lz4DecompressInWindow(windowPtr: usize, srcPtr: usize, bytes: u32, dstPtr: usize, outBytes: u32): u32 {
  const srcEnd = srcPtr + bytes;
  const dstEnd = dstPtr + outBytes;
  const srcFast = srcEnd - FAST_READ;
  const dstFast = dstEnd - FAST_WRITE;
  let from = srcPtr;
  let to = dstPtr;

  while (from < srcEnd) {
    const token: u32 = load<u8>(from++);
    let length = token >> 4;
    let offset: u32;
    if (length < 15 && from <= srcFast && to <= dstFast) {
      v128.store(to, v128.load(from));
      from += length;
      to += length;
      offset = load<u16>(from);
      from += 2;
      length = token & 15;
      if (length < 15) {
        // Offset 0 becomes the largest number there is, and is refused with all that reach back too far.
        if (offset - 1 >= ((to - windowPtr) as u32)) return 0;
        const row = min(offset, 16);
        v128.store(to, v128.swizzle(v128.load(to - offset), v128.load(REPEAT + (row << 4))));
        // The last 2 of at most 18 bytes.
        const back = select<u32>(offset, load<u8>(PERIOD + row), offset >= 16);
        store<u16>(to + 16, load<u16>(to + 16 - back));
        to += length + (MIN_MATCH as u32);
        continue;
      }
    } else {
      if (length === 15) {
        const more = readMore(from, srcEnd, outBytes);
        if (more === ENDLESS) return 0;
        from += more / 255 + 1;
        length += more;
      }
      if (length > ((srcEnd - from) as u32) || length > ((dstEnd - to) as u32)) return 0;
      copyLiterals(from, srcEnd, to, dstEnd, length);
      from += length;
      to += length;
      if (from === srcEnd) return to === dstEnd ? 1 : 0;
      if (srcEnd - from < 2) return 0;
      offset = load<u16>(from);
      from += 2;
      length = token & 15;
    }

    if (length === 15) {
      const more = readMore(from, srcEnd, outBytes);
      if (more === ENDLESS) return 0;
      from += more / 255 + 1;
      length += more;
    }
    length += MIN_MATCH as u32;
    if (offset - 1 >= ((to - windowPtr) as u32) || length > ((dstEnd - to) as u32)) return 0;
    copyMatch(to, dstEnd, offset, length);
    to += length;
  }
  return 0;
}

/** What follows a token about a length: the sum of the bytes up to the first below 255. ENDLESS if there is none, or it exceeds `most`. */
function readMore(from: usize, srcEnd: usize, most: u32): u32 {
  let sum: u32 = 0;
  while (from < srcEnd && sum <= most) {
    const more: u32 = load<u8>(from++);
    sum += more;
    if (more !== 255) return sum;
  }
  return ENDLESS;
}

/** Copies literals, where both ends are known to have room for them. */
function copyLiterals(from: usize, srcEnd: usize, to: usize, dstEnd: usize, length: u32): void {
  const stop = to + length;
  if (srcEnd - from >= length + 32 && dstEnd - to >= length + 32) {
    do {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      from += 32;
      to += 32;
    } while (to < stop);
    return;
  }
  while (stop - to >= 16) {
    v128.store(to, v128.load(from));
    from += 16;
    to += 16;
  }
  while (to < stop) store<u8>(to++, load<u8>(from++));
}

/** Copies a match, where the output is known to have room for it, and `offset` bytes before it. */
function copyMatch(to: usize, dstEnd: usize, offset: usize, length: usize): void {
  const stop = to + length;
  // As long as 16 bytes stay within the output; then one by one.
  const wideStop = min(stop, dstEnd - 15);
  if (offset >= 16) {
    if (dstEnd - to >= 32) {
      // Most are done after 32 bytes, and these need no loop that has to be predicted.
      v128.store(to, v128.load(to - offset));
      v128.store(to, v128.load(to - offset + 16), 16);
      to += 32;
    }
    while (to < wideStop) {
      v128.store(to, v128.load(to - offset));
      to += 16;
    }
  } else if (to < wideStop) {
    const pattern = v128.swizzle(v128.load(to - offset), v128.load(REPEAT + (offset << 4)));
    const period: usize = load<u8>(PERIOD + offset);
    do {
      v128.store(to, pattern);
      to += period;
    } while (to < wideStop);
  }
  while (to < stop) {
    store<u8>(to, load<u8>(to - offset));
    to++;
  }
}
