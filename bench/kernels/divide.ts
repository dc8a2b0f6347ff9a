// Pages to frames: zero test, name, deduplication in a table for 1.3 million contents, LZ4, frame with checksum. Through the public `Divider`.
//
// All sides start with empty tables that fill up as the run goes on: a full Map would be slower still.
import { type Batch, Divider, FRAME_PAGES, PAGE_BYTES } from 'abdm';
import { type Composition, hashWasmComposition, xxhashWasmComposition } from '../composed/compositions.js';
import { ComposedDivider } from '../composed/divider.js';
import { FrameRoom } from '../composed/layout.js';
import { PAGE_CLASSES } from '../pages.js';
import type { Pool } from '../pool.js';
import type { Kernel, LocalSide } from '../sides.js';

export const KEY = new Uint8Array(32).map((_, i) => i * 7 + 1);

export const divide: Kernel = {
  name: 'divide',
  pages: PAGE_CLASSES,
  quickPages: ['mix'],
  compresses: true,
  async sides({ pool, native }) {
    return [
      await ourDivider(pool),
      composedDivider(pool, await hashWasmComposition()),
      composedDivider(pool, await xxhashWasmComposition()),
      ...(native ? [native.side('native', 'divide')] : []),
    ];
  },
};

/** All pages of the pool lie in the divider's batches, where a source would have read them. */
async function ourDivider(pool: Pool): Promise<LocalSide> {
  const count = pool.pages / FRAME_PAGES;
  const divider = await Divider.create({ key: KEY, batches: count });
  const batches: Batch[] = [];
  for (let i = 0; i < count; i++) {
    const batch = divider.acquire();
    batch.bytes.set(pool.bytes.subarray(i * FRAME_PAGES * PAGE_BYTES, (i + 1) * FRAME_PAGES * PAGE_BYTES));
    batches.push(batch);
  }
  const start = batches.reduce((low, { ptr }) => Math.min(low, ptr), Number.POSITIVE_INFINITY);
  if (batches.some(({ ptr }, i) => ptr !== start + i * FRAME_PAGES * PAGE_BYTES))
    throw new Error('batches are not in order');
  const memory = Buffer.from(batches[0]!.bytes.buffer);
  return {
    name: 'abdm',
    prepare: ({ first, pages, pass }) => pool.stamp(first, pages, pass, memory, start),
    run({ first, pages }) {
      let bytes = 0;
      for (let at = first; at < first + pages; at += FRAME_PAGES) {
        for (const frame of divider.divide(batches[at / FRAME_PAGES]!, { vm: 0, base: at, pages: FRAME_PAGES })) {
          bytes += frame.bytes.length;
          frame.release();
        }
      }
      return bytes;
    },
  };
}

function composedDivider(pool: Pool, composition: Composition): LocalSide {
  const divider = new ComposedDivider(composition);
  // As many as our divider has: frames wait in them until they are sent.
  const rooms = Array.from({ length: 32 }, () => new FrameRoom());
  return {
    name: composition.name,
    prepare: ({ first, pages, pass }) => pool.stamp(first, pages, pass),
    run({ first, pages }) {
      let bytes = 0;
      for (let at = first; at < first + pages; at += FRAME_PAGES) {
        bytes += divider.divide(pool.views, at, FRAME_PAGES, at, rooms[(at / FRAME_PAGES) % rooms.length]!);
      }
      return bytes;
    },
  };
}
