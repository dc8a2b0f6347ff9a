// A 128-bit name of each page. Ours is keyed; what peers offer for the purpose is SHA-256, which needs no key, and XXH128, which is no match for
// whoever wants two pages to collide.
import { hash } from 'node:crypto';
import { xxh3 } from '@node-rs/xxhash';
import { createXXHash128 } from 'hash-wasm';
import type { Kernel } from '../sides.js';

export const contentId: Kernel = {
  name: 'contentId',
  pages: ['mix'],
  quickPages: ['mix'],
  compresses: false,
  async sides({ pool, native }) {
    const xxh128 = await createXXHash128();
    const { exports, memory, outPtr, views } = pool;
    /** As the divider asks for them: a batch at a time. */
    const batch = 64;
    return [
      {
        name: 'abdm',
        run({ first, pages }) {
          for (let i = 0; i < pages; i += batch)
            exports.contentIds(pool.ptr(first + i), Math.min(batch, pages - i), outPtr);
          return memory.readUInt32LE(outPtr + ((pages - 1) % batch) * 16);
        },
      },
      {
        name: 'node:crypto',
        run({ first, pages }) {
          let last = '';
          // The quickest that Node has: one call a page and no object; a string is quicker than a Buffer.
          for (let i = first; i < first + pages; i++) last = hash('sha256', views[i]!, 'hex');
          return Number.parseInt(last.slice(0, 8), 16);
        },
      },
      {
        name: 'hash-wasm',
        run({ first, pages }) {
          let last: Uint8Array = new Uint8Array();
          for (let i = first; i < first + pages; i++) {
            xxh128.init();
            xxh128.update(views[i]!);
            last = xxh128.digest('binary');
          }
          return last[0]!;
        },
      },
      {
        name: '@node-rs/xxhash',
        run({ first, pages }) {
          let last = 0n;
          for (let i = first; i < first + pages; i++) last = xxh3.xxh128(views[i]!);
          return Number(last & 0xffffffffn);
        },
      },
      // The same ids in C; and NH alone, which is not a content id yet.
      ...(native ? [native.side('native', 'id'), native.side('native NH', 'nh')] : []),
    ];
  },
};
