// The zero test.
//
// A guest's untouched memory is most of what a migration does not have to send, so this is the first thing that happens to every page.
//
// Why it is as fast as it is: a page that is not zero nearly always shows it in its first bytes, so 16 of them are looked at before the
// vectors are started. On the long way 128 bytes are folded into one vector and share one branch; what is left is bound by how many loads
// the CPU starts per cycle.
//
//   |<- 16: looked at first
//   |<------ 128: one branch ------>|<------ 128: one branch ------>|<------ ...                                     4096 ->|

import { PAGE_BYTES } from './layout';

/**
 * Asks for all cache lines of the first page, or less, of the `bytes` bytes at `ptr` at once. The hardware fetches ahead within a page but not from one
 * page to the next, so whoever reads page after page of memory that is not in the cache waits at the head of each; asked for together, the lines
 * come together. On a page that is in the cache this costs a fiftieth of naming it.
 */
export function touch(ptr: usize, bytes: usize): void {
  let sum: u64 = 0;
  const end = min(bytes, PAGE_BYTES);
  for (let line: usize = 0; line + 8 <= end; line += 64) sum |= load<u64>(ptr + line);
  touched = sum;
}

/**
 * What to ask for of a page that comes next: the hardware then fetches what lies behind, while the page before it is worked on. More would be waited
 * for here, since a CPU holds some 500 instructions and not a page's work.
 */
export const HEAD_BYTES: usize = 128;
/** How far ahead the zero test looks: most pages show in their first line that they are not zero, and which do cannot be foreseen. */
const AHEAD_BYTES: usize = 8 * PAGE_BYTES;

/** Takes what was loaded, so that the loads are not left out. */
let touched: u64 = 0;

/** Bitwise or of the 64 bytes at `ptr`. */
function fold64(ptr: usize): v128 {
  return v128.or(v128.or(v128.load(ptr), v128.load(ptr, 16)), v128.or(v128.load(ptr, 32), v128.load(ptr, 48)));
}

/** True if the 4 KiB at `ptr` are all zero. */
export function isZero(ptr: usize): bool {
  if (load<u64>(ptr) | load<u64>(ptr, 8)) return false;
  const end = ptr + PAGE_BYTES;
  do {
    if (v128.any_true(v128.or(fold64(ptr), fold64(ptr + 64)))) return false;
    ptr += 128;
  } while (ptr !== end); // not `<`: behind the last page of 4 GiB, `end` is 0
  return true;
}

/** How many of the `pages` consecutive pages at `ptr` are all zero. */
export function countZero(ptr: usize, pages: u32): u32 {
  const end = ptr + <usize>pages * PAGE_BYTES;
  let zero: u32 = 0;
  while (ptr !== end) {
    if (end - ptr > AHEAD_BYTES) touch(ptr + AHEAD_BYTES, 64);
    zero += u32(isZero(ptr));
    ptr += PAGE_BYTES;
  }
  return zero;
}
