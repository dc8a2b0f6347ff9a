// The pages of one class, in the memory of an engine, where every kernel and every peer finds them.
//
// That is where they are in earnest: the source reads pages straight into the engine's memory. For a peer they are Buffers over that memory,
// made beforehand; if it has to copy them into a memory of its own, that is a part of its price.
//
//   | engine's fixed part | pages | room for output: 64 KiB | blocks |
//
// Stamps. A divider that is given the same pages a second time finds nothing but duplicates. So on each pass through the pool a number is
// stamped into every page that is not zero: pages that were equal stay equal, and none equals a page of an earlier pass.
import { PAGE_BYTES } from 'abdm';
import type { EngineExports } from '#abdm/bindings/abi.js';
import { createEngine, MemoryPlan } from '#abdm/bindings/engine.js';
import type { PageClass, Recipe } from './pages.js';

const OUT_BYTES = 65_536;
/** A block of a page that does not compress, with two lengths before it, and some. */
const BLOCK_BYTES = 4160;
const ZERO = Buffer.alloc(PAGE_BYTES);
const STAMP_AT = PAGE_BYTES - 8;

export class Pool {
  readonly views: readonly Buffer[];
  readonly #used: Uint8Array;

  private constructor(
    readonly pageClass: PageClass,
    readonly pages: number,
    readonly exports: EngineExports,
    /** All of the engine's memory. */
    readonly memory: Buffer,
    readonly pagesPtr: number,
    readonly outPtr: number,
    readonly blocksPtr: number,
  ) {
    this.views = Array.from({ length: pages }, (_, i) => memory.subarray(this.ptr(i), this.ptr(i + 1)));
    this.#used = Uint8Array.from(this.views, (view) => (Buffer.compare(view, ZERO) === 0 ? 0 : 1));
  }

  static async create(recipe: Recipe, pageClass: PageClass, pages: number, key: Uint8Array): Promise<Pool> {
    const plan = new MemoryPlan();
    const pagesPtr = plan.reserve(pages * PAGE_BYTES);
    const outPtr = plan.reserve(OUT_BYTES);
    const blocksPtr = plan.reserve(pages * BLOCK_BYTES);
    const engine = await createEngine(plan);
    const memory = Buffer.from(engine.memory.buffer);
    memory.set(key, outPtr);
    engine.exports.setKey(outPtr);
    recipe.fill(memory.subarray(pagesPtr, pagesPtr + pages * PAGE_BYTES), pageClass);
    return new Pool(pageClass, pages, engine.exports, memory, pagesPtr, outPtr, blocksPtr);
  }

  /** Where page `index` is in the engine's memory. */
  ptr(index: number): number {
    return this.pagesPtr + index * PAGE_BYTES;
  }

  /** All pages. */
  get bytes(): Buffer {
    return this.memory.subarray(this.pagesPtr, this.ptr(this.pages));
  }

  /** Stamps pages of the pool, or of a copy of it whose first byte is `target[at]`. */
  stamp(first: number, pages: number, pass: number, target: Buffer = this.memory, at: number = this.pagesPtr): void {
    for (let i = first; i < first + pages; i++) {
      if (this.#used[i]) target.writeUInt32LE(pass, at + i * PAGE_BYTES + STAMP_AT);
    }
  }
}
