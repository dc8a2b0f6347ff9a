// LZ4 for links that are slower than a core: matches are searched for longer.
//
// Blocks, and the window across a frame, are those of lz4.ts. The table has a row for each hash of 5 bytes, of the last eight positions that had it:
//
//   +---------------+---------------+-- ... --+---------------+
//   | newest mark   | the one before|         | eighth        |      mark, u32: 13 further bits of the hash | 19 bits of 65,536 + position
//   +---------------+---------------+-- ... --+---------------+      in the window; so that none is near an empty place, 0
//
// Why it is as fast as it is. Chains of positions, the usual way to search for longer, are walked one dependent load after the other, and most of
// what they lead to has nothing in common with the bytes at hand. A row is two vectors: taken from the mark at hand they leave distances where the
// hash agrees, and large numbers where it does not or the position is out of reach. Two comparisons find all that is worth a look, which most
// often is nothing, and that is one branch. It searches eight deep in four fifths of the time of a chain four deep.
//
// The decoder is kept in mind too. Of two matches of a length it takes the one that is not near: what was written a moment ago, in pieces, is read
// back across them only after a stall. That alone makes these blocks decode as fast as the default's, though they have a tenth more sequences.
//
// What it declines. Matches of 4 bytes: they save a byte each and cost the decoder as much as long ones. The cheapest way through all
// matches of a page, found backwards from its end: a hundredth smaller, in twice the time. Rows of sixteen: half a hundredth, in a fifth more.

import { LZ4_ROWS, PAGE_BYTES } from './layout';
import { endOfMatch, LAST_SEQUENCE, MIN_MATCH, moreBytes, NO_START, writeMore } from './lz4';

/** A frame's pages, all of them. */
const WINDOW_BYTES: usize = 262144;
const REACH: u32 = 65535;

/** 8,192 rows of 32 bytes. */
const ROW_BITS: u32 = 13;
const ROW_BYTES_BITS: u32 = 5;
const ROWS_BYTES: usize = 1 << (ROW_BITS + ROW_BYTES_BITS);
const POSITION_BITS: u32 = 19;

/** The shortest match that is searched for: as many bytes as are hashed. */
const MIN_FOUND: usize = 5;
/** A match that begins less far back gives way to one of the same length. */
const NEAR: usize = 32;
/** A match this long is taken without a look at what begins behind its first byte. */
const LONG: u32 = 64;
/** How many bytes behind its first a longer match may begin, for which it gives way. With more than 2, `least` would lead past the page's end. */
const PATIENCE: usize = 2;
/** The search steps one byte further after every 2^6 misses. */
const SKIP_SHIFT: u32 = 6;
const NO_MISSES: u32 = 1 << SKIP_SHIFT;
/** Every other byte at the end of a match that was taken is entered into the table. What is before them is in it already, from where the match began. */
const ENTERED: usize = 32;

/** Of the 5 bytes at `at`. The factor has no meaning: odd, and its bits well mixed. */
function hashOf(at: usize): u64 {
  return (load<u64>(at) << 24) * 0x9e3779b97f4a7c15;
}

function rowOf(hash: u64): usize {
  return LZ4_ROWS + (((hash >> (64 - ROW_BITS)) << ROW_BYTES_BITS) as usize);
}

function markOf(hash: u64, position: usize): u32 {
  return (((hash >> 20) as u32) << POSITION_BITS) | ((position as u32) + REACH + 1);
}

/** Bit n: place n of the row has the hash of `mark` and is 1 to 65,535 bytes before it. Whatever the row holds, that is never before the window. */
function hitsOf(row: usize, mark: u32): i32 {
  const marks = i32x4.splat(mark - 1);
  const reach = i32x4.splat(REACH);
  const newer = i32x4.lt_u(i32x4.sub(marks, v128.load(row)), reach);
  const older = i32x4.lt_u(i32x4.sub(marks, v128.load(row, 16)), reach);
  return i16x8.bitmask(i16x8.narrow_i32x4_s(newer, older));
}

/** Puts a mark in front of its row; the eighth falls out. */
function enter(row: usize, mark: u32): void {
  const newer = v128.load(row);
  const older = v128.load(row, 16);
  v128.store(row, i8x16.shuffle(i32x4.splat(mark), newer, 0, 1, 2, 3, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27));
  v128.store(row, i8x16.shuffle(newer, older, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27), 16);
}

/** Compresses a page through a window: see bindings/abi.ts. */
export function lz4CompressHigh(windowPtr: usize, srcPtr: usize, bytes: u32, dstPtr: usize, capacityBytes: u32): u32 {
  if (bytes > PAGE_BYTES || srcPtr < windowPtr || srcPtr - windowPtr > WINDOW_BYTES - bytes) return 0;
  // What is in the table now is of another window.
  if (srcPtr === windowPtr) memory.fill(LZ4_ROWS, 0, ROWS_BYTES);
  const end = srcPtr + bytes;
  const limit = dstPtr + capacityBytes;
  let to = dstPtr;
  /** First byte that is not in the block yet. */
  let anchor = srcPtr;
  /** The best match since then, length << 16 | offset, and where it begins. */
  let match: u32 = 0;
  let start: usize = 0;
  let at = srcPtr;
  let misses = NO_MISSES;

  while (true) {
    if (at + NO_START <= end) {
      const hash = hashOf(at);
      const row = rowOf(hash);
      const mark = markOf(hash, at - windowPtr);
      // What begins later has to be longer by the bytes that it comes too late.
      let least: usize = match === 0 ? MIN_FOUND : (match >> 16) + (at - start);
      let better: u32 = 0;
      for (let hits = hitsOf(row, mark); hits !== 0; hits &= hits - 1) {
        const offset = (mark - load<u32>(row + ((ctz(hits) as usize) << 2))) as usize;
        // Its last 4 bytes first: they tell most of what is too short.
        if (load<u32>(at + least - 4) !== load<u32>(at + least - 4 - offset)) continue;
        const length = endOfMatch(at, offset, end) - at;
        if (length >= least) {
          least = length + usize(offset >= NEAR);
          better = ((length as u32) << 16) | (offset as u32);
          if (length >= LONG) break;
        }
      }
      enter(row, mark);
      if (better !== 0) {
        match = better;
        start = at++;
        if (better >> 16 < LONG) continue;
      } else if (match === 0) {
        at += misses++ >> SKIP_SHIFT;
        continue;
      } else if (++at - start <= PATIENCE) continue;
    } else if (match === 0) break;

    const offset = match & 0xffff;
    const after = start + (match >> 16);
    while (start > anchor && start - offset > windowPtr && load<u8>(start - 1) === load<u8>(start - 1 - offset))
      start--;
    const literals = start - anchor;
    const more = after - start - MIN_MATCH;

    // A page that cannot win stops here, at the first sequence after which the block must be too long.
    if (limit - to < 3 + literals + moreBytes(literals) + moreBytes(more) + LAST_SEQUENCE) return 0;
    store<u8>(to++, (min(literals, 15) << 4) | min(more, 15));
    if (literals >= 15) to = writeMore(to, literals - 15);
    if (limit - to >= literals + 16) {
      // What is read too much is in the page still: a match follows, and NO_START bytes.
      for (let i: usize = 0; i < literals; i += 16) v128.store(to + i, v128.load(anchor + i));
    } else {
      memory.copy(to, anchor, literals);
    }
    to += literals;
    store<u16>(to, offset as u16);
    to += 2;
    if (more >= 15) to = writeMore(to, more - 15);

    const stop = min(after, end - NO_START + 1);
    for (at = max(at, after - ENTERED); at < stop; at += 2) {
      const hash = hashOf(at);
      enter(rowOf(hash), markOf(hash, at - windowPtr));
    }
    at = anchor = after;
    match = 0;
    misses = NO_MISSES;
  }

  const literals = end - anchor;
  if (limit - to < 1 + moreBytes(literals) + literals) return 0;
  store<u8>(to++, min(literals, 15) << 4);
  if (literals >= 15) to = writeMore(to, literals - 15);
  memory.copy(to, anchor, literals);
  return (to + literals - dstPtr) as u32;
}
