// Parses the migration stream of a QEMU, pre-copy or post-copy, as it comes. Whatever it does not understand it refuses, saying what at the source to
// turn off; nothing is skipped. Of what comes it keeps the device state (at most 64 MiB) and a page: contents are handed out where they lie.
//
//   HEADER -> TOP -> START ram -> TOP <-> PART ram      (commands at TOP: ADVISE before START, RAM_DISCARD before PACKAGED)
//              TOP -> END ram -> TAIL -> ended           pre-copy
//              TOP -> PACKAGED -> TOP ... END ram -> EOF -> ended      post-copy

import { PAGE_BYTES } from '../../bindings/abi.js';
import type { AbdmError } from '../../bindings/errors.js';
import { BlockList } from './blocks.js';
import { Gathered, malformed, nameAt, u16, u32, u64, unsupported } from './bytes.js';
import { ConfigurationParser } from './configuration.js';
import {
  Command,
  type Configuration,
  type DeviceState,
  FLAG_MASK,
  MAX_DEVICE_STATE_BYTES,
  MAX_DISCARD_RANGES,
  Mark,
  RAM_VERSION,
  type RamBlock,
  RamFlag,
} from './format.js';
import { unpack } from './package.js';
import { type PageHandler, RamRecords, recordError } from './ram.js';
import { Steps } from './steps.js';
import { Tail } from './tail.js';

/** What a stream brings, in its order. Whatever is thrown here ends the parser. */
export interface StreamHandler extends PageHandler {
  onConfiguration(configuration: Configuration): void;
  /** The source waits for answers on this connection, and, before it ends, for SHUT. */
  onReturnPath(): void;
  /** It may be answered with PONG and the same value; right behind the device state of post-copy, that means that it is loaded. */
  onPing(value: number): void;
  /** The blocks, in the order of their numbers. `postCopy`: it may become post-copy, and pages of `blocks` are requested. */
  onBlocks(blocks: readonly RamBlock[], postCopy: boolean): void;
  /** These bytes of a block have changed, or were never sent: what was sent of them is not valid. */
  onDiscard(block: number, start: number, bytes: number): void;
  /** The guest stands still, and this is all of it but its memory. In post-copy pages follow, and none comes twice from here on. `state` is the handler's. */
  onDeviceState(state: DeviceState, postCopy: boolean): void;
  /** All has come. */
  onEnd(): void;
}

export class StreamParser {
  readonly #steps: Steps;
  readonly #handler: StreamHandler;
  #advised = false;
  #packaged = false;
  #blocks: readonly RamBlock[] = [];
  #records: RamRecords | null = null;
  #ramId = 0;
  #tail: Tail | null = null;
  #ended = false;
  #error: unknown = null;

  constructor(handler: StreamHandler) {
    this.#handler = handler;
    this.#steps = new Steps(4, () => {});
    new ConfigurationParser(this.#steps, (configuration, mark) => {
      handler.onConfiguration(configuration);
      this.#mark(mark);
    });
  }

  /** Pages have begun to come: all is known that comes before them, and was understood. */
  get hasPages(): boolean {
    return this.#records !== null && !this.#records.empty;
  }

  /** All has come, and was good. */
  get ended(): boolean {
    return this.#ended;
  }

  /**
   * Takes the next bytes, in chunks of any size. They are not kept.
   * @throws {AbdmError} PROTOCOL if no QEMU sends that, IMAGE if it does and nobody here understands it; from then on always the same.
   */
  feed(chunk: Uint8Array): void {
    this.#guarded(() => {
      if (this.#ended && chunk.length > 0) throw malformed('something follows its end');
      this.#steps.feed(chunk);
      const state = this.#tail?.complete();
      if (state) this.#end(state);
    });
  }

  /** The connection has ended. @throws {AbdmError} PROTOCOL if not all has come. */
  end(): void {
    this.#guarded(() => {
      if (this.#ended) return;
      if (!this.#tail) throw malformed('it ends before its end: has the source failed, or was it cancelled?');
      this.#end(this.#tail.ended());
    });
  }

  #guarded(work: () => void): void {
    if (this.#error) throw this.#error;
    try {
      work();
    } catch (error) {
      this.#error = error;
      throw error;
    }
  }

  /** @param state that of a pre-copy migration. */
  #end(state: DeviceState | null): void {
    this.#ended = true;
    this.#tail = null;
    if (state) this.#handler.onDeviceState(state, false);
    this.#handler.onEnd();
  }

  #top = (): void => this.#steps.next(1, (bytes, at) => this.#mark(bytes[at]!));

  #mark(mark: number): void {
    if (mark === Mark.COMMAND) this.#steps.next(4, this.#command);
    else if (mark === Mark.START || mark === Mark.FULL)
      this.#steps.next(5, (bytes, at) => this.#section(mark, bytes, at));
    else if (mark === Mark.PART || mark === Mark.END) this.#steps.next(4, (bytes, at) => this.#ram(mark, bytes, at));
    else throw malformed(`there is nothing that begins with ${mark} where one begins`);
  }

  /** A section with a name: its number, and the name's length. */
  #section(mark: number, bytes: Uint8Array, at: number): void {
    const id = u32(bytes, at);
    const length = bytes[at + 4]!;
    this.#steps.next(length + 8, (piece, from) => {
      const name = nameAt(piece, from, length);
      if (mark !== Mark.START || name !== 'ram' || u32(piece, from + length) !== 0) throw sectionError(mark, name);
      if (this.#records) throw malformed('memory begins twice');
      const version = u32(piece, from + length + 4);
      if (version !== RAM_VERSION) throw malformed(`memory has version ${version}, not ${RAM_VERSION}`);
      this.#ramId = id;
      this.#steps.next(8, this.#memorySize);
    });
  }

  #memorySize = (bytes: Uint8Array, at: number): void => {
    const flags = u16(bytes, at + 6) & FLAG_MASK;
    if (flags !== RamFlag.MEM_SIZE) throw recordError(flags);
    new BlockList(this.#steps, u64(bytes, at) - flags, this.#advised, (blocks, record, from) => {
      const end = u64(record, from);
      if (end !== RamFlag.EOS) throw recordError(end & FLAG_MASK);
      this.#blocks = blocks;
      this.#records = new RamRecords(this.#steps, this.#handler, blocks);
      this.#footer(() => {
        this.#top();
        this.#handler.onBlocks(blocks, this.#advised);
      });
    });
  };

  #ram(mark: number, bytes: Uint8Array, at: number): void {
    if (!this.#records || u32(bytes, at) !== this.#ramId) throw malformed('a section goes on that has not begun');
    this.#records.begin(() => this.#footer(mark === Mark.PART ? this.#top : this.#behindMemory));
  }

  #footer(then: () => void): void {
    this.#steps.next(5, (bytes, at) => {
      if (bytes[at] !== Mark.FOOTER || u32(bytes, at + 1) !== this.#ramId) throw malformed('memory has no footer');
      then();
    });
  }

  #behindMemory = (): void => {
    // A source with multifd may say no word of it here: memory that is on other connections only would be lost.
    if (this.#records!.empty) throw unsupported('no page', 'turn the capability multifd off at the source');
    if (this.#packaged) {
      return this.#steps.next(1, (bytes, at) => {
        if (bytes[at] !== Mark.EOF) throw malformed('something follows the memory of a guest that runs already');
        this.#steps.next(1, () => {
          throw malformed('something follows its end');
        });
        this.#end(null);
      });
    }
    const tail = new Tail();
    this.#tail = tail;
    this.#steps.through(Number.POSITIVE_INFINITY, (bytes, at, end) => tail.add(bytes.subarray(at, end)));
  };

  #command = (bytes: Uint8Array, at: number): void => {
    const command = u16(bytes, at);
    const length = u16(bytes, at + 2);
    const has = (bytes: number) => {
      if (length !== bytes) throw malformed(`command ${command} has ${length} bytes, not ${bytes}`);
    };
    switch (command) {
      case Command.OPEN_RETURN_PATH:
        has(0);
        this.#top();
        return this.#handler.onReturnPath();
      case Command.SWITCHOVER_START:
        has(0);
        return this.#top();
      case Command.PING:
        has(4);
        return this.#steps.next(4, this.#ping);
      case Command.ADVISE:
        if (length === 0) throw unsupported('post-copy of something else than memory', 'turn dirty-bitmaps off');
        has(16);
        return this.#steps.next(16, this.#advise);
      case Command.RAM_DISCARD:
        if (length > 3 + 255 + 16 * MAX_DISCARD_RANGES || length < 4) {
          throw malformed(`a RAM_DISCARD has ${length} bytes`);
        }
        return this.#steps.next(length, (body, from) => this.#discard(body.subarray(from, from + length)));
      case Command.PACKAGED:
        has(4);
        return this.#steps.next(4, this.#package);
      case Command.ENABLE_COLO:
        throw unsupported('COLO', 'turn the capability x-colo off at the source');
      case Command.RESUME:
      case Command.RECV_BITMAP:
        throw unsupported('a migration that goes on after a pause', 'begin it anew');
      default:
        throw malformed(`there is a command ${command} where none can be`);
    }
  };

  #ping = (bytes: Uint8Array, at: number): void => {
    this.#top();
    this.#handler.onPing(u32(bytes, at));
  };

  #advise = (bytes: Uint8Array, at: number): void => {
    if (this.#advised || this.#records) throw malformed('ADVISE comes twice, or too late');
    const pageBytes = u64(bytes, at + 8);
    if (pageBytes !== PAGE_BYTES)
      throw unsupported(`guest pages of ${pageBytes} bytes`, 'use a guest with pages of 4 KiB');
    this.#advised = true;
    this.#top();
  };

  #discard(body: Uint8Array): void {
    if (!this.#advised || !this.#records || this.#packaged)
      throw malformed('a RAM_DISCARD comes too early, or too late');
    const length = body[1]!;
    const ranges = body.length - (3 + length);
    if (body[0] !== 0 || ranges <= 0 || ranges % 16 !== 0 || body[2 + length] !== 0) {
      throw malformed('a RAM_DISCARD is not what one looks like');
    }
    const block = this.#records.blockOf(nameAt(body, 2, length));
    const { name, bytes } = this.#blocks[block]!;
    for (let at = 3 + length; at < body.length; at += 16) {
      const start = u64(body, at);
      const count = u64(body, at + 8);
      if (start % PAGE_BYTES !== 0 || count % PAGE_BYTES !== 0 || count === 0 || start + count > bytes) {
        throw malformed(`a RAM_DISCARD is of ${count} bytes at ${start} of RAM block ${name}, which has ${bytes}`);
      }
      this.#handler.onDiscard(block, start, count);
    }
    this.#top();
  }

  #package = (bytes: Uint8Array, at: number): void => {
    if (!this.#advised || !this.#records || this.#packaged) throw malformed('a package comes too early, or twice');
    const length = u32(bytes, at);
    if (length === 0 || length > MAX_DEVICE_STATE_BYTES) throw malformed(`a package has ${length} bytes`);
    const gathered = new Gathered('a package', length);
    this.#steps.through(
      length,
      (part, from, end) => gathered.add(part.subarray(from, end)),
      () => {
        this.#packaged = true;
        this.#top();
        const { state, ping } = unpack(gathered.bytes);
        this.#handler.onDeviceState(state, true);
        this.#handler.onPing(ping);
      },
    );
  };
}

/** Why a section that is not the memory's is refused: nobody but its device knows where it ends. */
function sectionError(mark: number, name: string): AbdmError {
  if (name === 'dirty-bitmap') {
    return unsupported('dirty bitmaps', 'turn the capability dirty-bitmaps off at the source');
  }
  if (name === 'block') return unsupported('disks', 'turn the capability block off at the source');
  const when = mark === Mark.FULL ? 'before the memory' : 'while the guest runs';
  return unsupported(`state of ${name || 'a device without a name'} ${when}`, 'remove this device from the guest');
}
