// Where memory comes from and goes to, as one interface: a file, a process, later a QEMU or a checkpoint. An image is a row of regions
// that share one numbering of 4 KiB pages. Reads and writes are synchronous: they copy between wasm memory and the page cache, and
// an asynchronous detour costs many times the copy.
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';

/** A contiguous range of an image. Regions are laid one after the other in the image's page numbers. */
export interface Region {
  readonly name: string;
  /** Guest address, or file offset, of the first byte. */
  readonly address: number;
  /** Whole pages, except in the last region of an image. */
  readonly bytes: number;
  readonly firstPfn: number;
  readonly pages: number;
}

/** An image that can be read. Implement it to send a memory of your own. */
export interface ImageSource {
  /** For people: what this is. */
  readonly description: string;
  readonly regions: readonly Region[];
  readonly pages: number;
  readonly bytes: number;
  /**
   * Reads `pages` pages from `pfn` on into `memory` at `offset`; the tail of an image's last page is filled with zeros.
   * @throws AbdmError IMAGE if they cannot be read, OUT_OF_RANGE if they are none of the image's.
   */
  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void;
  /** Lets go of it; may be called more than once. */
  close(): Promise<void> | void;
  /** Instead of `close`: lets go of it, and leaves whoever was stopped for it stopped: somebody else may run what it holds. Without it, nobody was. */
  abandon?(): void;
}

/** All regions in the order of their page numbers, without gaps. Every failure is an AbdmError IMAGE. */
export interface ImageSink {
  readonly description: string;
  /** Writes `bytes` (at most 4096 a page) at page `pfn`. */
  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void;
  /** Makes `pages` pages zero. Pages that were never written are, and cost nothing. */
  zero(pfn: number, pages: number): void;
  /** Reads one page back, as it was written. */
  read(pfn: number, memory: Uint8Array, offset: number): void;
  /** Makes the whole visible under its name, on stable storage. Nothing is visible there before. */
  commit(): Promise<void>;
  /** Removes what is there so far; nothing after a commit. May be called more than once. */
  discard(): Promise<void>;
  /** Lets go of it as it is, to be gone on with later; without it, nothing can be. */
  leave?(): Promise<void>;
}

/** Numbers the pages of ranges that follow one another. */
export function layOut(ranges: readonly Pick<Region, 'name' | 'address' | 'bytes'>[]): Region[] {
  let firstPfn = 0;
  return ranges.map(({ name, address, bytes }) => {
    const region = { name, address, bytes, firstPfn, pages: Math.ceil(bytes / PAGE_BYTES) };
    firstPfn += region.pages;
    return region;
  });
}

/** @throws AbdmError OUT_OF_RANGE unless [pfn, pfn + pages) lies in an image of `imagePages`. */
export function checkRange(description: string, pfn: number, pages: number, imagePages: number): void {
  if (Number.isSafeInteger(pfn) && Number.isSafeInteger(pages) && pfn >= 0 && pages >= 0 && pfn + pages <= imagePages)
    return;
  throw new AbdmError(
    'OUT_OF_RANGE',
    `${description}: pages ${pfn} to ${pfn + pages} are not within its ${imagePages} pages`,
  );
}

/** Calls `visit` for each piece of [pfn, pfn + pages) that lies in one region; `page` counts from the region's first. */
export function eachPiece(
  regions: readonly Region[],
  pfn: number,
  pages: number,
  visit: (region: Region, page: number, pages: number) => void,
): void {
  const end = pfn + pages;
  // The first region that ends behind pfn, by bisection: a process has hundreds of regions.
  let low = 0;
  let high = regions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const region = regions[middle]!;
    if (region.firstPfn + region.pages <= pfn) low = middle + 1;
    else high = middle;
  }
  for (let at = pfn; at < end; low++) {
    const region = regions[low]!;
    const count = Math.min(end, region.firstPfn + region.pages) - at;
    if (count > 0) visit(region, at - region.firstPfn, count);
    at += count;
  }
}

/** An IMAGE error: what went wrong, where, what to do about it. */
export function imageError(what: string, hint: string, cause?: unknown): AbdmError {
  return new AbdmError('IMAGE', `${what}; ${hint}`, cause === undefined ? {} : { cause });
}

/** The code of a failed system call (ENOENT, ...), or ''. */
export function errnoOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException | undefined)?.code ?? '');
}

/** What the system said, for the end of a message. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
