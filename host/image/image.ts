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
  /** What whoever takes it in has to know before the first page, besides the regions: for its own kind of image, in its own words. At most 4096 characters. */
  readonly setup?: string;
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
export type GuestSource = TrackedGuest | SendingGuest;

/** What every guest has. */
export interface RunningGuest extends ImageSource {
  /** Which guest this is: made anew whenever one is started. */
  readonly guestId: string;
  /** It stands still when this resolves: to its execution state. What can be read of its memory does not change any more. */
  stop(): Promise<Uint8Array>;
  /** It goes on here. Never called once it may run elsewhere. */
  resume(): Promise<void>;
  /** It runs elsewhere: the one here never runs again, and its memory may go. */
  release(): Promise<void>;
}

/** A guest whose memory can be read at any time, and which says what it has written to. */
export interface TrackedGuest extends RunningGuest {
  /**
   * Pages that were written to since the last call, or since it was opened: adds them to `bitmap` (bit i is bit i & 7 of byte i >> 3), and the guest
   * begins to count anew. A page that is read after this holds all that was written before.
   */
  dirty(bitmap: Uint8Array): Promise<void>;
}

/**
 * A guest that sends its memory itself, in an order of its own: a page can be read once it has come, and has changed when it comes again. While the guest
 * runs, that goes on in rounds. After `stop`, every page comes that is awaited still, once.
 */
export interface SendingGuest extends RunningGuest {
  /** Who is told of what comes: from now on, and at once of what has come already. Set before `begin` and `stop`. */
  listen(listener: PageListener): void;
  /** Begins with the first round, while the guest runs. Without it nothing has to come before `stop`. */
  begin(): Promise<void>;
  /** Whoever reads is behind: nothing more need come for now, unless it was stopped. */
  hold(isHeld: boolean): void;
  /** Somebody waits for this page, which is awaited: it should come next. After `stop`. */
  want(pfn: number): void;
}

/** What a guest says that sends its memory itself. */
export interface PageListener {
  /** This page can be read; if it was before, it has changed. */
  onPage(pfn: number): void;
  /** What came of these pages does not count any more: they come once more. Not after `stop`. */
  onAwaited(pfn: number, pages: number): void;
  /** A round is over: so many pages are to come in the next one. 0: there is none, and it stands still by itself; `stop` resolves at once then. */
  onRound(dirtyPages: number): void;
  /** Called once, if it is gone before all of it has come. */
  onGone(error: Error): void;
}

/** Whether a guest sends its memory itself. */
export function isSending(guest: GuestSource): guest is SendingGuest {
  return 'listen' in guest;
}

/** Whether an image is that of a guest. */
export function isGuestSource(image: ImageSource): image is GuestSource {
  return 'guestId' in image;
}

/** What is known of an image before it comes: see ImageSource. */
export interface ImageShape {
  readonly bytes: number;
  readonly regions: readonly Pick<Region, 'name' | 'address' | 'bytes'>[];
  readonly setup?: string;
}

/** All regions in the order of their page numbers, without gaps. Every failure is an AbdmError IMAGE. */
export interface ImageSink {
  readonly description: string;
  /** What was written cannot be read back: `read` is never called. */
  readonly isWriteOnly?: true;
  /** Has much to write still: nothing more should come for now but what somebody waits for. */
  readonly isBusy?: boolean;
  /** Called when it is not busy any more. */
  onFree?: () => void;
  /** Writes `bytes` (at most 4096 a page) at page `pfn`. */
  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void;
  /** Makes `pages` pages zero. Pages that were never written are, and cost nothing. */
  zero(pfn: number, pages: number): void;
  /** Call it when all is written that there is for now: whoever waits for pages has those from then on. */
  settle?(): void;
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
 * A guest that waits for its memory, and may run before all of it is there. What is written is there for it as soon as that is settled, and what was not
 * written it waits for. `discard` empties it, so that it waits for another migration, unless it has run.
 */
export interface GuestSink extends ImageSink {
  /** Which guest this is: made anew whenever one is started. */
  readonly guestId: string;
  /** It has run, or does: begun by somebody before us. */
  readonly hasRun: boolean;
  /** Pages that are there, as a bitmap: what an earlier destination had written, and since then always what there is. */
  readonly present: Uint8Array;
  /**
   * It takes one execution state, and may wait for pages to do so; the same one once more is no other. From then on it is as if it ran: what was not written, or forgotten, it waits for, and no
   * page is written twice.
   */
  readonly loadsOnce?: true;
  /** Called with each page that it waits for, once; set it before `run`, or `load` where that may wait. */
  onFault: (pfn: number) => void;
  /** Called once if the guest is gone; while it is set, if it is gone already. */
  onGone: (error: Error) => void;
  /** These pages are not there any more: a later version of them will come. Not after `run`. */
  forget(pfn: number, pages: number): void;
  /** Takes the execution state: it could run now. May be called again, before `run`, unless it `loadsOnce`. */
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
