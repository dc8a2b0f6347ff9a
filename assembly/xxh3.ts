// XXH3-64 with seed 0, as the specification of xxHash has it: the checksum of frames. It finds accidents, not attacks.
//
// Inputs of up to 240 bytes are mixed 16 bytes at a time by 64 x 64 -> 128 bit products. Longer ones go through eight u64 accumulators,
// 64 bytes (a stripe) at a time; the secret moves on by 8 bytes a stripe, and after 16 stripes (a block) the accumulators are scrambled:
//
//   stripe    | d0 | d1 | d2 | d3 | d4 | d5 | d6 | d7 |     u64 each
//   secret    | s0 | s1 | s2 | s3 | s4 | s5 | s6 | s7 |     v[i] = d[i] ^ s[i]
//   acc       | a0 | a1 | a2 | a3 | a4 | a5 | a6 | a7 |     a[i] += low32(v[i]) * high32(v[i]);  a[i ^ 1] += d[i]
//
// Why it is as fast as it is:
// - `i64x2.mul` costs three multiplications and five more instructions. `extmul` costs one and two shuffles, but wants its factors in
//   two vectors. So the low and the high halves of two vectors are gathered first:
//
//     v01 = | v0.lo v0.hi v1.lo v1.hi |      low  = | v0.lo v1.lo v2.lo v3.lo |      extmul_low  -> products of v0, v1
//     v23 = | v2.lo v2.hi v3.lo v3.hi |      high = | v0.hi v1.hi v2.hi v3.hi |      extmul_high -> products of v2, v3
//
// - a[i ^ 1] would need each vector of data with its lanes swapped. Sums do not mind order: the data is summed as it lies, in four
//   vectors of its own, and swapped once a block.
// - Those eight vectors and one stripe are about what 16 registers hold. Unrolling spills them, and made it up to a fifth slower.
// - What is left, 28 vector instructions a stripe, is what a CPU with three vector ports can take; libxxhash needs 12 with AVX2.

import { touch } from './page';

const P32_1: u64 = 0x9e3779b1;
const P32_2: u64 = 0x85ebca77;
const P32_3: u64 = 0xc2b2ae3d;
const P64_1: u64 = 0x9e3779b185ebca87;
const P64_2: u64 = 0xc2b2ae3d27d4eb4f;
const P64_3: u64 = 0x165667b19e3779f9;
const P64_4: u64 = 0x85ebca77c2b2ae63;
const P64_5: u64 = 0x27d4eb2f165667c5;
const MIX_1: u64 = 0x165667919e3779f9;
const MIX_2: u64 = 0x9fb21c651e98df25;

/** The default secret of XXH3. */
const SECRET: usize = memory.data<u8>([
  0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4, 0x6d,
  0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0,
  0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0,
  0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b,
  0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac,
  0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51,
  0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34,
  0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49,
  0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8,
  0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b,
  0x40, 0x7e,
]);
const SECRET_BYTES: usize = 192;
const STRIPE_BYTES: usize = 64;
/** 16 stripes: the secret's 192 bytes less a stripe's 64, in steps of 8. */
const BLOCK_BYTES: usize = 1024;
/** What the stripes of a block do not reach as a beginning: the last 64 bytes. */
const SCRAMBLE_SECRET: usize = SECRET + SECRET_BYTES - STRIPE_BYTES;
/** The last stripe's place, which no other has. */
const LAST_SECRET: usize = SCRAMBLE_SECRET - 7;
const MERGE_SECRET: usize = SECRET + 11;

/** XXH3-64 of the `bytes` at `ptr`, to `outPtr` as a little-endian u64. */
export function xxh3(ptr: usize, bytes: u32, outPtr: usize): void {
  touch(ptr, bytes);
  store<u64>(outPtr, xxh3Of(ptr, bytes));
}

/** XXH3-64 of the `bytes` at `ptr`. */
export function xxh3Of(ptr: usize, bytes: u32): u64 {
  if (bytes > 240) return long(ptr, bytes);
  if (bytes > 128) return upTo240(ptr, bytes);
  if (bytes > 16) return upTo128(ptr, bytes);
  return upTo16(ptr, bytes);
}

/** Spreads the bits of a nearly finished hash. */
function avalanche(x: u64): u64 {
  x = (x ^ (x >> 37)) * MIX_1;
  return x ^ (x >> 32);
}

/** The same as XXH64 does it, which the shortest inputs kept. */
function avalanche64(x: u64): u64 {
  x = (x ^ (x >> 33)) * P64_2;
  x = (x ^ (x >> 29)) * P64_3;
  return x ^ (x >> 32);
}

/** Both halves of the 128-bit product, xored. WebAssembly multiplies to 64 bits at most, hence from four products of halves. */
function fold(a: u64, b: u64): u64 {
  const low = <u64>(<u32>a) * <u64>(<u32>b);
  const cross = (a >> 32) * <u64>(<u32>b);
  const middle = <u64>(<u32>a) * (b >> 32) + (low >> 32) + <u64>(<u32>cross);
  return ((a >> 32) * (b >> 32) + (cross >> 32) + (middle >> 32)) ^ (a * b);
}

/** Mixes the 16 bytes at `ptr` with the 16 bytes at `secret`. */
function mix(ptr: usize, secret: usize): u64 {
  return fold(load<u64>(ptr) ^ load<u64>(secret), load<u64>(ptr, 8) ^ load<u64>(secret, 8));
}

function upTo16(ptr: usize, bytes: u32): u64 {
  const end = ptr + bytes;
  if (bytes > 8) {
    const first = load<u64>(SECRET, 24) ^ load<u64>(SECRET, 32) ^ load<u64>(ptr);
    const last = load<u64>(SECRET, 40) ^ load<u64>(SECRET, 48) ^ load<u64>(end - 8);
    return avalanche(<u64>bytes + bswap<u64>(first) + last + fold(first, last));
  }
  if (bytes > 3) {
    const both = <u64>load<u32>(end - 4) | ((<u64>load<u32>(ptr)) << 32);
    let x = load<u64>(SECRET, 8) ^ load<u64>(SECRET, 16) ^ both;
    x = (x ^ rotl<u64>(x, 49) ^ rotl<u64>(x, 24)) * MIX_2;
    x = (x ^ ((x >> 35) + <u64>bytes)) * MIX_2;
    return x ^ (x >> 28);
  }
  if (bytes > 0) {
    const first = <u32>load<u8>(ptr);
    const middle = <u32>load<u8>(ptr + (bytes >> 1));
    const all = <u32>load<u8>(end - 1) | (bytes << 8) | (first << 16) | (middle << 24);
    return avalanche64(<u64>(load<u32>(SECRET) ^ load<u32>(SECRET, 4) ^ all));
  }
  return avalanche64(load<u64>(SECRET, 56) ^ load<u64>(SECRET, 64));
}

/** 17 to 128 bytes: in pairs of 16 bytes from both ends, the outermost first; in the middle they may overlap. */
function upTo128(ptr: usize, bytes: u32): u64 {
  let acc = <u64>bytes * P64_1;
  let end = ptr + bytes - 16;
  let secret = SECRET;
  for (let pairs = (bytes + 31) >> 5; pairs > 0; pairs--) {
    acc += mix(ptr, secret) + mix(end, secret + 16);
    ptr += 16;
    end -= 16;
    secret += 32;
  }
  return avalanche(acc);
}

/** 129 to 240 bytes: from the front, spread after 128 bytes; then the secret is used once more, 3 bytes further on. */
function upTo240(ptr: usize, bytes: u32): u64 {
  let acc = <u64>bytes * P64_1;
  for (let at: usize = 0; at < 128; at += 16) acc += mix(ptr + at, SECRET + at);
  acc = avalanche(acc);
  const whole = <usize>(bytes & ~15);
  for (let at: usize = 128; at < whole; at += 16) acc += mix(ptr + at, SECRET + at - 125);
  return avalanche(acc + mix(ptr + bytes - 16, SECRET + 119));
}

/** The low halves of four u64. */
function lows(a: v128, b: v128): v128 {
  return v128.shuffle<u32>(a, b, 0, 2, 4, 6);
}

/** The high halves of four u64. */
function highs(a: v128, b: v128): v128 {
  return v128.shuffle<u32>(a, b, 1, 3, 5, 7);
}

/** `sum` and what was summed of the data, which belongs to the neighbouring lane. */
function settle(sum: v128, data: v128): v128 {
  return i64x2.add(sum, v128.shuffle<u64>(data, data, 1, 0));
}

/** What ends a block, for two accumulators. */
function scramble(acc: v128, secret: v128): v128 {
  return i64x2.mul(v128.xor(v128.xor(acc, i64x2.shr_u(acc, 47)), secret), i64x2.splat(P32_1));
}

/** Two accumulators at the end. */
function merge(acc: v128, secret: v128): u64 {
  const x = v128.xor(acc, secret);
  return fold(i64x2.extract_lane(x, 0), i64x2.extract_lane(x, 1));
}

/** Where the stripes of the block at `ptr` end, unless those before the `last` end sooner. The sum of addresses might overflow. */
function blockEnd(ptr: usize, last: usize): usize {
  return last - ptr > BLOCK_BYTES ? ptr + BLOCK_BYTES : last;
}

/**
 * More than 240 bytes. The inner loop takes stripes until something else is to be done: at the end of a block to scramble, before the end of
 * the input to go on with the last stripe. At least one stripe lies between two such stops.
 */
function long(ptr: usize, bytes: u32): u64 {
  let acc01 = i64x2(P32_3, P64_1);
  let acc23 = i64x2(P64_2, P64_3);
  let acc45 = i64x2(P64_4, P32_2);
  let acc67 = i64x2(P64_5, P32_1);
  let data01 = i64x2.splat(0);
  let data23 = data01;
  let data45 = data01;
  let data67 = data01;
  const end = ptr + bytes;
  // The last stripe is the last 64 bytes, whatever they overlap with.
  const last = end - STRIPE_BYTES;
  let secret = SECRET;
  let stop = blockEnd(ptr, last);
  for (;;) {
    do {
      const d01 = v128.load(ptr);
      const d23 = v128.load(ptr, 16);
      const d45 = v128.load(ptr, 32);
      const d67 = v128.load(ptr, 48);
      data01 = i64x2.add(data01, d01);
      data23 = i64x2.add(data23, d23);
      data45 = i64x2.add(data45, d45);
      data67 = i64x2.add(data67, d67);
      const v01 = v128.xor(d01, v128.load(secret));
      const v23 = v128.xor(d23, v128.load(secret, 16));
      const v45 = v128.xor(d45, v128.load(secret, 32));
      const v67 = v128.xor(d67, v128.load(secret, 48));
      const low0123 = lows(v01, v23);
      const high0123 = highs(v01, v23);
      const low4567 = lows(v45, v67);
      const high4567 = highs(v45, v67);
      acc01 = i64x2.add(acc01, i64x2.extmul_low_i32x4_u(low0123, high0123));
      acc23 = i64x2.add(acc23, i64x2.extmul_high_i32x4_u(low0123, high0123));
      acc45 = i64x2.add(acc45, i64x2.extmul_low_i32x4_u(low4567, high4567));
      acc67 = i64x2.add(acc67, i64x2.extmul_high_i32x4_u(low4567, high4567));
      ptr += STRIPE_BYTES;
      secret += 8;
    } while (ptr < stop);
    if (ptr === end) break; // only the last stripe ends there
    if (secret === SCRAMBLE_SECRET) {
      acc01 = scramble(settle(acc01, data01), v128.load(SCRAMBLE_SECRET));
      acc23 = scramble(settle(acc23, data23), v128.load(SCRAMBLE_SECRET, 16));
      acc45 = scramble(settle(acc45, data45), v128.load(SCRAMBLE_SECRET, 32));
      acc67 = scramble(settle(acc67, data67), v128.load(SCRAMBLE_SECRET, 48));
      data01 = i64x2.splat(0);
      data23 = data01;
      data45 = data01;
      data67 = data01;
      secret = SECRET;
      stop = blockEnd(ptr, last);
    }
    if (ptr >= last) {
      ptr = last;
      secret = LAST_SECRET;
      stop = end;
    }
  }
  return avalanche(
    <u64>bytes * P64_1 +
      merge(settle(acc01, data01), v128.load(MERGE_SECRET)) +
      merge(settle(acc23, data23), v128.load(MERGE_SECRET, 16)) +
      merge(settle(acc45, data45), v128.load(MERGE_SECRET, 32)) +
      merge(settle(acc67, data67), v128.load(MERGE_SECRET, 48)),
  );
}
