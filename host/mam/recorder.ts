// Writes the index of frames to the nodes: records of what each frame holds and who has it, a few hundred in a sealed block, each block at R nodes like
// a frame. Whoever has the migration's key then finds everything without the source.
//
//   add -> | records of this block | -- 256, or half a second, or full --> seal -> courier -> kept
//
// A block that is lost, because all of its nodes are, is written again as a new one; of two records of a frame the one in the later block counts.

import { FRAME_PAGES } from '../../bindings/abi.js';
import { RECORDS_ID, RecordsWriter } from './catalog.js';
import type { Chain, Courier } from './courier.js';
import type { Kept } from './ledger.js';
import type { Sealer } from './seal.js';

const RECORDS_AT_ONCE = 256;
const DELAY_MS = 500;

/** A frame, and its generation when it was written: what was made anew since is recorded anew too. */
interface Entry {
  readonly frame: Kept;
  readonly generation: number;
}

interface Written {
  readonly entries: readonly Entry[];
  /** Null while it is on its way. */
  chain: Chain | null;
}

export class Recorder {
  readonly #sealer: Sealer;
  readonly #courier: Courier;
  readonly #onChange: () => void;
  readonly #writer = new RecordsWriter();
  /** In the writer. */
  #entries: Entry[] = [];
  /** Not in the writer yet: its block waits for memory. */
  #queue: Kept[] = [];
  readonly #blocks = new Set<Written>();
  /** Of these, how many are on their way. */
  #underWay = 0;
  readonly #pfns = new Float64Array(FRAME_PAGES);
  #nextId = RECORDS_ID;
  #timer: NodeJS.Timeout | undefined;

  /** `onChange` is called when a block is kept, and when there is memory for another one. */
  constructor(sealer: Sealer, courier: Courier, onChange: () => void) {
    this.#sealer = sealer;
    this.#courier = courier;
    this.#onChange = onChange;
  }

  /** Everything that was added is kept. */
  get idle(): boolean {
    return this.#entries.length + this.#queue.length + this.#underWay === 0;
  }

  /** A frame is kept, where `frame.holders` says; or void. */
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
    if (this.#entries.length > 0) this.#send();
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
        else this.add(frame);
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
      // It may have been lost since; or lost, put again, and recorded already by then.
      if (frame.state !== 'coming' && (frame.holders !== 'destination' || frame.meta)) {
        if (!this.#add(frame)) {
          if (!this.#send()) break;
          this.#add(frame);
        }
        this.#entries.push({ frame, generation: frame.generation });
        if (this.#entries.length >= RECORDS_AT_ONCE) this.#send();
      }
      written++;
    }
    this.#queue.splice(0, written);
  }

  #add({ id, bytes, vm, base, pages, deltas, state, holders, meta }: Kept): boolean {
    const pfns = this.#pfns;
    for (let i = 0; i < pages; i++) pfns[i] = base + (deltas ? deltas[i]! : i);
    const record = { frameId: id, frameBytes: bytes, vm, pfns, pages };
    if (state === 'void') return this.#writer.add({ ...record, nodes: [], isVoid: true });
    if (holders === 'destination') return this.#writer.add({ ...record, nodes: [], meta: meta! });
    return this.#writer.add({ ...record, nodes: holders! });
  }

  /** False if there is no memory for a block just now. */
  #send(): boolean {
    if (this.#sealer.freeSlots === 0) return false;
    const block: Written = { entries: this.#entries, chain: null };
    this.#entries = [];
    this.#blocks.add(block);
    this.#underWay++;
    const id = this.#nextId++;
    const sealed = this.#sealer.seal(id, this.#writer.take());
    const release = () => {
      sealed.release();
      this.#onChange();
    };
    void this.#courier.send({ ...sealed, release }, id).then((chain) => {
      block.chain = chain;
      this.#underWay--;
      // Its meta part is safe: from now on it is read from the block, if ever.
      for (const frame of current(block)) frame.meta = undefined;
      // What waited for memory.
      if (this.#queue.length > 0) this.#write();
      this.#onChange();
    });
    return true;
  }
}

/** The frames that are still as the block says. */
function current({ entries }: Written): Kept[] {
  return entries.filter(({ frame, generation }) => frame.generation === generation).map(({ frame }) => frame);
}
