// The images that a migration is merged into: opened when the source has said how large they are, visible under their names only when whole. One of them
// may fail alone, when it is opened too: nothing is written to it any more then, nor read from it, and the others go on.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Merger, PageSink } from '../../bindings/merger.js';
import type { LeftOver } from '../image/filesink.js';
import { type GuestSink, type ImageShape, type ImageSink, imageError, isGuestSink } from '../image/image.js';
import { RecentPages } from './recent.js';

/** Of images that cannot be read back, so much is kept for duplicates: 256 MiB. */
const RECENT_PAGES = 65_536;

/** An image that the operator named, and how to begin it. */
export interface ImageTarget {
  readonly name: string;
  /** Where a destination notes what it needs to go on after it died; no file: it cannot. */
  readonly statePath?: string;
  /** Begins the image, once its size is known. */
  open(shape: ImageShape, left?: LeftOver): ImageSink | Promise<ImageSink>;
}

export class Images implements PageSink {
  /** Called when one cannot be written or read; `fail` it then. It may be called again before that is done. */
  onError: (vm: number, error: AbdmError) => void = () => {};
  /** Called when none of them is busy any more. */
  onFree: () => void = () => {};
  /** Those that could not be opened, and why: to be failed by whoever has told others of it. */
  readonly unopened = new Map<number, AbdmError>();
  readonly #sinks: ImageSink[] = [];
  /** Null: all of them can be read back. */
  #recent: RecentPages | null = null;
  readonly #failed = new Set<number>();
  readonly #left: LeftOver | undefined;

  private constructor(left: LeftOver | undefined) {
    this.#left = left;
  }

  /**
   * Opens the targets for the images that were announced, matched by name.
   * @throws {AbdmError} USAGE if they are not the same, IMAGE if none of them can be opened.
   */
  static async open(
    announced: readonly (ImageShape & { name: string })[],
    targets: readonly ImageTarget[],
    left?: LeftOver,
  ): Promise<Images> {
    const byName = new Map(targets.map((target) => [target.name, target]));
    const names = (list: readonly { name: string }[]) => list.map(({ name }) => name).join(', ');
    if (announced.length !== targets.length || announced.some(({ name }) => !byName.has(name))) {
      const text = `the source sends ${names(announced)}, but the destination expects ${names(targets)}`;
      throw new AbdmError('USAGE', `${text}: both must name the same images`);
    }
    const images = new Images(left);
    for (const [vm, shape] of announced.entries()) {
      try {
        const sink = await byName.get(shape.name)!.open(shape, left);
        sink.onFree = () => {
          if (!images.areBusy) images.onFree();
        };
        images.#sinks.push(sink);
        if (sink.isWriteOnly) images.#recent ??= new RecentPages(RECENT_PAGES);
      } catch (error) {
        images.#sinks.push(NOWHERE);
        images.unopened.set(vm, asAbdmError(error));
      }
    }
    const [first] = images.unopened.values();
    if (images.unopened.size < announced.length || !first) return images;
    throw first;
  }

  /** What a VM becomes. */
  sink(vm: number): ImageSink {
    return this.#sinks[vm]!;
  }

  /** The guest that a VM becomes; null if it becomes none. */
  guest(vm: number): GuestSink | null {
    const sink = this.sink(vm);
    return isGuestSink(sink) ? sink : null;
  }

  /** Some of them are guests. */
  get haveGuests(): boolean {
    return this.#sinks.some(isGuestSink);
  }

  /** One of them has much to write still. */
  get areBusy(): boolean {
    return this.#sinks.some(({ isBusy }, vm) => isBusy && !this.#failed.has(vm));
  }

  /** This one is not written to, read or committed any more. */
  fail(vm: number): void {
    this.#failed.add(vm);
  }

  hasFailed(vm: number): boolean {
    return this.#failed.has(vm);
  }

  /** Before a guest runs: what it would take for its pages, and is not what they are to be, it waits for. */
  forgetStale(vm: number, merger: Merger): void {
    const guest = this.guest(vm);
    if (!guest || this.#failed.has(vm)) return;
    for (let page = nextSet(guest.present, 0); page >= 0; ) {
      const unmerged = merger.nextUnmerged(vm, page);
      if (unmerged < 0) return;
      if (unmerged === page) guest.forget(page++, 1);
      page = nextSet(guest.present, Math.max(page, unmerged));
    }
  }

  write(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    const isWritten = this.#try(vm, (sink) => sink.write(pfn, memory, offset, bytes));
    if (!isWritten || !this.sink(vm).isWriteOnly) return;
    this.#recent!.put(vm, pfn, memory, offset, bytes);
  }

  zero(vm: number, pfn: number, pages: number): void {
    this.#try(vm, (sink) => sink.zero(pfn, pages));
  }

  /** All that there is for now is written. */
  settle(): void {
    for (const vm of this.#sinks.keys()) this.#try(vm, (sink) => sink.settle?.());
  }

  read(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    if (this.sink(vm).isWriteOnly) return this.#recent!.get(vm, pfn, memory, offset);
    return this.#try(vm, (sink) => sink.read(pfn, memory, offset));
  }

  /** False if that was not possible. */
  #try(vm: number, run: (sink: ImageSink) => void): boolean {
    if (this.#failed.has(vm)) return false;
    try {
      run(this.#sinks[vm]!);
      return true;
    } catch (error) {
      this.onError(vm, asAbdmError(error));
      return false;
    }
  }

  /** Lets go of them when nothing was merged yet: what an earlier destination has left, and nobody else has, stays. */
  async giveUp(): Promise<void> {
    for (const sink of this.#sinks) await (this.#left === 'keep' ? leave(sink) : sink.discard());
  }
}

/** What there is of an image that is not opened. */
export const NOWHERE: ImageSink = {
  description: 'nowhere',
  write: () => {},
  zero: () => {},
  read: () => {
    throw imageError('what is not opened cannot be read back', 'this is a mistake');
  },
  commit: async () => {},
  discard: async () => {},
};

/** Lets go of an image as it is, where that is possible. */
export async function leave(sink: ImageSink): Promise<void> {
  await (sink.leave?.() ?? sink.discard());
}

/** The first page from `page` on whose bit is set, or -1. */
function nextSet(bitmap: Uint8Array, page: number): number {
  let at = page >>> 3;
  let bits = (bitmap[at] ?? 0) & (0xff << (page & 7));
  while (bits === 0 && ++at < bitmap.length) bits = bitmap[at]!;
  return bits === 0 ? -1 : at * 8 + 31 - Math.clz32(bits & -bits);
}
