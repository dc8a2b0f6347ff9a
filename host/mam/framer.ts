// From pages to what leaves: frames, sealed where connections are private. Holds two batches of pages, one for what is divided as it comes and one for
// what has to be divided again.

import { frameMetaBytes } from '../../bindings/abi.js';
import type { Batch, BatchPages, Compression, DividedFrame, DividerCounts } from '../../bindings/divider.js';
import { Divider } from '../../bindings/divider.js';
import type { Kept } from './ledger.js';
import type { Frame } from './scatter.js';
import { Sealer } from './seal.js';

/** Frames' batches that may be on their way at a time: three nodes' windows. */
const SLOTS = 48;
/** Where frames are sealed, they leave the divider's memory at once. */
const UNSEALED_SLOTS = 2;
/** A batch makes no more frames than this. */
const FRAMES_OF_BATCH = 2;

export interface FramerOptions {
  /** The migration's secret. */
  readonly key: Uint8Array;
  readonly compress: Compression;
  readonly sealed: boolean;
  /** Frames carry their meta parts beside them: the destination may get them. */
  readonly withMeta: boolean;
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

  private constructor(divider: Divider, sealer: Sealer | null, { withMeta, onFree }: FramerOptions) {
    this.#divider = divider;
    this.#sealer = sealer;
    this.#withMeta = withMeta;
    this.#onFree = onFree;
    this.batch = divider.acquire();
    this.againBatch = divider.acquire();
  }

  static async create(options: FramerOptions): Promise<Framer> {
    const { key, compress, sealed } = options;
    const divider = await Divider.create({ key, compress, slots: sealed ? UNSEALED_SLOTS : SLOTS });
    return new Framer(divider, sealed ? await Sealer.create(key, SLOTS) : null, options);
  }

  /** There is memory for the frames of a batch. */
  get hasRoom(): boolean {
    return this.#divider.freeSlots > 0 && (this.#sealer === null || this.#sealer.freeSlots >= FRAMES_OF_BATCH);
  }

  get batchPages(): number {
    return this.#divider.batchPages;
  }

  get counts(): DividerCounts {
    return this.#divider.counts;
  }

  /** Divides the pages in `batch`. */
  divide(pages: BatchPages): Frame[] {
    return this.#divider.divide(this.batch, pages).map((frame) => this.#finish(frame, 0));
  }

  /** Makes a frame anew of its pages in `againBatch`. */
  divideAgain({ id, vm, base, pages, deltas, generation }: Kept): Frame {
    const frame = this.#divider.divideAgain(this.againBatch, { vm, base, pages, ...(deltas && { deltas }) }, id);
    return this.#finish(frame, generation);
  }

  #finish(frame: DividedFrame, generation: number): Frame {
    const { id, vm, base, pages, deltas } = frame;
    const meta = this.#withMeta ? frame.bytes.slice(0, frameMetaBytes(frame.bytes)) : undefined;
    const block = this.#sealer?.seal(id, frame.bytes, generation) ?? frame;
    if (block !== frame) frame.release();
    const release = () => {
      block.release();
      this.#onFree();
    };
    return { id, vm, base, pages, deltas, meta, bytes: block.bytes, release };
  }
}
