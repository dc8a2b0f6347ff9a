// Is a page zero? Ours against Node's memcmp, C with AVX2, and what the machine can read at most.
import { PAGE_BYTES } from 'abdm';
import type { Kernel } from '../sides.js';

const ZERO = Buffer.alloc(PAGE_BYTES);

export const zero: Kernel = {
  name: 'zero',
  pages: ['mix', 'zero'],
  quickPages: ['mix', 'zero'],
  compresses: false,
  async sides({ pool, native }) {
    return [
      { name: 'abdm', run: ({ first, pages }) => pool.exports.countZero(pool.ptr(first), pages) },
      {
        // On Buffers made beforehand: faster than `compare` with offsets, `equals`, or a loop over words.
        name: 'Buffer.compare',
        run({ first, pages }) {
          let count = 0;
          for (let i = first; i < first + pages; i++) if (Buffer.compare(pool.views[i]!, ZERO) === 0) count++;
          return count;
        },
      },
      ...(native ? [native.side('native', 'zero'), native.side('native read', 'read')] : []),
    ];
  },
};
