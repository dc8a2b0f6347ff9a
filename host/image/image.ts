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

/** An image that is the memory of a guest, which runs and writes to it until `stop`. Every failure is an AbdmError IMAGE. */
export interface GuestSource extends ImageSource {
  /** Which guest this is: made anew whenever one is started. */
  readonly guestId: string;
  /**
   * Pages that were written to since the last call, or since it was opened: adds them to `bitmap` (bit i is bit i & 7 of byte i >> 3), and the guest
   * begins to count anew. A page that is read after this holds all that was written before.
   */
  dirty(bitmap: Uint8Array): Promise<void>;
  /** It stands still when this resolves: to its execution state. The memory does not change any more. */
  stop(): Promise<Uint8Array>;
  /** It goes on here. Never called once it may run elsewhere. */
  resume(): Promise<void>;
  /** It runs elsewhere: the one here never runs again, and its memory may go. */
  release(): Promise<void>;
}

/** Whether an image is that of a guest. */
export function isGuestSource(image: ImageSource): image is GuestSource {
  return 'guestId' in image;
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

/**
 * A guest that waits for its memory, and may run before all of it is there. What is written is there for it at once, and what was not written it waits
 * for. `discard` empties it, so that it waits for another migration, unless it has run.
 */
export interface GuestSink extends ImageSink {
  /** Which guest this is: made anew whenever one is started. */
  readonly guestId: string;
  /** It has run, or does: begun by somebody before us. */
  readonly hasRun: boolean;
  /** Pages that are there, as a bitmap: what an earlier destination had written, and since then always what there is. */
  readonly present: Uint8Array;
  /** Called with each page that it waits for, once; set it before `run`. */
  onFault: (pfn: number) => void;
  /** Called once if the guest is gone; while it is set, if it is gone already. */
  onGone: (error: Error) => void;
  /** These pages are not there any more: a later version of them will come. Not after `run`. */
  forget(pfn: number, pages: number): void;
  /** Takes the execution state: it could run now. May be called again, before `run`. */
  load(state: Uint8Array): Promise<void>;
  /** It runs. */
  run(): Promise<void>;
  /** After a `run` that has failed: whether it may have run all the same, or still may. False only if that is certain. */
  mayHaveRun(): Promise<boolean>;
}

/** Whether what an image becomes is a guest. */
export function isGuestSink(sink: ImageSink): sink is GuestSink {
  return 'guestId' in sink;
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
