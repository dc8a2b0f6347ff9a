// Memory that stays with a virtual machine.
//
// The host of a virtual machine may take back what its guest does not use (free page reporting, Linux 5.7): whoever touches that first then waits for the host,
// ten times as long as for a page on a machine of its own. Which run meets it is chance, and roles that take fresh memory, as nodes do, spend half of their time
// there. The host is given only whole free blocks of 2 MiB or more. So a few pages of each block are kept in use, and all between
// them is free, for whoever needs it:
//
//   | kept |  free, 127 pages  | kept |  free  | ...
//
// Only where the kernel reports at all.

import { closeSync, existsSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from 'abdm';

const REPORTING = '/sys/module/page_reporting';
/** A quarter of the smallest block that is given away: it matters little where the kernel finds the pages. */
const STRIDE_PAGES = 128;

/** Keeps about `bytes` of free memory, as long as the file `kept` in `directory`, in memory, stays. Returns whether there was a need to. */
export function keepMemory(directory: string, bytes: number): boolean {
  if (!existsSync(REPORTING)) return false;
  const passing = join(directory, 'passing');
  const files = [openSync(passing, 'w'), openSync(join(directory, 'kept'), 'w')] as const;
  const pages = [Buffer.alloc((STRIDE_PAGES - 1) * PAGE_BYTES, 1), Buffer.alloc(PAGE_BYTES, 1)] as const;
  try {
    for (let at = 0; at < bytes; at += STRIDE_PAGES * PAGE_BYTES) {
      writeSync(files[0], pages[0]);
      writeSync(files[1], pages[1]);
    }
  } finally {
    for (const file of files) closeSync(file);
    unlinkSync(passing);
  }
  return true;
}
