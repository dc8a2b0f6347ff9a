// The blocks of one migration at a store: which there are, as far as the head or this connection knows, and what is done with all of them.

import type { Engine } from './engine.js';
import { forgotten, type HeadRecord } from './head.js';
import type { Keys } from './records.js';

/** Keys that are asked for at a time. */
const KEYS_AT_ONCE = 512;

export class Contents {
  readonly #engine: Engine;
  readonly #keys: Keys;
  readonly #head: HeadRecord;
  readonly #isSource: boolean;
  /** Blocks that the store said it has. */
  readonly #stored = new Set<number>();
  #storedBytes = 0;

  /** @param isSource whoever has put the blocks knows which there are, and that they must be there. */
  constructor(engine: Engine, keys: Keys, head: HeadRecord, isSource: boolean) {
    this.#engine = engine;
    this.#keys = keys;
    this.#head = head;
    this.#isSource = isSource;
  }

  keyOf(id: number): string {
    return this.#keys.block(this.#head.value.id, id);
  }

  /** The store has said that it has this block. */
  stored(id: number, bytes: number): void {
    if (!this.#stored.has(id)) this.#storedBytes += bytes;
    this.#stored.add(id);
  }

  /** Ids of the first blocks from `from` on. */
  async list(from: number): Promise<number[]> {
    for (const ids of this.#possible(from)) {
      const there = await this.#engine.touch(this.#keysOf(ids), null);
      const found = ids.filter((_, i) => there[i]);
      if (found.length > 0) return found;
    }
    return [];
  }

  /** They stay for so long from now on, and the head. @throws {AbdmError} PEER_GONE, surely, if not all are there that were stored. */
  async touch(ttlMs: number, address: string): Promise<void> {
    let missing = 0;
    for (const ids of this.#isSource ? this.#known() : this.#possible(0)) {
      const there = await this.#engine.touch(this.#keysOf(ids), ttlMs);
      if (this.#isSource) missing += there.filter((is) => !is).length;
    }
    if (missing > 0) throw forgotten(`${address} has lost ${missing} of ${this.#stored.size} blocks that it had taken`);
    await this.#engine.touch([this.#keys.head], ttlMs);
  }

  /** Removes everything, step by step. The head goes last, for it leads to all else. */
  async remove(step: <T>(done: Promise<T>) => Promise<T>): Promise<{ frames: number; bytes: number }> {
    const { head, claim, source } = this.#keys;
    let frames = 0;
    await step(this.#engine.remove([source]));
    for (const ids of this.#possible(0)) frames += await step(this.#engine.remove(this.#keysOf(ids)));
    await step(this.#engine.remove([claim, head]));
    return { frames, bytes: this.#storedBytes };
  }

  /** Removes what is left of what was lost: whoever puts it again does so under another head. */
  async abandon(): Promise<void> {
    await this.#head.remove();
    for (const ids of this.#known()) await this.#engine.remove(this.#keysOf(ids));
  }

  *#known(): Iterable<number[]> {
    const all = [...this.#stored];
    for (let i = 0; i < all.length; i += KEYS_AT_ONCE) yield all.slice(i, i + KEYS_AT_ONCE);
  }

  /** Ids of all blocks that there may be from `from` on, ascending. */
  *#possible(from: number): Iterable<number[]> {
    for (const [first, end] of [...this.#head.value.ends].sort(([a], [b]) => a - b)) {
      for (let id = Math.max(from, first); id < end; id += KEYS_AT_ONCE) {
        yield Array.from({ length: Math.min(KEYS_AT_ONCE, end - id) }, (_, i) => id + i);
      }
    }
  }

  #keysOf(ids: readonly number[]): string[] {
    return ids.map((id) => this.keyOf(id));
  }
}
