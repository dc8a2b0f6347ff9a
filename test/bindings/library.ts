// Divider and merger side by side, for tests of both.
import { randomBytes } from 'node:crypto';
import {
  type BatchPages,
  Divider,
  type DividerOptions,
  Merger,
  type OnSuperseded,
  PAGE_BYTES,
  type PageSink,
} from 'abdm';

export const key = new Uint8Array(randomBytes(32));

/** A sink that keeps every VM's pages in memory, and never gives one back. */
export class MemorySink implements PageSink {
  readonly images: Uint8Array[];
  writes = 0;
  constructor(pages: number[]) {
    this.images = pages.map((n) => new Uint8Array(n * PAGE_BYTES).fill(0xee));
  }
  write(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    this.images[vm]!.set(memory.subarray(offset, offset + bytes), pfn * PAGE_BYTES);
    this.writes++;
  }
  zero(vm: number, pfn: number, pages: number): void {
    this.images[vm]!.fill(0, pfn * PAGE_BYTES, (pfn + pages) * PAGE_BYTES);
  }
  read(_vm: number, _pfn: number, _memory: Uint8Array, _offset: number): boolean {
    return false;
  }
}

/** A frame's bytes, copied out of the divider, and what is known of it. */
export interface KeptFrame {
  id: number;
  vm: number;
  base: number;
  pages: number;
  deltas: Uint16Array | undefined;
  bytes: Uint8Array;
}

export async function makeDivider(options: Partial<DividerOptions> = {}): Promise<Divider> {
  return Divider.create({ key, dedupEntries: 100_000, ...options });
}

/** Divides pages as one batch and keeps the frames. */
export function divideBatch(divider: Divider, pages: Uint8Array, at: Omit<BatchPages, 'pages'>): KeptFrame[] {
  const batch = divider.acquire();
  batch.bytes.set(pages);
  const frames = divider.divide(batch, { ...at, pages: pages.length / PAGE_BYTES });
  batch.release();
  return frames.map((frame) => {
    const kept = { ...frame, bytes: frame.bytes.slice() };
    frame.release();
    return kept;
  });
}

/** Divides an image in batches of 64 pages. */
export function divideImage(divider: Divider, image: Uint8Array, vm = 0): KeptFrame[] {
  const frames: KeptFrame[] = [];
  const step = divider.batchPages * PAGE_BYTES;
  for (let at = 0; at < image.length; at += step) {
    frames.push(...divideBatch(divider, image.subarray(at, at + step), { vm, base: at / PAGE_BYTES }));
  }
  return frames;
}

export function mergeFrame(merger: Merger, bytes: Uint8Array, sink: PageSink, onSuperseded?: OnSuperseded) {
  const slot = merger.acquire();
  try {
    slot.bytes.set(bytes.subarray(0, slot.bytes.length));
    return merger.merge(slot, Math.min(bytes.length, slot.bytes.length), sink, onSuperseded);
  } finally {
    slot.release();
  }
}

export async function makeMerger(pages: number[]): Promise<Merger> {
  return Merger.create({ key, vms: pages.map((n) => ({ pages: n })) });
}
