// A sink for images that lie in memory: what tests, browsers and first steps need.

import { PAGE_BYTES } from './abi.js';
import type { PageSink } from './merger.js';

/**
 * A {@link PageSink} that puts pages into `images`, one for each VM of the gang, each a multiple of 4,096 bytes. Nobody else may write to them while
 * they are merged.
 */
export function memorySink(...images: Uint8Array[]): PageSink {
  return {
    write: (vm, pfn, memory, offset, bytes) =>
      images[vm]!.set(memory.subarray(offset, offset + bytes), pfn * PAGE_BYTES),
    zero: (vm, pfn, pages) => void images[vm]!.fill(0, pfn * PAGE_BYTES, (pfn + pages) * PAGE_BYTES),
    read: (vm, pfn, memory, offset) => {
      memory.set(images[vm]!.subarray(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES), offset);
      return true;
    },
  };
}
