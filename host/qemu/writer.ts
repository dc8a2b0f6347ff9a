// Writes a migration stream for a destination (-incoming). What is written is gathered until `flush`; a destination takes pages as they come, and needs no
// section to end for it.
//
//   pre-copy     begin, pages, `runAfter(state)`: the guest runs when all has come
//   post-copy    begin with `postCopy`, pages, discards, `runNow(state)`, pages, `end`
//
// A destination of post-copy has no mercy, and so the caller keeps to this: before `runNow` at least one discard (without, it waits for ever: so that
// throws), and one of every page that was written to or never sent; after it no page twice, and every page in the end, but zero pages that are
// sent when it asks for them; of a block with huge pages whole host pages, each in one piece.

import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import {
  Command,
  type Configuration,
  type DeviceState,
  MAGIC,
  MAX_DISCARD_RANGES,
  Mark,
  RAM_VERSION,
  type RamBlock,
  RamFlag,
  STREAM_VERSION,
} from './format.js';
import { Output } from './output.js';
import { pack } from './package.js';
import { RamWriter } from './ram-writer.js';

/** The number of the one section that has one: ours to choose. */
const RAM_ID = 2;
const OPENING_PING = 1;
/** Where a source gave no description: pre-copy must have one, and nobody reads it. */
const NO_DESCRIPTION = Buffer.from('{"devices":[]}', 'latin1');

export interface Beginning {
  readonly configuration: Configuration;
  readonly blocks: readonly RamBlock[];
  /** Whether the destination answers on this connection; post-copy must have it. */
  readonly returnPath: boolean;
  readonly postCopy: boolean;
}

export class StreamWriter {
  readonly #out: Output;
  readonly #blocks: readonly RamBlock[];
  readonly #postCopy: boolean;
  readonly #ram: RamWriter;
  /** A PART section is open. */
  #open = false;
  #discarded = false;
  #running = false;

  /**
   * Writes all that comes before pages.
   * @param send gets bytes that are its own, until it releases them.
   * @throws {AbdmError} USAGE.
   */
  constructor(send: (bytes: Uint8Array) => void, { configuration, blocks, returnPath, postCopy }: Beginning) {
    if (postCopy && !returnPath) throw misuse('post-copy needs a return path');
    this.#out = new Output(send);
    this.#blocks = blocks;
    this.#postCopy = postCopy;
    this.#ram = new RamWriter(this.#out, blocks);
    this.#header(configuration);
    if (returnPath) {
      this.#command(Command.OPEN_RETURN_PATH, 0);
      this.ping(OPENING_PING);
    }
    if (postCopy) {
      this.#command(Command.ADVISE, 16);
      // Page sizes are powers of two: their sum without repetition is their union.
      this.#out.u64(
        [...new Set(blocks.map(({ hostPageBytes }) => hostPageBytes))].reduce((sum, bytes) => sum + bytes, 0),
      );
      this.#out.u64(PAGE_BYTES);
    }
    this.#setup();
  }

  /** bytes[at, at + 4096), copied. */
  page(block: number, offset: number, bytes: Uint8Array, at: number): void {
    this.#part();
    this.#ram.page(block, offset, bytes, at);
  }

  zero(block: number, offset: number): void {
    this.#part();
    this.#ram.zero(block, offset);
  }

  /** Its answer says that all before it was taken in. */
  ping(value: number): void {
    this.#close();
    this.#command(Command.PING, 4);
    this.#out.u32(value);
  }

  /** Ranges of a block as start, bytes, start, bytes, ... @throws {AbdmError} USAGE. */
  discard(block: number, ranges: readonly number[]): void {
    if (!this.#postCopy || this.#running) throw misuse('nothing can be discarded in pre-copy, or once the guest runs');
    this.#close();
    const { name } = this.#blocks[block]!;
    for (let i = 0; i < ranges.length; i += MAX_DISCARD_RANGES * 2) {
      const some = ranges.slice(i, i + MAX_DISCARD_RANGES * 2);
      this.#command(Command.RAM_DISCARD, 3 + name.length + some.length * 8);
      this.#out.u8(0);
      this.#out.name(name);
      this.#out.u8(0);
      for (const number of some) this.#out.u64(number);
      this.#discarded = true;
    }
  }

  /** Post-copy: the guest runs, and asks for the pages that it waits for. @throws {AbdmError} USAGE. */
  runNow(state: DeviceState): void {
    if (!this.#discarded || this.#running) throw misuse('a guest runs once, after a discard');
    this.#close();
    const bytes = pack(state);
    this.#command(Command.PACKAGED, 4);
    this.#out.u32(bytes.length);
    this.#out.bytes(bytes);
    this.#running = true;
    this.#out.flush();
  }

  /** Post-copy: every page was written. @throws {AbdmError} USAGE. */
  end(): void {
    if (!this.#running) throw misuse('a guest that does not run cannot have all');
    this.#lastSection();
    this.#out.u8(Mark.EOF);
    this.#out.flush();
  }

  /** Pre-copy: every page was written; the guest runs, if it ran, once it has taken its state. @throws {AbdmError} USAGE. */
  runAfter({ sections, description }: DeviceState): void {
    if (this.#running) throw misuse('a guest runs once');
    this.#lastSection();
    this.#out.bytes(sections);
    this.#out.u8(Mark.EOF);
    this.#out.u8(Mark.DESCRIPTION);
    const text = description ?? NO_DESCRIPTION;
    this.#out.u32(text.length);
    this.#out.bytes(text);
    this.#running = true;
    this.#out.flush();
  }

  flush(): void {
    this.#out.flush();
  }

  /** As `flush`; pages since the last one lie in sections of their own, which may be sent in another order: once the guest has its state, none is sent twice. */
  cut(): void {
    this.#close();
    this.#out.flush();
  }

  /** Nobody needs these bytes any more, which `send` got. */
  release(bytes: Uint8Array): void {
    this.#out.release(bytes);
  }

  #header({ machine, targetPageBits, uuid }: Configuration): void {
    this.#out.u32(MAGIC);
    this.#out.u32(STREAM_VERSION);
    this.#out.u8(Mark.CONFIGURATION);
    this.#out.u32(machine.length);
    this.#out.bytes(Buffer.from(machine, 'latin1'));
    const subsection = (name: string) => {
      this.#out.u8(Mark.SUBSECTION);
      this.#out.name(`configuration/${name}`);
      this.#out.u32(1);
    };
    if (targetPageBits !== null) {
      subsection('target-page-bits');
      this.#out.u32(targetPageBits);
    }
    if (uuid !== null) {
      subsection('uuid');
      this.#out.bytes(uuid);
    }
  }

  #setup(): void {
    this.#sectionHead(Mark.START);
    this.#out.name('ram');
    this.#out.u32(0);
    this.#out.u32(RAM_VERSION);
    this.#out.u64(this.#blocks.reduce((sum, { bytes }) => sum + bytes, 0) + RamFlag.MEM_SIZE);
    for (const { name, bytes, hostPageBytes } of this.#blocks) {
      this.#out.name(name);
      this.#out.u64(bytes);
      if (this.#postCopy && hostPageBytes !== PAGE_BYTES) this.#out.u64(hostPageBytes);
    }
    this.#sectionEnd();
  }

  #command(command: number, length: number): void {
    this.#out.u8(Mark.COMMAND);
    this.#out.u16(command);
    this.#out.u16(length);
  }

  #sectionHead(mark: number): void {
    this.#out.u8(mark);
    this.#out.u32(RAM_ID);
  }

  #sectionEnd(): void {
    this.#ram.end();
    this.#out.u8(Mark.FOOTER);
    this.#out.u32(RAM_ID);
  }

  #part(): void {
    if (!this.#open) this.#sectionHead(Mark.PART);
    this.#open = true;
  }

  #close(): void {
    if (this.#open) this.#sectionEnd();
    this.#open = false;
  }

  #lastSection(): void {
    this.#close();
    this.#sectionHead(Mark.END);
    this.#sectionEnd();
  }
}

function misuse(text: string): AbdmError {
  return new AbdmError('USAGE', `the migration stream: ${text}`);
}
