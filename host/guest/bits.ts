// Bitmaps of pages: page i is bit i & 7 of byte i >> 3.

export function bitmapFor(pages: number): Uint8Array {
  return new Uint8Array(Math.ceil(pages / 8));
}

export function hasBit(bitmap: Uint8Array, page: number): boolean {
  return ((bitmap[page >>> 3]! >> (page & 7)) & 1) === 1;
}

export function setBit(bitmap: Uint8Array, page: number): void {
  bitmap[page >>> 3]! |= 1 << (page & 7);
}

export function clearBit(bitmap: Uint8Array, page: number): void {
  bitmap[page >>> 3]! &= ~(1 << (page & 7));
}

/** All of [0, pages), and no bit behind. */
export function setAll(bitmap: Uint8Array, pages: number): void {
  bitmap.fill(0xff);
  if (pages % 8 !== 0) bitmap[bitmap.length - 1] = (1 << (pages % 8)) - 1;
}

export function countBits(bitmap: Uint8Array): number {
  let count = 0;
  for (let byte of bitmap) for (; byte !== 0; byte &= byte - 1) count++;
  return count;
}
