import { PAGE_BYTES } from '../../../bindings/abi.js';
import { hasBit } from '../../guest/bits.js';

/** The pages of [firstPfn, firstPfn + pages) that are not there, as ranges of bytes from the first on: start, length, start, length, ... */
export function absentRanges(present: Uint8Array, firstPfn: number, pages: number): number[] {
  const ranges: number[] = [];
  for (let page = 0; page < pages; ) {
    // Many pages are there: eight at a look.
    if ((firstPfn + page) % 8 === 0 && present[(firstPfn + page) >>> 3] === 0xff) page += 8;
    else if (hasBit(present, firstPfn + page)) page++;
    else {
      const first = page;
      while (page < pages && !hasBit(present, firstPfn + page)) page++;
      ranges.push(first * PAGE_BYTES, (page - first) * PAGE_BYTES);
    }
  }
  return ranges;
}
