// Parses the records of a PART or END section of RAM: pages, up to EOS. This is the hot path: two steps a page, and no object.

import { PAGE_BYTES } from '../../bindings/abi.js';
import { malformed, nameAt, u32, unsupported } from './bytes.js';
import { FLAG_MASK, type RamBlock, RamFlag } from './format.js';
import type { Steps } from './steps.js';

export interface PageHandler {
  /** A page of the block with this number: bytes[at, at + 4096), valid during the call only. */
  onPage(block: number, offset: number, bytes: Uint8Array, at: number): void;
  /** A page of zeros. */
  onZero(block: number, offset: number): void;
}

export class RamRecords {
  readonly #steps: Steps;
  readonly #handler: PageHandler;
  readonly #blocks: readonly RamBlock[];
  readonly #numbers: ReadonlyMap<string, number>;
  #onEnd: () => void = () => {};
  /** Which CONTINUE means, also in the next section; -1: no record has named one. */
  #block = -1;
  #offset = 0;
  #kind = 0;

  constructor(steps: Steps, handler: PageHandler, blocks: readonly RamBlock[]) {
    this.#steps = steps;
    this.#handler = handler;
    this.#blocks = blocks;
    this.#numbers = new Map(blocks.map(({ name }, number) => [name, number]));
  }

  /** Not one page has come. */
  get empty(): boolean {
    return this.#block < 0;
  }

  /** The number of a block. @throws {AbdmError} PROTOCOL. */
  blockOf(name: string): number {
    const number = this.#numbers.get(name);
    if (number === undefined) throw malformed(`there is no RAM block ${name}`);
    return number;
  }

  /** Records come, until EOS. */
  begin(onEnd: () => void): void {
    this.#onEnd = onEnd;
    this.#steps.next(8, this.#record);
  }

  #record = (bytes: Uint8Array, at: number): void => {
    const low = u32(bytes, at + 4);
    const flags = low & FLAG_MASK;
    const offset = u32(bytes, at) * 2 ** 32 + low - flags;
    if (flags === RamFlag.EOS && offset === 0) return this.#onEnd();
    const kind = flags & ~RamFlag.CONTINUE;
    if (kind !== RamFlag.PAGE && kind !== RamFlag.ZERO) throw recordError(flags);
    this.#kind = kind;
    this.#offset = offset;
    if (flags & RamFlag.CONTINUE) this.#page();
    else this.#steps.next(1, this.#nameLength);
  };

  #nameLength = (bytes: Uint8Array, at: number): void => {
    const length = bytes[at]!;
    if (length === 0) throw malformed('a page is in a RAM block without a name');
    this.#steps.next(length, (name, from) => {
      this.#block = this.blockOf(nameAt(name, from, length));
      this.#page();
    });
  };

  #page(): void {
    const block = this.#blocks[this.#block];
    if (!block) throw malformed('a page is in the same RAM block as the last one, and there is none');
    if (this.#offset + PAGE_BYTES > block.bytes) {
      throw malformed(`a page lies at ${this.#offset} of RAM block ${block.name}, which has ${block.bytes} bytes`);
    }
    if (this.#kind === RamFlag.PAGE) this.#steps.next(PAGE_BYTES, this.#content);
    else this.#steps.next(1, this.#fill);
  }

  #content = (bytes: Uint8Array, at: number): void => {
    this.#steps.next(8, this.#record);
    this.#handler.onPage(this.#block, this.#offset, bytes, at);
  };

  #fill = (bytes: Uint8Array, at: number): void => {
    if (bytes[at] !== 0) throw malformed(`a page is filled with ${bytes[at]}: QEMU fills with nothing but zeros`);
    this.#steps.next(8, this.#record);
    this.#handler.onZero(this.#block, this.#offset);
  };
}

/** Why a record with these flags is none that is understood here. */
export function recordError(flags: number): Error {
  const off = (capability: string) => `turn the capability ${capability} off at the source`;
  if (flags & RamFlag.XBZRLE) return unsupported('XBZRLE pages', off('xbzrle'));
  if (flags & RamFlag.COMPRESS) return unsupported('compressed pages', off('compress'));
  if (flags & RamFlag.MULTIFD_FLUSH) return unsupported('pages on other connections', off('multifd'));
  if (flags & RamFlag.HOOK) return unsupported('a record of RDMA', 'migrate over a socket, not over RDMA');
  return malformed(`there is no RAM record with flags 0x${flags.toString(16)}`);
}
