// The content id: a keyed 128-bit name of a page's bytes. Two pages with the same id are taken for the same page, and guests choose what
// their pages hold, so a guest must not be able to make two pages collide. Hence no plain checksum (xxh3.ts), but hash, then encrypt:
//
//   page 4,096 B --NH, four passes--> 4 x u64 = 32 B --SipHash-2-4-128--> content id 16 B
//
// NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC: Fast and Secure Message Authentication", CRYPTO '99) is a universal hash: over the
// choice of its key, two different pages get the same four sums with a probability of about 2^-128. It is not a pseudorandom function:
// sums give away the key. They leave this file only through SipHash under a key of its own (and `nh`, for tests).
//
// A group is 32 bytes of the page: words m0..m3 in one vector, m4..m7 in the next. One pass adds a word of key to each word of the page
// mod 2^32 and sums, mod 2^64, the products of the words that lie one above the other:
//
//   page      |  m0   m1   m2   m3  |                  m0+k0    m1+k1    m2+k2    m3+k3
//             |  m4   m5   m6   m7  |     sum  +=        x    +   x    +   x    +   x
//   key       |  k0   k1   k2   k3  |                  m4+k4    m5+k5    m6+k6    m7+k7
//             |  k4   k5   k6   k7  |
//
// A pass is good for 2^-32. Four passes need four keys; as Toeplitz has it, those of pass p begin p vectors (16 bytes) further on in the
// same key, which needs 256 + 3 vectors instead of 1,024:
//
//   key vector    0    1    2    3    4    5   ...  254  255  256  257  258
//   pass 0        [ group 0 ][ group 1 ]           [group 127]
//   pass 1             [ group 0 ][ group 1 ]           [group 127]
//   pass 2                  [ group 0 ][ group 1 ]           [group 127]
//   pass 3                       [ group 0 ][ group 1 ]           [group 127]
//
// Why it is as fast as it is: UMAC's pairing puts factors into the same lane of two vectors, so that none has to move to meet its partner,
// and nothing depends on anything but the four sums. The engine can multiply 32 x 32 -> 64 bits only by `extmul`, which costs two shuffles
// and a multiplication for two products. With its additions that makes 40 vector instructions for four passes over a group, which keeps
// three vector ports busy in every cycle. Beside them it costs nothing that neighbouring groups load three of their five key vectors twice.
// SipHash adds about 6 %: running it for several pages at once, or in vectors, gained next to nothing.

import { NH_KEY, NH_KEY_BYTES, PAGE_BYTES, SIP_KEY, TAG_KEY } from './layout';
import { HEAD_BYTES, touch } from './page';
import { sipHash128 } from './siphash';

/** What keeps the uses of the first half of the secret apart: ASCII "abdm/nh" and a zero, and "abdm/tag". */
const DOMAIN_NH: u64 = 0x00686e2f6d646261;
const DOMAIN_TAG: u64 = 0x6761742f6d646261;

/** 32 bytes between NH and SipHash, and the 16 that a key block is made from. */
const SCRATCH: usize = memory.data(32, 16);

/**
 * Expands the 32 secret bytes at `keyPtr`, K1 | K2 of 16 bytes each:
 *
 *   NH key, block i of 16 bytes = SipHash-2-4-128 under K1 of u64 i | "abdm/nh" 0
 *   tag key                     = SipHash-2-4-128 under K1 of u64 0 | "abdm/tag"
 *   SipHash key                 = K2
 */
export function setKey(keyPtr: usize): void {
  store<u64>(SCRATCH, DOMAIN_NH, 8);
  for (let i: usize = 0; i < NH_KEY_BYTES / 16; i++) {
    store<u64>(SCRATCH, i);
    sipHash128(keyPtr, SCRATCH, 16, NH_KEY + i * 16);
  }
  store<u64>(SCRATCH, 0);
  store<u64>(SCRATCH, DOMAIN_TAG, 8);
  sipHash128(keyPtr, SCRATCH, 16, TAG_KEY);
  v128.store(SIP_KEY, v128.load(keyPtr, 16));
}

/** The four products of `a + aKey` and `b + bKey`, lane by lane, as two sums of two. */
function products(a: v128, aKey: v128, b: v128, bKey: v128): v128 {
  const x = i32x4.add(a, aKey);
  const y = i32x4.add(b, bKey);
  return i64x2.add(i64x2.extmul_low_i32x4_u(x, y), i64x2.extmul_high_i32x4_u(x, y));
}

/** Both lanes of `sum`, summed. */
function total(sum: v128): u64 {
  return i64x2.extract_lane(sum, 0) + i64x2.extract_lane(sum, 1);
}

/** NH of the page at `ptr`: the four sums as u64, pass 0 first, to `outPtr`. For tests, and as a step of the content id. */
export function nh(ptr: usize, outPtr: usize): void {
  let sum0 = i64x2.splat(0);
  let sum1 = sum0;
  let sum2 = sum0;
  let sum3 = sum0;
  let key = NH_KEY;
  const end = ptr + PAGE_BYTES;
  do {
    const a = v128.load(ptr);
    const b = v128.load(ptr, 16);
    const k1 = v128.load(key, 16);
    const k2 = v128.load(key, 32);
    const k3 = v128.load(key, 48);
    sum0 = i64x2.add(sum0, products(a, v128.load(key), b, k1));
    sum1 = i64x2.add(sum1, products(a, k1, b, k2));
    sum2 = i64x2.add(sum2, products(a, k2, b, k3));
    sum3 = i64x2.add(sum3, products(a, k3, b, v128.load(key, 64)));
    ptr += 32;
    key += 32;
  } while (ptr !== end); // not `<`: behind the last page of 4 GiB, `end` is 0
  store<u64>(outPtr, total(sum0));
  store<u64>(outPtr, total(sum1), 8);
  store<u64>(outPtr, total(sum2), 16);
  store<u64>(outPtr, total(sum3), 24);
}

/** Content id of the page at `ptr`, 16 bytes to `outPtr`. */
export function contentId(ptr: usize, outPtr: usize): void {
  nh(ptr, SCRATCH);
  sipHash128(SIP_KEY, SCRATCH, 32, outPtr);
}

/** Content ids of `pages` consecutive pages at `ptr`, 16 bytes each to `outPtr`. */
export function contentIds(ptr: usize, pages: u32, outPtr: usize): void {
  const end = ptr + <usize>pages * PAGE_BYTES;
  while (ptr !== end) {
    const next = ptr + PAGE_BYTES;
    if (next !== end) touch(next, HEAD_BYTES);
    contentId(ptr, outPtr);
    ptr = next;
    outPtr += 16;
  }
}
