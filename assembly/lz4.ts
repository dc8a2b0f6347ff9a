// LZ4 blocks: compressor and decompressor.
//
// A block is a row of sequences (all numbers little-endian):
//
//   token          literals - 0..15 | match bytes - 4, 0..15      (high | low half of a byte)
//   more literals  if the token says 15: bytes to be added, as long as they are 255
//   literals
//   offset         2 bytes, 1..65535: how far back the match begins
//   more match     as for literals
//
// The last sequence ends after its literals, of which there are at least 5, and no match begins in the last 12 bytes.

import { LZ4_TABLE } from './layout';

/** Hash table: 4,096 entries of 4 bytes. It shares the L1 cache with a page and its block. */
const TABLE_BITS: u32 = 12;
const TABLE_BYTES: usize = 4 << TABLE_BITS;
const MAX_BYTES: u32 = 65536;
/** No match begins in the last 16 bytes (the format asks for 12), so a 16-byte load from any literal before it stays in the source. */
const NO_START: u32 = 16;
/** What the format keeps as literals at the end. */
const LAST_LITERALS: u32 = 5;
/** The smallest sequence that can end a block after a match: a token and the last literals. */
const LAST_SEQUENCE: u32 = 1 + LAST_LITERALS;
/** Misses after which the search takes longer steps: 2^4. */
const SKIP_SHIFT: u32 = 4;

/** Where the next call's positions begin. Entries below it belong to earlier calls; so does the 0 of fresh memory. */
let generation: u32 = 1;

function slotOf(word: u64): usize {
  return LZ4_TABLE + (((((word << 24) * 0x1e3779b97f4a7d) >> (64 - TABLE_BITS)) << 2) as usize);
}

/** Bytes that a length takes behind its token. */
function moreBytes(length: u32): u32 {
  return (length + 240) / 255;
}

function writeMore(to: usize, more: u32): usize {
  while (more >= 255) {
    store<u8>(to++, 255);
    more -= 255;
  }
  store<u8>(to++, more);
  return to;
}

export function lz4Compress(src: usize, bytes: u32, dst: usize, capacity: u32, acceleration: u32): u32 {
  if (bytes > MAX_BYTES) return 0;
  const end = src + bytes;
  const limit = dst + capacity;
  let to = dst;
  let anchor = src;

  if (bytes > NO_START) {
    if (generation > u32.MAX_VALUE - bytes) {
      memory.fill(LZ4_TABLE, 0, TABLE_BYTES);
      generation = 1;
    }
    const base = generation;
    const bias = src - base;
    generation += bytes;

    const lastStart = end - NO_START;
    const matchEnd = end - LAST_LITERALS;
    const firstMisses = min(max(acceleration, 1), MAX_BYTES / 2) << SKIP_SHIFT;
    let at = src + 1;

    while (at <= lastStart) {
      let misses = firstMisses;
      let from: usize;
      let differ: u64;
      while (true) {
        const word = load<u64>(at);
        const slot = slotOf(word);
        const entry = load<u32>(slot);
        store<u32>(slot, at - bias);
        from = bias + (select<u32>(entry, base, entry >= base) as usize);
        differ = load<u64>(from) ^ word;
        if (<u32>differ === 0) break;
        at += misses++ >> SKIP_SHIFT;
        if (at > lastStart) break;
      }
      if (at > lastStart) break;

      // how far it matches
      let after: usize;
      if (differ !== 0) {
        after = at + ((ctz(differ) >> 3) as usize);
      } else {
        after = at + 8;
        const distance = at - from;
        while (after <= end - 8) {
          differ = load<u64>(after) ^ load<u64>(after - distance);
          if (differ !== 0) {
            after += (ctz(differ) >> 3) as usize;
            break;
          }
          after += 8;
        }
        while (after < matchEnd && load<u8>(after) === load<u8>(after - distance)) after++;
        if (after > matchEnd) after = matchEnd;
      }
      const offset = at - from;
      while (at > anchor && from > src && load<u8>(at - 1) === load<u8>(from - 1)) {
        at--;
        from--;
      }

      const literals = (at - anchor) as u32;
      const match = (after - at - 4) as u32;
      const roomy = to + literals + (literals >> 7) + (match >> 7) + 32 <= limit;
      if (!roomy && to + 3 + literals + moreBytes(literals) + moreBytes(match) + LAST_SEQUENCE > limit) return 0;

      const token = to++;
      store<u8>(token, (min(literals, 15) << 4) | min(match, 15));
      if (literals >= 15) to = writeMore(to, literals - 15);
      if (roomy) {
        v128.store(to, v128.load(anchor));
        for (let i: usize = 16; i < literals; i += 16) v128.store(to + i, v128.load(anchor + i));
      } else {
        memory.copy(to, anchor, literals);
      }
      to += literals;
      store<u16>(to, offset);
      to += 2;
      if (match >= 15) to = writeMore(to, match - 15);

      anchor = after;
      at = after;
      if (at <= lastStart) store<u32>(slotOf(load<u64>(at - 2)), at - 2 - bias);
    }
  }

  const literals = (end - anchor) as u32;
  if (1 + literals + moreBytes(literals) > ((limit - to) as u32)) return 0;
  store<u8>(to++, min(literals, 15) << 4);
  if (literals >= 15) to = writeMore(to, literals - 15);
  memory.copy(to, anchor, literals);
  return (to + literals - dst) as u32;
}

/** Indices 0..15 modulo 1..15: repeats the first `offset` bytes of a vector. Row 0 is never used. */
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
]);
/** How far to step after storing such a vector: the largest multiple of `offset` that is at most 16. */
const STRIDE: usize = memory.data<u8>([0, 16, 16, 15, 16, 15, 12, 14, 16, 9, 10, 11, 12, 13, 14, 15]);

export function lz4Decompress(src: usize, bytes: u32, dst: usize, outBytes: u32): u32 {
  const srcEnd = src + bytes;
  const dstEnd = dst + outBytes;
  let from = src;
  let to = dst;

  while (from < srcEnd) {
    const token: u32 = load<u8>(from++);
    let length = token >> 4;
    if (length < 15 && srcEnd - from >= 16 && dstEnd - to >= 16) {
      v128.store(to, v128.load(from));
      from += length;
      to += length;
    } else {
      if (length === 15) {
        let more: u32;
        do {
          if (from >= srcEnd) return 0;
          more = load<u8>(from++);
          length += more;
          if (length > outBytes) return 0;
        } while (more === 255);
      }
      if (length > ((srcEnd - from) as u32) || length > ((dstEnd - to) as u32)) return 0;
      const stop = to + length;
      while (to + 16 <= stop) {
        v128.store(to, v128.load(from));
        from += 16;
        to += 16;
      }
      while (to < stop) store<u8>(to++, load<u8>(from++));
      if (from === srcEnd) return to === dstEnd ? 1 : 0;
      if (srcEnd - from < 2) return 0;
    }

    const offset: u32 = load<u16>(from);
    from += 2;
    length = token & 15;
    if (length === 15) {
      let more: u32;
      do {
        if (from >= srcEnd) return 0;
        more = load<u8>(from++);
        length += more;
        if (length > outBytes) return 0;
      } while (more === 255);
    }
    length += 4;
    if (offset - 1 >= ((to - dst) as u32) || length > ((dstEnd - to) as u32)) return 0;

    const stop = to + length;
    let match = to - offset;
    if (dstEnd - to >= 48) {
      const wildStop = min(stop, dstEnd - 16);
      if (offset >= 16) {
        v128.store(to, v128.load(match));
        v128.store(to, v128.load(match, 16), 16);
        to += 32;
        while (to < wildStop) {
          v128.store(to, v128.load(to - offset));
          to += 16;
        }
      } else {
        const stride = load<u8>(STRIDE + offset) as usize;
        const pattern = v128.swizzle(v128.load(match), v128.load(REPEAT + (offset << 4)));
        v128.store(to, pattern);
        to += stride;
        v128.store(to, pattern);
        to += stride;
        while (to < wildStop) {
          v128.store(to, pattern);
          to += stride;
        }
      }
    }
    while (to < stop) {
      store<u8>(to, load<u8>(to - offset));
      to++;
    }
    to = stop;
  }
  return 0;
}
