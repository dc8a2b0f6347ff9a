// Bitmaps of pages: bit i is bit i & 7 of byte i >> 3, so that a map can be read byte by byte elsewhere. Here it is read in 64-bit
// words, which on a little-endian memory is the same order. The map's pointer is a multiple of 16, and the map is counted as
// ending at a word: a word that holds bit `to` is read whole. Indices are below 2^32 (16 TiB of pages).

export function bitmapSet(mapPtr: usize, index: u32): void {
  const ptr = mapPtr + (index >> 3);
  store<u8>(ptr, load<u8>(ptr) | ((<u8>1) << (<u8>(index & 7))));
}

export function bitmapClear(mapPtr: usize, index: u32): void {
  const ptr = mapPtr + (index >> 3);
  store<u8>(ptr, load<u8>(ptr) & ~((<u8>1) << (<u8>(index & 7))));
}

export function bitmapTest(mapPtr: usize, index: u32): bool {
  return <bool>((load<u8>(mapPtr + (index >> 3)) >> <u8>(index & 7)) & 1);
}

/** Sets bits [from, to). */
export function bitmapSetRange(mapPtr: usize, from: u32, to: u32): void {
  if (from >= to) return;
  const first = mapPtr + (from >> 3);
  const last = mapPtr + (to >> 3);
  const head: u32 = (0xff << (from & 7)) & 0xff;
  const tail: u32 = (1 << (to & 7)) - 1;
  if (first === last) {
    store<u8>(first, load<u8>(first) | <u8>(head & tail));
    return;
  }
  store<u8>(first, load<u8>(first) | <u8>head);
  memory.fill(first + 1, 0xff, last - first - 1);
  // With `to` at a byte's begin there is no last byte: it may not even belong to the map.
  if (tail) store<u8>(last, load<u8>(last) | <u8>tail);
}

/** Set bits in [from, to). A f64, as what is above 2^31 would come out negative. */
export function bitmapCount(mapPtr: usize, from: u32, to: u32): f64 {
  if (from >= to) return 0;
  let ptr = wordOf(mapPtr, from);
  const last = wordOf(mapPtr, to - 1);
  const head = ~(<u64>0) << (from & 63);
  const tail = ~(<u64>0) >> ((64 - to) & 63);
  if (ptr === last) return <f64>popcnt<u64>(load<u64>(ptr) & head & tail);
  let count = popcnt<u64>(load<u64>(ptr) & head) + popcnt<u64>(load<u64>(last) & tail);
  for (ptr += 8; ptr < last; ptr += 8) count += popcnt<u64>(load<u64>(ptr));
  return <f64>count;
}

/** First unset bit in [from, to), or `to`. A f64, as what is above 2^31 would come out negative. */
export function bitmapNextUnset(mapPtr: usize, from: u32, to: u32): f64 {
  if (from >= to) return <f64>to;
  const last = wordOf(mapPtr, to - 1);
  let ptr = wordOf(mapPtr, from);
  let unset = ~load<u64>(ptr) & (~(<u64>0) << (from & 63));
  while (!unset && ptr < last) {
    ptr += 8;
    unset = ~load<u64>(ptr);
  }
  if (!unset) return <f64>to;
  const index = ((<u64>(ptr - mapPtr)) << 3) + ctz<u64>(unset);
  return <f64>(index < <u64>to ? index : <u64>to);
}

function wordOf(mapPtr: usize, index: u32): usize {
  return mapPtr + ((index >> 6) << 3);
}
