// What tests of LZ4 do to blocks: look at how they end, and damage them.
import type { Random } from '../pages.js';

/** Every rule of the format for the end of a block, which decoders do not all look at. */
export function keepsEndRules(block: Uint8Array, bytes: number): boolean {
  let from = 0;
  let done = 0;
  const length = (start: number): number => {
    let total = start;
    if (start === 15) {
      let more: number;
      do {
        more = block[from++]!;
        total += more;
      } while (more === 255);
    }
    return total;
  };
  for (let lastStart = -1; ; ) {
    const token = block[from++]!;
    const literals = length(token >> 4);
    from += literals;
    done += literals;
    if (from === block.length) return lastStart < 0 || (literals >= 5 && bytes - lastStart >= 12);
    from += 2;
    lastStart = done;
    done += length(token & 15) + 4;
  }
}

/** A damaged copy of a block: flipped bytes, a cut, an insertion, or the head of it and the tail of another. */
export function damage(block: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  const at = random() % block.length;
  switch (random() % 5) {
    case 0: {
      const made = block.slice();
      for (let n = 1 + (random() % 4); n > 0; n--) made[random() % made.length]! ^= 1 + (random() % 255);
      return made;
    }
    case 1: {
      const made = block.slice();
      made[at] = random() % 2 === 0 ? 255 : 0;
      return made;
    }
    case 2:
      return block.slice(0, at);
    case 3: {
      const put = Uint8Array.from({ length: 1 + (random() % 20) }, () => (random() % 3 === 0 ? 255 : random() >>> 11));
      return Buffer.concat([block.subarray(0, at), put, block.subarray(at)]);
    }
    default:
      return Buffer.concat([block.subarray(0, at), other.subarray(random() % other.length)]);
  }
}
