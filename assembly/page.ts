// The zero test.

/** True if the 4 KiB at `ptr` are all zero. */
export function isZero(ptr: usize): bool {
  const end = ptr + 4096;
  while (ptr < end) {
    const v = v128.or(v128.or(v128.load(ptr), v128.load(ptr, 16)), v128.or(v128.load(ptr, 32), v128.load(ptr, 48)));
    if (v128.any_true(v)) return false;
    ptr += 64;
  }
  return true;
}
