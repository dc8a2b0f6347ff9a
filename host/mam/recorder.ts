// Writes the index of frames to the nodes: records of what each frame holds and who has it, a few hundred in a sealed block, each block at R nodes like
// a frame. Whoever has the migration's key then finds everything without the source.
//
//   add -> | records of this block | -- 256, or half a second, or full --> seal -> courier -> kept
//
// A block that is lost, because all of its nodes are, is written again as a new one; of two records of a frame the one in the later block counts.

import { RECORDS_ID, RecordsWriter } from './catalog.js';
import type { Chain, Courier } from './courier.js';
import type { Kept } from './ledger.js';
import type { Sealer } from './seal.js';

const RECORDS_AT_ONCE = 256;
const DELAY_MS = 500;

interface Written {
  readonly frames: readonly Kept[];
  /** The frames' generations when they were written: what was made anew since is recorded anew too. */
  readonly generations: readonly number[];
  /** Null while it is on its way. */
  chain: Chain | null;
}

export class Recorder {
  readonly #sealer: Sealer;
  readonly #courier: Courier;
  readonly #onChange: () => void;
  readonly #writer = new RecordsWriter();
  /** In the writer. */
  #frames: Kept[] = [];
  /** Not in the writer yet: its block waits for memory. */
  #queue: Kept[] = [];
  readonly #blocks = new Set<Written>();
  #nextId = RECORDS_ID;
  #timer: NodeJS.Timeout | undefined;

  /** `onChange` is called when a block is kept. */
  constructor(sealer: Sealer, courier: Courier, onChange: () => void) {
    this.#sealer = sealer;
    this.#courier = courier;
    this.#onChange = onChange;
  }

  /** Everything that was added is kept. */
  get idle(): boolean {
    return this.#frames.length + this.#queue.length === 0 && [...this.#blocks].every(({ chain }) => chain);
  }

  /** A frame is kept, where `frame.holders` says. */
  add(frame: Kept): void {
    this.#queue.push(frame);
    this.#write();
    this.#timer ??= setTimeout(() => this.flush(), DELAY_MS);
  }

  /** What was added goes to the nodes at once. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#write();
    if (this.#frames.length > 0) this.#send();
  }

  /**
   * Writes the blocks again that nobody has any more. Returns frames that can no longer be recorded: those that went straight to the destination, whose
   * meta parts were in such a block.
   */
  recover(): Kept[] {
    const unprovable: Kept[] = [];
    for (const block of this.#blocks) {
      if (!block.chain?.every(({ gone }) => gone)) continue;
      this.#blocks.delete(block);
      for (const frame of current(block)) {
        if (frame.holders === 'destination') unprovable.push(frame);
        else if (frame.holders) this.add(frame);
      }
    }
    return unprovable;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #write(): void {
    let written = 0;
    for (const frame of this.#queue) {
      // It may have been lost since.
      if (frame.holders !== null) {
        if (!this.#add(frame)) {
          if (!this.#send()) break;
          this.#add(frame);
        }
        this.#frames.push(frame);
        if (this.#frames.length >= RECORDS_AT_ONCE) this.#send();
      }
      written++;
    }
    this.#queue.splice(0, written);
  }

  #add({ id, bytes, vm, base, pages, deltas, holders, meta }: Kept): boolean {
    const pfns = Array.from({ length: pages }, (_, i) => base + (deltas ? deltas[i]! : i));
    const record = { frameId: id, frameBytes: bytes, vm, pfns };
    if (holders === 'destination') return this.#writer.add({ ...record, nodes: [], meta: meta! });
    return this.#writer.add({ ...record, nodes: holders! });
  }

  /** False if there is no memory for a block just now. */
  #send(): boolean {
    if (this.#sealer.freeSlots === 0) return false;
    const frames = this.#frames;
    this.#frames = [];
    const block: Written = { frames, generations: frames.map(({ generation }) => generation), chain: null };
    this.#blocks.add(block);
    const id = this.#nextId++;
    void this.#courier.send(this.#sealer.seal(id, this.#writer.take()), id, false).then((chain) => {
      block.chain = chain;
      // Its meta part is safe: from now on it is read from the block, if ever.
      for (const frame of current(block)) frame.meta = undefined;
      // What waited for memory.
      if (this.#queue.length > 0) this.#write();
      this.#onChange();
    });
    return true;
  }
}

function current({ frames, generations }: Written): Kept[] {
  return frames.filter(({ generation }, i) => generation === generations[i]);
}
