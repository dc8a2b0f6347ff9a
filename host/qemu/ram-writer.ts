// Writes pages as RAM records, within the sections of a stream (writer.ts).

import { PAGE_BYTES } from '../../bindings/abi.js';
import { type RamBlock, RamFlag } from './format.js';
import type { Output } from './output.js';

export class RamWriter {
  readonly #out: Output;
  readonly #blocks: readonly RamBlock[];
  /** The block of the last record; -1: the next record names its own. */
  #block = -1;

  constructor(out: Output, blocks: readonly RamBlock[]) {
    this.#out = out;
    this.#blocks = blocks;
  }

  /** bytes[at, at + 4096), copied. */
  page(block: number, offset: number, bytes: Uint8Array, at: number): void {
    this.#record(block, offset, RamFlag.PAGE);
    this.#out.bytes(bytes, at, at + PAGE_BYTES);
  }

  zero(block: number, offset: number): void {
    this.#record(block, offset, RamFlag.ZERO);
    this.#out.u8(0);
  }

  /** No record follows, or none in this section. */
  end(): void {
    this.#out.u64(RamFlag.EOS);
    this.#block = -1;
  }

  #record(block: number, offset: number, kind: number): void {
    if (block === this.#block) return this.#out.u64(offset + (kind | RamFlag.CONTINUE));
    this.#out.u64(offset + kind);
    this.#out.name(this.#blocks[block]!.name);
    this.#block = block;
  }
}
