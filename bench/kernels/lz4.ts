// LZ4 blocks of each page, which refer to the pages before it, 64 a window, where that can be had (we, liblz4; no package). A block that is not smaller than
// the page is of no use: it counts as 4,096 bytes, whoever made it.
import { FRAME_PAGES, PAGE_BYTES } from 'abdm';
import { compressSync, uncompressSync } from 'lz4-napi';
import * as lz4Wasm from 'lz4-wasm-nodejs';
import { PAGE_CLASSES } from '../pages.js';
import type { Pool } from '../pool.js';
import type { Kernel, LocalSide } from '../sides.js';

/** Both packages put the size, u32, before the block. */
export const SIZE_BYTES = 4;
const CAPACITY_BYTES = PAGE_BYTES - 1;
const ACCELERATION = 1;

export const lz4Compress: Kernel = {
  name: 'lz4.compress',
  pages: PAGE_CLASSES,
  quickPages: PAGE_CLASSES,
  compresses: true,
  async sides({ pool, native }) {
    const { exports, outPtr } = pool;
    return [
      {
        name: 'abdm',
        run({ first, pages }) {
          let bytes = 0;
          for (let i = first; i < first + pages; i++) {
            const windowPtr = pool.ptr(i - ((i - first) % FRAME_PAGES));
            bytes +=
              exports.lz4Compress(windowPtr, pool.ptr(i), PAGE_BYTES, outPtr, CAPACITY_BYTES, ACCELERATION) ||
              PAGE_BYTES;
          }
          return bytes;
        },
      },
      compressor(pool, 'lz4-wasm-nodejs', lz4Wasm.compress),
      compressor(pool, 'lz4-napi', compressSync),
      ...(native ? [native.side('native', 'compress')] : []),
    ];
  },
};

function compressor({ views }: Pool, name: string, compress: (page: Buffer) => Uint8Array): LocalSide {
  return {
    name,
    run({ first, pages }) {
      let bytes = 0;
      for (let i = first; i < first + pages; i++)
        bytes += Math.min(compress(views[i]!).length - SIZE_BYTES, PAGE_BYTES);
      return bytes;
    },
  };
}

/** All decode the same blocks: those of lz4-wasm-nodejs, so that nobody can say we had made ourselves easy ones. */
export const lz4Decompress: Kernel = {
  name: 'lz4.decompress',
  pages: PAGE_CLASSES,
  quickPages: PAGE_CLASSES,
  compresses: false,
  async sides({ pool, native }) {
    const { exports, outPtr } = pool;
    const { ptrs, blocks, end } = makeBlocks(pool);
    await native?.loadBlocks(pool.memory.subarray(pool.blocksPtr, end));
    return [
      {
        name: 'abdm',
        run({ first, pages }) {
          let decoded = 0;
          for (let i = first; i < first + pages; i++) {
            decoded += exports.lz4Decompress(ptrs[i]!, blocks[i]!.length - SIZE_BYTES, outPtr, PAGE_BYTES);
          }
          return decoded;
        },
      },
      decompressor(blocks, 'lz4-wasm-nodejs', lz4Wasm.decompress),
      decompressor(blocks, 'lz4-napi', uncompressSync),
      ...(native ? [native.side('native', 'decompress')] : []),
    ];
  },
};

function decompressor(blocks: readonly Buffer[], name: string, decompress: (block: Buffer) => Uint8Array): LocalSide {
  return {
    name,
    run({ first, pages }) {
      let decoded = 0;
      for (let i = first; i < first + pages; i++) decoded += Number(decompress(blocks[i]!).length === PAGE_BYTES);
      return decoded;
    },
  };
}

/** Blocks of all pages in the pool's memory, one behind the other: u32 bytes of what follows | u32 4096 | block. */
function makeBlocks({ memory, views, blocksPtr }: Pool) {
  const ptrs = new Float64Array(views.length);
  let at = blocksPtr;
  const blocks = views.map((view, i) => {
    const block = lz4Wasm.compress(view);
    memory.writeUInt32LE(block.length, at);
    memory.set(block, at + 4);
    const from = at + 4;
    at = from + block.length;
    ptrs[i] = from + SIZE_BYTES;
    return memory.subarray(from, at);
  });
  return { ptrs, blocks, end: at };
}
