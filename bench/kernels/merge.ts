// Frames to pages: checksum, LZ4, content ids verified, duplicates, bitmap; each page is copied into an image. Through the public `Merger`.
//
// A pass merges every frame once; frames are received (copied into the merger's slots, or the peer's rooms) before the turn is measured. The image
// is as large as a slice and is used again for the next one: duplicates never refer beyond their slice (pages.ts).
import { Divider, FRAME_PAGES, type FrameSlot, Merger, PAGE_BYTES, type PageSink } from 'abdm';
import { type Composition, hashWasmComposition, xxhashWasmComposition } from '../composed/compositions.js';
import { ComposedDivider } from '../composed/divider.js';
import { FrameRoom } from '../composed/layout.js';
import { ComposedMerger } from '../composed/merger.js';
import { PAGE_CLASSES } from '../pages.js';
import type { Pool } from '../pool.js';
import type { Kernel, LocalSide } from '../sides.js';
import { KEY } from './divide.js';

export const merge: Kernel = {
  name: 'merge',
  pages: PAGE_CLASSES,
  quickPages: ['mix'],
  compresses: false,
  async sides({ pool }) {
    return [
      await ourMerger(pool),
      composedMerger(pool, await hashWasmComposition()),
      composedMerger(pool, await xxhashWasmComposition()),
    ];
  },
};

/** Copies pages to where they belong. Zero pages need nothing: an image is zero at first. */
class ImageSink implements PageSink {
  image = Buffer.alloc(0);
  write(_vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    this.image.set(memory.subarray(offset, offset + bytes), this.#at(pfn));
  }
  zero(): void {}
  read(_vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    const at = this.#at(pfn);
    memory.set(this.image.subarray(at, at + PAGE_BYTES), offset);
    return true;
  }
  #at(pfn: number): number {
    return (pfn * PAGE_BYTES) % this.image.length;
  }
}

async function ourMerger(pool: Pool): Promise<LocalSide> {
  const frames = await ourFrames(pool);
  const sink = new ImageSink();
  let merger: Merger;
  let slots: FrameSlot[] = [];
  const fresh = (count: number) => Merger.create({ key: KEY, vms: [{ pages: pool.pages }], slots: count });
  return {
    name: 'abdm',
    async begin() {
      merger = await fresh(Math.min(frames.length, 64));
      slots = [];
    },
    prepare({ first, pages }) {
      if (sink.image.length !== pages * PAGE_BYTES) sink.image = Buffer.alloc(pages * PAGE_BYTES);
      for (let n = 0; n < pages / FRAME_PAGES; n++) {
        slots[n] ??= merger.acquire();
        slots[n]!.bytes.set(frames[first / FRAME_PAGES + n]!);
      }
    },
    run({ first, pages }) {
      let merged = 0;
      for (let n = 0; n < pages / FRAME_PAGES; n++) {
        merged += merger.merge(slots[n]!, frames[first / FRAME_PAGES + n]!.length, sink).pages;
      }
      return merged;
    },
  };
}

/** The pool as our divider's frames, one for 64 pages. */
async function ourFrames(pool: Pool): Promise<Buffer[]> {
  const divider = await Divider.create({ key: KEY, batches: 1, slots: 1 });
  const batch = divider.acquire();
  const frames: Buffer[] = [];
  for (let first = 0; first < pool.pages; first += FRAME_PAGES) {
    batch.bytes.set(pool.bytes.subarray(first * PAGE_BYTES, (first + FRAME_PAGES) * PAGE_BYTES));
    for (const frame of divider.divide(batch, { vm: 0, base: first, pages: FRAME_PAGES })) {
      frames.push(Buffer.from(frame.bytes));
      frame.release();
    }
  }
  return frames;
}

function composedMerger(pool: Pool, composition: Composition): LocalSide {
  const frames = composedFrames(pool, composition);
  const rooms: FrameRoom[] = [];
  let image = Buffer.alloc(0);
  let merger: ComposedMerger | undefined;
  return {
    name: composition.name,
    async begin() {
      merger = undefined;
    },
    prepare({ first, pages }) {
      if (image.length !== pages * PAGE_BYTES) image = Buffer.alloc(pages * PAGE_BYTES);
      merger ??= new ComposedMerger(composition, pool.pages, image);
      for (let n = 0; n < pages / FRAME_PAGES; n++) {
        rooms[n] ??= new FrameRoom();
        rooms[n]!.bytes.set(frames[first / FRAME_PAGES + n]!);
      }
    },
    run({ pages }) {
      let merged = 0;
      for (let n = 0; n < pages / FRAME_PAGES; n++) merged += merger!.merge(rooms[n]!);
      return merged;
    },
  };
}

function composedFrames(pool: Pool, composition: Composition): Buffer[] {
  const divider = new ComposedDivider(composition);
  const room = new FrameRoom();
  const frames: Buffer[] = [];
  for (let first = 0; first < pool.pages; first += FRAME_PAGES) {
    const bytes = divider.divide(pool.views, first, FRAME_PAGES, first, room);
    frames.push(Buffer.from(room.bytes.subarray(0, bytes)));
  }
  return frames;
}
