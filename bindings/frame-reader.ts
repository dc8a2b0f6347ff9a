// Reads single frames: a page here and there, in any order, as often as wanted, where the merger puts whole images together.
//
//   const slot = reader.acquire();               // room for a frame, in the engine's memory
//   receive(..., slot.bytes);                    // fill it: no copy
//   const frame = reader.read(slot, frameBytes); // checks it, decodes it, proves every page
//   frame.page(3);                               // its bytes; or that they are zero; or which frame has them
//   slot.release();
//
// Knows nothing of which of several frames is the newest: that is for whoever reads.

import {
  FRAME_PAGES,
  ID_BYTES,
  KEY_BYTES,
  MAX_FRAME_BYTES,
  MAX_GANG_PAGES,
  MAX_VMS,
  PAGE_BYTES,
  RESULT_PTR,
} from './abi.js';
import { createEngine, type Engine, MemoryPlan } from './engine.js';
import { AbdmError, frameError } from './errors.js';
import { DELTAS, FRAME_ROOM_BYTES, KINDS, NAMES, PLACES, REFERENCES } from './merge-result.js';
import type { FrameSlot } from './merger.js';
import { requireInteger } from './options.js';
import { Slots } from './slots.js';

/** What a frame says of one of its pages. */
export type FramePage =
  | { readonly kind: 'zero' }
  /** `bytes` is a view of the slot: until its release. */
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array; readonly contentId: Uint8Array }
  /** A duplicate of what slot `slot` of frame `frame` holds. It is that only if its content id is the same there. */
  | { readonly kind: 'elsewhere'; readonly frame: number; readonly slot: number; readonly contentId: Uint8Array };

/** A frame that was read. Its pages' bytes are there until its slot is released. */
export interface ReadFrame {
  readonly id: number;
  readonly vm: number;
  /** Page numbers, ascending, by slot. */
  readonly pfns: readonly number[];
  /** What slot `slot` holds. */
  page(slot: number): FramePage;
}

/** A slot holds a frame, then its decoded pages: they are there as long as the slot is held. */
const SLOT_BYTES = FRAME_ROOM_BYTES + FRAME_PAGES * PAGE_BYTES;
const ZERO_PAGE: FramePage = { kind: 'zero' };

/** Reads frames one by one. One engine and one memory of its own; keeps nothing of what it has read. */
export class FrameReader {
  readonly #engine: Engine;
  readonly #view: DataView;
  readonly #slots: Slots;

  private constructor(engine: Engine, slots: Slots) {
    this.#engine = engine;
    this.#view = new DataView(engine.memory.buffer);
    this.#slots = slots;
  }

  /**
   * Creates a reader with an engine and a memory of its own. Throws USAGE.
   * @param key the migration's secret, 32 bytes, as the divider has it.
   * @param vms pages of each VM of the gang: a frame with others is refused.
   * @param slots frames that can be held at a time. Each takes 514 KiB.
   */
  static async create(key: Uint8Array, vms: readonly { pages: number }[], slots = 2): Promise<FrameReader> {
    if (key.length !== KEY_BYTES) throw new AbdmError('USAGE', `the key has ${key.length} bytes: it needs 32`);
    requireInteger('vms', vms.length, 1, MAX_VMS);
    requireInteger('slots', slots, 1, 4096);
    const pages = vms.reduce((sum, vm) => sum + vm.pages, 0);
    requireInteger('pages of all VMs', pages, 0, MAX_GANG_PAGES);
    const plan = new MemoryPlan();
    // The engine keeps a map of what it has merged; nobody asks it here.
    const wantedPtr = plan.reserve(pages * 8);
    const mergedPtr = plan.reserve(Math.ceil(pages / 8) + 16);
    const slotsPtr = plan.reserve(slots * SLOT_BYTES);
    const engine = await createEngine(plan);
    engine.memory.set(key, slotsPtr);
    engine.exports.setKey(slotsPtr);
    engine.memory.fill(0, slotsPtr, slotsPtr + KEY_BYTES);
    engine.exports.mapInit(wantedPtr, mergedPtr);
    vms.reduce((first, vm, i) => {
      engine.exports.mapVm(i, first, vm.pages);
      return first + vm.pages;
    }, 0);
    return new FrameReader(engine, new Slots('frame', slotsPtr, SLOT_BYTES, slots));
  }

  /** Slots that `acquire` would still find. */
  get freeSlots(): number {
    return this.#slots.free;
  }

  /** Room for one frame. Throws NO_SLOT if all slots are held. */
  acquire(): FrameSlot {
    const slot = this.#slots.take();
    const bytes = this.#engine.memory.subarray(slot.ptr, slot.ptr + FRAME_ROOM_BYTES);
    return { bytes, ptr: slot.ptr, release: () => this.#slots.give(slot) };
  }

  /** Reads the frame of `bytes` bytes in the slot. Throws FRAME_MALFORMED, FRAME_CHECKSUM, FRAME_TAG, OUT_OF_RANGE or CONTENT_MISMATCH. */
  read(slot: FrameSlot, bytes: number): ReadFrame {
    requireInteger('bytes', bytes, 0, MAX_FRAME_BYTES);
    const error = this.#engine.exports.merge(slot.ptr, bytes, slot.ptr + FRAME_ROOM_BYTES);
    if (error !== 0) throw frameError(error, `a frame of ${bytes} bytes`);
    const view = this.#view;
    const base = view.getFloat64(RESULT_PTR + 16, true);
    const slots = Array.from({ length: view.getUint32(RESULT_PTR + 4, true) }, (_, i) => i);
    const pages = slots.map((at) => this.#page(at));
    return {
      id: view.getFloat64(RESULT_PTR + 8, true),
      vm: view.getUint32(RESULT_PTR, true),
      pfns: slots.map((at) => base + view.getUint32(DELTAS + 4 * at, true)),
      page: (at) => {
        requireInteger('slot', at, 0, pages.length - 1);
        return pages[at]!;
      },
    };
  }

  #page(slot: number): FramePage {
    const { memory } = this.#engine;
    if (memory[KINDS + slot] === 0) return ZERO_PAGE;
    const name = this.#view.getUint32(NAMES + 4 * slot, true);
    const contentId = memory.slice(name, name + ID_BYTES);
    const ptr = this.#view.getUint32(PLACES + 4 * slot, true);
    if (ptr !== 0) return { kind: 'bytes', bytes: memory.subarray(ptr, ptr + PAGE_BYTES), contentId };
    const reference = this.#view.getFloat64(REFERENCES + 8 * slot, true);
    return { kind: 'elsewhere', frame: Math.floor(reference / FRAME_PAGES), slot: reference % FRAME_PAGES, contentId };
  }
}
