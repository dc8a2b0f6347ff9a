// Parses the header of a stream and what it says of the machine, up to the first byte that is nothing of that.

import { malformed, nameAt, u32, unsupported } from './bytes.js';
import { type Configuration, MAGIC, Mark, MULTIFD_MAGIC, STREAM_VERSION } from './format.js';
import { MAX_PIECE_BYTES, type Steps } from './steps.js';

const PREFIX = 'configuration/';
const VERSION = 1;
/** Of 4 KiB pages. */
const PAGE_BITS = 12;
const UUID_BYTES = 16;

export class ConfigurationParser {
  readonly #steps: Steps;
  readonly #then: (configuration: Configuration, mark: number) => void;
  #machine = '';
  #targetPageBits: number | null = null;
  #uuid: Uint8Array | null = null;

  /**
   * @param steps which stand at the stream's beginning.
   * @param then gets the configuration, and the first byte behind it.
   */
  constructor(steps: Steps, then: (configuration: Configuration, mark: number) => void) {
    this.#steps = steps;
    this.#then = then;
    // The first 4 bytes alone: a connection that is none of a stream may have no more to say.
    steps.next(4, this.#magic);
  }

  #magic = (bytes: Uint8Array, at: number): void => {
    const magic = u32(bytes, at);
    if (magic === MULTIFD_MAGIC) {
      throw unsupported('pages on other connections', 'turn the capability multifd off at the source');
    }
    if (magic !== MAGIC) throw malformed(`it begins with 0x${magic.toString(16)}, not with "QEVM"`);
    this.#steps.next(9, this.#start);
  };

  #start = (bytes: Uint8Array, at: number): void => {
    const version = u32(bytes, at);
    if (version !== STREAM_VERSION) throw malformed(`its version is ${version}, not ${STREAM_VERSION}`);
    if (bytes[at + 4] !== Mark.CONFIGURATION) {
      throw unsupported('no machine in its header', 'use a machine type of QEMU 2.4 or later');
    }
    const length = u32(bytes, at + 5);
    if (length === 0 || length > MAX_PIECE_BYTES) throw malformed(`the machine's name has ${length} bytes`);
    this.#steps.next(length, (name, from) => {
      this.#machine = nameAt(name, from, length);
      this.#steps.next(1, this.#mark);
    });
  };

  #mark = (bytes: Uint8Array, at: number): void => {
    const mark = bytes[at]!;
    if (mark === Mark.SUBSECTION) return this.#steps.next(1, this.#subsection);
    this.#then({ machine: this.#machine, targetPageBits: this.#targetPageBits, uuid: this.#uuid }, mark);
  };

  #subsection = (bytes: Uint8Array, at: number): void => {
    const length = bytes[at]!;
    this.#steps.next(length + 4, (piece, from) => {
      const name = nameAt(piece, from, length);
      const version = u32(piece, from + length);
      if (version !== VERSION) throw malformed(`${name} has version ${version}, not ${VERSION}`);
      if (name === `${PREFIX}target-page-bits` && this.#targetPageBits === null) this.#steps.next(4, this.#pageBits);
      else if (name === `${PREFIX}uuid` && this.#uuid === null) this.#steps.next(UUID_BYTES, this.#takeUuid);
      else if (name === `${PREFIX}capabilities`) this.#steps.next(5, this.#capabilities);
      else throw unsupported(`${name} in its header`, 'use a machine without it');
    });
  };

  #pageBits = (bytes: Uint8Array, at: number): void => {
    const bits = u32(bytes, at);
    if (bits !== PAGE_BITS) throw unsupported(`guest pages of 2^${bits} bytes`, 'use a guest with pages of 4 KiB');
    this.#targetPageBits = bits;
    this.#steps.next(1, this.#mark);
  };

  #takeUuid = (bytes: Uint8Array, at: number): void => {
    this.#uuid = Uint8Array.from(bytes.subarray(at, at + UUID_BYTES));
    this.#steps.next(1, this.#mark);
  };

  /** Named are only those that change the stream, and none of them is understood: the first one says enough. */
  #capabilities = (bytes: Uint8Array, at: number): void => {
    const length = bytes[at + 4]!;
    if (u32(bytes, at) === 0 || length === 0) throw malformed('a list of capabilities has none');
    this.#steps.next(length, (piece, from) => {
      const name = nameAt(piece, from, length);
      throw unsupported(`what the capability ${name} makes of it`, `turn the capability ${name} off at the source`);
    });
  };
}
