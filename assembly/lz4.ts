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
// - its table holds positions modulo 65,536, which is as far as an offset reaches: so each leads to bytes that a match may be made of, and no entry has to be
//   looked at more closely before its bytes match. It is cleared where a window begins, once in a frame;
// - how long a match is comes from comparing 16 bytes and counting zeros, backwards likewise with 8, and not from loops over bytes;
// - right after a match the search goes on at its end with a step of one, so neighbouring matches need no code of their own;
// - what is copied is copied 16 bytes at a time, past its end where there is room: what is written too much is written over by what follows;
// - the decompressor has a path for all sequences that are not near an end, with one check of the room in the block, one of that in the output
//   and two of the offset; what needs more takes the careful path. A match that overlaps itself is a pattern made by one swizzle;
// - conditions that could be one `&&` stand apart with a load or a store between them: else the compiler makes bits of them and combines these,
//   which is six instructions where two branches that are foreseen are two. And the decompressor's fast loop changes `from` and `to` only where it
//   is through with a sequence: V8 then keeps both in registers.
//
// Blocks may refer to a window: bytes that were there before and lie directly before the page. Of a frame's pages, a tenth less is to be sent than if each were
// compressed by itself, in a tenth more time. lz4-high.ts makes blocks for windows too, smaller ones; the decompressor is the same for all of them.
//
//   window                                                  page at hand
//   +-------------------+-------------------+-- ... --+-------------------+
//   | 1st page          | 2nd               |         |  anchor.. at ->   |      a block each
//   +-------------------+-------------------+-- ... --+-------------------+
//                  ^________ offset, 1 to 65,535 ___________|
//
// The decompressor's input comes from the network and is not trusted: each length and offset is checked against what is left of block and
// output before it is used. Nothing here works on a memory of the full 4 GiB, whose end has no address.

import { LZ4_TABLE } from './layout';
import { touch } from './page';

/** More makes no difference. */
const MAX_ACCELERATION: u32 = 32768;
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

/** 16,384 entries of 2 bytes. Twice as many find 0.8 % more, in a tenth more time, half of them 1.7 % less. */
const TABLE_BITS: u32 = 14;
const TABLE_BYTES: usize = 2 << TABLE_BITS;
/** The search steps one byte further after every 2^6 misses, for the first time after 40. With all 64 it is 2 % slower, for 0.3 % fewer bytes. */
const SKIP_SHIFT: u32 = 6;
const SKIP_HEAD_START: u32 = 24;

/** Where in the table the 6 bytes at the low end of `word` belong. The factor has no meaning: odd, and its bits well mixed. */
function slotOf(word: u64): usize {
  return <usize>(((word << 16) * 0x1e3779b97f4a7d) >> (63 - TABLE_BITS)) & (TABLE_BYTES - 2);
}

/** Compresses a page through a window: see bindings/abi.ts. */
export function lz4Compress(
  windowPtr: usize,
  srcPtr: usize,
  bytes: u32,
  dstPtr: usize,
  capacityBytes: u32,
  acceleration: u32,
): u32 {
  const end = srcPtr + bytes;
  const limit = dstPtr + capacityBytes;
  let to = dstPtr;
  /** First byte that is not in the block yet. */
  let anchor = srcPtr;

  touch(srcPtr, bytes);
  // What is in the table now is of another window.
  if (srcPtr === windowPtr) memory.fill(LZ4_TABLE, 0, TABLE_BYTES);
  if (bytes > (NO_START as u32)) {
    const firstMisses = (min(max(acceleration, 1), MAX_ACCELERATION) << SKIP_SHIFT) | SKIP_HEAD_START;
    const last = end - NO_START;
    let at = srcPtr;
    let misses = firstMisses;
    while (at <= last) {
      // Look for 4 bytes that were there before.
      let candidate: usize;
      let step: usize;
      while (true) {
        let word = load<u64>(at);
        let slot = slotOf(word);
        const position = at - windowPtr;
        candidate = at - ((position - <usize>load<u16>(slot, LZ4_TABLE)) & 0xffff);
        store<u16>(slot, position as u16, LZ4_TABLE);
        step = misses >> SKIP_SHIFT;
        misses++;
        if (load<u32>(candidate) === (word as u32)) break;
        at += step;
        if (at > last) break;
      }
      if (at > last) break;
      // An empty entry, one of 65,536 bytes before, or pages that came in another order: go on as if the bytes had differed.
      if (candidate - windowPtr >= at - windowPtr) {
        at += step;
        continue;
      }
      misses = firstMisses;

      const offset = at - candidate;
      const after = endOfMatch(at, offset, end);
      at = startOfMatch(at, offset, anchor, windowPtr);
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
      store<u16>(slotOf(load<u64>(at - 3)), (at - 3 - windowPtr) as u16, LZ4_TABLE);
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
  const last = end - NO_START;
  do {
    const same = i8x16.bitmask(i8x16.eq(v128.load(at), v128.load(at - offset)));
    if (same !== 0xffff) return at + (ctz(~same) as usize);
    at += 16;
  } while (at <= last);
  // The last 16 bytes that may match, less those that are compared already.
  const same = i8x16.bitmask(i8x16.eq(v128.load(last), v128.load(last - offset)));
  return at + (ctz(((~same as u32) | 0x10000) >> ((at - last) as u32)) as usize);
}

/** How far back towards `anchor` the match at `at` reaches. Bytes before `window` may be compared, but do not count. */
function startOfMatch(at: usize, offset: usize, anchor: usize, window: usize): usize {
  let room = min(at - anchor, at - offset - window);
  while (true) {
    const same = (clz(load<u64>(at - 8) ^ load<u64>(at - 8 - offset)) >> 3) as usize;
    const back = min(same, room);
    at -= back;
    room -= back;
    if (same !== 8) return at;
    if (room === 0) return at;
  }
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
/** The largest multiple of n within 16: the pattern of row n begins again that far on. Row 16 is no pattern. */
const PERIOD: usize = memory.data<u8>([0, 16, 16, 15, 16, 15, 12, 14, 16, 9, 10, 11, 12, 13, 14, 15, 0]);
/** What the fast loop reads of a block: a token, a byte of length, literals, and 16 bytes at once where an offset and a byte of length may be all. */
const FAST_READ: usize = 20;
/** What it writes: 14 literals and a match of 18, or 32 bytes at once where one may be all. */
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
    // Sequences that are not near an end, and whose lengths take at most one byte behind the token. Any other ends the loop at its token.
    while (to <= dstFast) {
      if (from > srcFast) break;
      const token: u32 = load<u8>(from);
      let next = from;
      let literals = token >> 4;
      v128.store(to, v128.load(next, 1));
      if (literals === 15) {
        const more: u32 = load<u8>(++next);
        literals += more;
        if (more === 255 || literals > ((srcFast - from) as u32) || literals > ((dstFast - to) as u32)) break;
        for (let i: usize = 0; i < literals; i += 16) v128.store(to + i, v128.load(next + i, 1));
      }
      const start = to + literals;
      next += literals;
      const offset: u32 = load<u16>(next, 1);
      next += 3;
      const match = start - offset;
      if (match < windowPtr) return 0;
      let length = (token & 15) + (MIN_MATCH as u32);
      if (length === 15 + (MIN_MATCH as u32)) {
        const more: u32 = load<u8>(next++);
        length += more;
        if (offset === 0) return 0;
        if (more === 255 || length + FAST_WRITE > ((dstEnd - start) as u32)) break;
        from = next;
        to = start;
        const stop = start + length;
        if (offset >= 16) {
          do {
            v128.store(to, v128.load(to - offset));
            v128.store(to, v128.load(to - offset, 16), 16);
            to += 32;
          } while (to < stop);
        } else {
          const pattern = v128.swizzle(v128.load(match), v128.load(offset << 4, REPEAT));
          const period: usize = load<u8>(offset, PERIOD);
          do {
            v128.store(to, pattern);
            to += period;
          } while (to < stop);
        }
        to = stop;
        continue;
      }
      const row = min(offset, 16);
      v128.store(start, v128.swizzle(v128.load(match), v128.load(row << 4, REPEAT)));
      if (offset === 0) return 0;
      // The last 2 of at most 18 bytes.
      store<u16>(start, load<u16>(start - max(offset, <u32>load<u8>(row, PERIOD)), 16), 16);
      from = next;
      to = start + length;
    }

    // Any sequence. Its token is there: the fast loop ends 2 bytes before the block does, at the latest.
    const token: u32 = load<u8>(from++);
    let length = token >> 4;
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
    const offset: u32 = load<u16>(from);
    from += 2;
    length = token & 15;
    if (length === 15) {
      const more = readMore(from, srcEnd, outBytes);
      if (more === ENDLESS) return 0;
      from += more / 255 + 1;
      length += more;
    }
    length += MIN_MATCH as u32;
    // Offset 0 becomes the largest number there is, and is refused with all that reach back too far.
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
