// Takes in what has come, from whomever: opens its seal, makes sure that it is the frame that it should be, merges it, and sees to what its duplicates need.

import { AbdmError } from '../../bindings/errors.js';
import type { FrameSlot, MergedFrame, Merger } from '../../bindings/merger.js';
import type { Opener } from '../mam/seal.js';
import type { Demand } from './demand.js';
import type { Frame } from './frame.js';
import type { Images } from './images.js';
import type { KnownFrames } from './known.js';

export interface IntakeOptions {
  merger: Merger;
  images: Images;
  known: KnownFrames;
  demand: Demand;
  /** Null: frames are not sealed. */
  opener: Opener | null;
  /** An image cannot be written or read: the others are merged all the same. */
  onFailed(vm: number, error: AbdmError): void;
}

export class Intake {
  /** Bytes of frames that came. */
  bytes = 0;
  readonly #options: IntakeOptions;
  /** Images that could not be written or read, in the midst of something else. */
  readonly #failing: { vm: number; error: AbdmError }[] = [];

  constructor(options: IntakeOptions) {
    this.#options = options;
    const { images } = options;
    images.onError = (vm, error) => {
      images.fail(vm);
      this.#failing.push({ vm, error });
    };
  }

  /**
   * Merges a frame, or one that is known by its number only. Resolves when every page that it has brought is in place, if the source must be asked for some; null: it
   * need not.
   * @throws {AbdmError} what is wrong with the frame.
   */
  merge(frame: Frame | number, slot: FrameSlot, bytes: number): Promise<void> | null {
    const { merger, images, known, opener } = this.#options;
    this.bytes += bytes;
    const id = typeof frame === 'number' ? frame : frame.id;
    const frameBytes = opener ? opener.open(id, slot.bytes.subarray(0, bytes)) : bytes;
    const { byteOffset, buffer } = slot.bytes;
    if (frameBytes < 16 || new DataView(buffer, byteOffset).getBigUint64(8, true) !== BigInt(id)) {
      throw new AbdmError('FRAME_MALFORMED', `what came for frame ${id} is another frame`);
    }
    const merged = this.#settled(() => merger.merge(slot, frameBytes, images, known.onSuperseded));
    return this.#onMerged(typeof frame === 'number' ? known.arrived(id, bytes, merged.vm) : frame, merged);
  }

  /** Merges what the images have of a frame. @throws {AbdmError} if it is not that. */
  restore(frame: Frame, meta: Uint8Array): void {
    const { merger, images } = this.#options;
    const slot = merger.acquire();
    try {
      const merged = this.#settled(() => merger.restore(slot, meta, images));
      if (merged.id !== frame.id) {
        throw new AbdmError('FRAME_MALFORMED', `the record of frame ${frame.id} is of frame ${merged.id}`);
      }
      this.#onMerged(frame, merged);
    } finally {
      slot.release();
    }
  }

  /** Says which images have failed. */
  sayFailed(): void {
    for (const { vm, error } of this.#failing.splice(0)) this.#options.onFailed(vm, error);
  }

  /** Before anybody hears of the frame, also of one of which only some pages could be placed. */
  #settled(merge: () => MergedFrame): MergedFrame {
    try {
      return merge();
    } finally {
      this.#options.images.settle();
    }
  }

  #onMerged(frame: Frame, { vm, waitsFor }: MergedFrame): Promise<void> | null {
    const { images, known, demand } = this.#options;
    frame.waitsFor = waitsFor;
    known.merged(frame, vm);
    known.sweep();
    this.sayFailed();
    // Nobody needs the rest of one that has failed.
    if (images.hasFailed(vm)) return null;
    for (const id of waitsFor) known.need(id);
    const unkept = waitsFor.filter((id) => known.isUnkept(id));
    return unkept.length > 0 ? demand.hold(frame.id, unkept) : null;
  }
}
