// Memory that stays with a virtual machine.
//
// The host of a virtual machine may take back what its guest does not use (free page reporting, Linux 5.7): whoever touches that first then waits for the
// host, ten times as long as for a page on a machine of its own. Which run meets it is chance, and roles that take fresh memory, as nodes do, spend half of
// their time there. The host is given only whole free blocks of 2 MiB or more. So a few pages of each are kept in use, and all between them is free, for
// whoever needs it:
//
//   | kept |  free, 127 pages  | kept |  free  | ...
//
// Only where the kernel reports at all.

import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from 'abdm';

const REPORTING = '/sys/module/page_reporting';
const MEMORY = '/dev/shm';
/** A quarter of the smallest block that is given away: it matters little where the kernel finds the pages. */
const STRIDE_PAGES = 128;
/** Of what is free: something has to be left meanwhile. */
const MOST = 0.85;

/** Keeps about `bytes` of the free memory until this process ends. */
export function keepMemory(bytes: number): void {
  if (!existsSync(REPORTING) || !existsSync(MEMORY)) return;
  const strides = Math.floor(Math.min(bytes, process.availableMemory() * MOST) / (STRIDE_PAGES * PAGE_BYTES));
  const directory = mkdtempSync(join(MEMORY, 'abdm-bench-'));
  const passing = openSync(join(directory, 'passing'), 'w');
  const kept = openSync(join(directory, 'kept'), 'w');
  // Without a name they are gone at every end of this process.
  rmSync(directory, { recursive: true });
  const between = Buffer.alloc((STRIDE_PAGES - 1) * PAGE_BYTES, 1);
  const page = between.subarray(0, PAGE_BYTES);
  for (let i = 0; i < strides; i++) {
    writeSync(passing, between);
    writeSync(kept, page);
  }
  closeSync(passing);
}
