// All kernels that are measured side by side.
import { contentId } from './kernels/content-id.js';
import { divide } from './kernels/divide.js';
import { lz4Compress, lz4Decompress } from './kernels/lz4.js';
import { merge } from './kernels/merge.js';
import { xxh3 } from './kernels/xxh3.js';
import { zero } from './kernels/zero.js';
import type { Kernel } from './sides.js';

export const KERNELS: readonly Kernel[] = [zero, xxh3, contentId, lz4Compress, lz4Decompress, divide, merge];
