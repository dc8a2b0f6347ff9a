// From pages to what leaves: frames, sealed where connections are private. Holds two batches of pages, one for what is divided as it comes and one for
// what has to be divided again.

import { FRAME_PAGES, frameMetaBytes, PAGE_BYTES } from '../../bindings/abi.js';
import type {
  Batch,
  BatchPages,
  Compression,
  DividedFrame,
  DivideOptions,
  DividerCounts,
} from '../../bindings/divider.js';
import { Divider } from '../../bindings/divider.js';
import type { Kept } from './ledger.js';
import type { Frame } from './scatter.js';
import { Sealer } from './seal.js';
import { framesOnTheWay, SHORT_FRAME_PAGES } from './window.js';

/** Beside those, batches whose frames somebody waits for at the destination. */
const URGENT_SLOTS = 8;
/** Where frames are sealed, they leave the divider's memory at once. */
const UNSEALED_SLOTS = 2;
/** A batch makes no more frames than this. */
const FRAMES_OF_BATCH = 2;
/** How much the last frame says of the next one's size. */
const WEIGHT = 1 / 8;

export interface FramerOptions {
  /** The migration's secret. */
  readonly key: Uint8Array;
  readonly compress: Compression;
  readonly sealed: boolean;
  /** Frames carry their meta parts beside them: the destination may get them. */
  readonly withMeta: boolean;
  /** Frames are to have about 64 KiB, however many pages that are: whoever waits for a page waits for its frame. */
  readonly short?: boolean;
  /** There may be frames that somebody waits for: memory is kept for them. */
  readonly live?: boolean;
  /** Called when a frame was released. */
  readonly onFree: () => void;
}

export class Framer {
  /** To be filled with pages for `divide`, and for `divideAgain`. */
  readonly batch: Batch;
  readonly againBatch: Batch;
  readonly #divider: Divider;
  readonly #sealer: Sealer | null;
  readonly #withMeta: boolean;
  readonly #onFree: () => void;
  /** Batches' worth of memory that is kept for frames that somebody waits for. */
  readonly #reserve: number;

  readonly #short: boolean;
  /** What a page has taken of frames lately. */
  #pageBytes = PAGE_BYTES;

  private constructor(divider: Divider, sealer: Sealer | null, reserve: number, options: FramerOptions) {
    const { withMeta, onFree, short = false } = options;
    this.#short = short;
    this.#reserve = reserve;
    this.#divider = divider;
    this.#sealer = sealer;
    this.#withMeta = withMeta;
    this.#onFree = onFree;
    this.batch = divider.acquire();
    this.againBatch = divider.acquire();
  }

  static async create(options: FramerOptions): Promise<Framer> {
    const { key, compress, sealed, short = false, live = false } = options;
    const reserve = live ? URGENT_SLOTS : 0;
    // There is room in each for a frame that is not short; what is not used of it takes no memory.
    const slots = framesOnTheWay(short) + reserve;
    const divider = await Divider.create({ key, compress, slots: sealed ? UNSEALED_SLOTS : slots });
    const sealer = sealed ? await Sealer.create(key, slots) : null;
    return new Framer(divider, sealer, reserve, options);
  }

  /** There is memory for the frames of a batch. */
  get hasRoom(): boolean {
    return this.#room > this.#reserve;
  }

  /** There is memory for the frames of a batch that somebody waits for. */
  get hasUrgentRoom(): boolean {
    return this.#room > 0;
  }

  /** Batches whose frames there is memory for. */
  get #room(): number {
    if (this.#sealer === null) return this.#divider.freeSlots;
    return this.#divider.freeSlots > 0 ? this.#sealer.freeSlots - (FRAMES_OF_BATCH - 1) : 0;
  }

  /** Pages for the next frame, at most. */
  get framePages(): number {
    if (!this.#short) return FRAME_PAGES;
    const pages = Math.floor((SHORT_FRAME_PAGES * PAGE_BYTES) / this.#pageBytes);
    return Math.min(FRAME_PAGES, Math.max(SHORT_FRAME_PAGES, pages));
  }

  /** What so many pages would take of frames, as the last ones say. */
  bytesFor(pages: number): number {
    return pages * this.#pageBytes;
  }

  get counts(): DividerCounts {
    return this.#divider.counts;
  }

  /** Divides the pages in `batch`. */
  divide(pages: BatchPages, options?: DivideOptions): Frame[] {
    const before = this.#divider.counts.frameBytes;
    const frames = this.#divider.divide(this.batch, pages, options);
    const pageBytes = (this.#divider.counts.frameBytes - before) / pages.pages;
    // Pages that need more than those before them are believed at once.
    this.#pageBytes = Math.max(pageBytes, this.#pageBytes + (pageBytes - this.#pageBytes) * WEIGHT);
    return frames.map((frame) => this.#finish(frame, 0));
  }

  /** Nothing that was divided until now is referred to again. */
  forget(): void {
    this.#divider.forget();
  }

  /** Nobody will be able to fetch this frame: `fetchableOnly` refers to nothing in it. */
  setUnfetchable(id: number): void {
    this.#divider.setUnfetchable(id);
  }

  /** Makes a frame anew of its pages in `againBatch`. */
  divideAgain({ id, vm, base, pages, deltas, generation }: Kept): Frame {
    const frame = this.#divider.divideAgain(this.againBatch, { vm, base, pages, ...(deltas && { deltas }) }, id);
    return this.#finish(frame, generation);
  }

  #finish(frame: DividedFrame, generation: number): Frame {
    const { id, vm, base, pages, deltas, references } = frame;
    const meta = this.#withMeta ? frame.bytes.slice(0, frameMetaBytes(frame.bytes)) : undefined;
    const block = this.#sealer?.seal(id, frame.bytes, generation) ?? frame;
    if (block !== frame) frame.release();
    const release = () => {
      block.release();
      this.#onFree();
    };
    return { id, vm, base, pages, deltas, references, meta, bytes: block.bytes, release };
  }
}
