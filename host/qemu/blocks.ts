// Parses what MEM_SIZE is followed by: the RAM blocks.
//
// After ADVISE a block whose page size is not the host's has its page size behind it, and nothing says which has. It can be told from what comes: a page
// size begins with a zero byte, a name's length never is zero; and behind the last block a page size has none of the flags that every record has.

import { PAGE_BYTES } from '../../bindings/abi.js';
import { malformed, nameAt, u64 } from './bytes.js';
import { FLAG_MASK, MAX_BLOCKS, type RamBlock } from './format.js';
import type { Steps } from './steps.js';

/** The largest pages that hosts have, and more. */
const MAX_HOST_PAGE_BYTES = 2 ** 40;

export class BlockList {
  readonly #steps: Steps;
  readonly #blocks: RamBlock[] = [];
  readonly #names = new Set<string>();
  /** Of the blocks that are still to come. */
  #rest: number;
  readonly #advised: boolean;
  readonly #then: (blocks: readonly RamBlock[], record: Uint8Array, at: number) => void;

  /**
   * @param totalBytes of all blocks.
   * @param advised whether page sizes may follow.
   * @param then gets the blocks, and the 8 bytes of the record behind them.
   */
  constructor(
    steps: Steps,
    totalBytes: number,
    advised: boolean,
    then: (blocks: readonly RamBlock[], record: Uint8Array, at: number) => void,
  ) {
    if (totalBytes === 0) throw malformed('there is no memory in it');
    this.#steps = steps;
    this.#rest = totalBytes;
    this.#advised = advised;
    this.#then = then;
    steps.next(1, this.#length);
  }

  #length = (bytes: Uint8Array, at: number): void => {
    const length = bytes[at]!;
    if (length > 0) this.#steps.next(length, (name, from) => this.#name(nameAt(name, from, length)));
    // 7 more bytes of a page size: the first is this one.
    else
      this.#steps.next(7, (rest, from) => this.#pageBytes(u64(Uint8Array.of(0, ...rest.subarray(from, from + 7)), 0)));
  };

  #name(name: string): void {
    if (this.#names.has(name)) throw malformed(`there are two RAM blocks ${name}`);
    if (this.#blocks.length === MAX_BLOCKS) throw malformed(`there are more than ${MAX_BLOCKS} RAM blocks`);
    this.#names.add(name);
    this.#steps.next(8, (bytes, at) => this.#block(name, u64(bytes, at)));
  }

  #block(name: string, bytes: number): void {
    if (bytes === 0 || bytes % PAGE_BYTES !== 0 || bytes > this.#rest) {
      throw malformed(`RAM block ${name} has ${bytes} bytes, of ${this.#rest} that were announced and not listed`);
    }
    this.#rest -= bytes;
    this.#blocks.push({ name, bytes, hostPageBytes: PAGE_BYTES });
    if (this.#rest > 0) this.#steps.next(1, this.#length);
    else this.#steps.next(8, this.#behind);
  }

  #behind = (bytes: Uint8Array, at: number): void => {
    if (((bytes[at + 6]! << 8) | bytes[at + 7]!) & FLAG_MASK) return this.#then(this.#blocks, bytes, at);
    this.#pageBytes(u64(bytes, at));
  };

  #pageBytes(size: number): void {
    const last = this.#blocks.pop();
    if (!this.#advised || !last || last.hostPageBytes !== PAGE_BYTES) throw malformed('a page size has no RAM block');
    if (size <= PAGE_BYTES || size > MAX_HOST_PAGE_BYTES || !Number.isInteger(Math.log2(size))) {
      throw malformed(`RAM block ${last.name} has pages of ${size} bytes`);
    }
    this.#blocks.push({ ...last, hostPageBytes: size });
    if (this.#rest > 0) this.#steps.next(1, this.#length);
    else this.#steps.next(8, this.#behind);
  }
}
