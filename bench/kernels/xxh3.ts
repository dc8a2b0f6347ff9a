// XXH3-64 of each page. xxhash-wasm has no XXH3: what its user takes is its XXH64.
import { xxh3 as xxh3Node } from '@node-rs/xxhash';
import { PAGE_BYTES } from 'abdm';
import { createXXHash3 } from 'hash-wasm';
import xxhashWasm from 'xxhash-wasm';
import type { Kernel } from '../sides.js';

export const xxh3: Kernel = {
  name: 'xxh3',
  pages: ['mix'],
  quickPages: ['mix'],
  compresses: false,
  async sides({ pool, native }) {
    const hashWasm = await createXXHash3();
    const xxhash = await xxhashWasm();
    const { exports, memory, outPtr, views } = pool;
    return [
      {
        name: 'abdm',
        run({ first, pages }) {
          for (let i = first; i < first + pages; i++) exports.xxh3(pool.ptr(i), PAGE_BYTES, outPtr);
          return memory.readUInt32LE(outPtr);
        },
      },
      {
        name: 'hash-wasm',
        run({ first, pages }) {
          let last: Uint8Array = new Uint8Array();
          for (let i = first; i < first + pages; i++) {
            hashWasm.init();
            hashWasm.update(views[i]!);
            last = hashWasm.digest('binary');
          }
          return Buffer.from(last).readUInt32BE(4);
        },
      },
      {
        name: 'xxhash-wasm',
        run({ first, pages }) {
          let last = 0n;
          for (let i = first; i < first + pages; i++) last = xxhash.h64Raw(views[i]!);
          return Number(last & 0xffffffffn);
        },
      },
      {
        name: '@node-rs/xxhash',
        run({ first, pages }) {
          let last = 0n;
          for (let i = first; i < first + pages; i++) last = xxh3Node.xxh64(views[i]!);
          return Number(last & 0xffffffffn);
        },
      },
      ...(native ? [native.side('native', 'xxh3')] : []),
    ];
  },
};
