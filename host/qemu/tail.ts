// What follows the memory in pre-copy: device state, EOF, and its description. Nothing says how long the device state is, so its end is found from
// behind: the description ends just where the bytes end that have come, says so itself, and is JSON. Between two reads of a socket the same may be
// true too early only if a device's state held a whole description. A source that leaves it out closes its connection instead.
//
//     04 ... sections ... 7e u32 id | 00 | 06 u32 length | { ... "devices": [...] ... }

import { Gathered, malformed, u32 } from './bytes.js';
import { type DeviceState, MAX_DEVICE_STATE_BYTES, Mark } from './format.js';
import { checkSections } from './package.js';

/** 00, 06, length. */
const HEAD_BYTES = 6;
const BRACE = 0x7d;

export class Tail {
  readonly #gathered = new Gathered('what follows the memory', MAX_DEVICE_STATE_BYTES);
  /** Where the last zero byte is: JSON has none, so that the description begins just before or just behind it. */
  #lastZero = -1;

  /** @throws {AbdmError} PROTOCOL if that is too much. */
  add(bytes: Uint8Array): void {
    const zero = bytes.lastIndexOf(0);
    if (zero >= 0) this.#lastZero = this.#gathered.bytes.length + zero;
    this.#gathered.add(bytes);
  }

  /** The device state, if all of it may be there; null: more must come. @throws {AbdmError} PROTOCOL. */
  complete(): DeviceState | null {
    const bytes = this.#gathered.bytes;
    if (bytes.at(-1) !== BRACE) return null;
    // The length is below 2^24 or not, its last bytes are zero or not: the last zero is one of the description's first four bytes, or of its length's.
    for (let at = Math.max(0, this.#lastZero - HEAD_BYTES + 1); at <= this.#lastZero; at++) {
      if (bytes[at] !== Mark.EOF || bytes[at + 1] !== Mark.DESCRIPTION) continue;
      const from = at + HEAD_BYTES;
      if (from + u32(bytes, at + 2) === bytes.length && isDescription(bytes.subarray(from))) {
        return stateOf(bytes.subarray(0, at), bytes.subarray(from));
      }
    }
    return null;
  }

  /** The device state of a source that has closed its connection. @throws {AbdmError} PROTOCOL if it is not complete. */
  ended(): DeviceState {
    const bytes = this.#gathered.bytes;
    if (bytes.at(-1) !== Mark.EOF) throw malformed('it ends within the device state');
    return stateOf(bytes.subarray(0, -1), null);
  }
}

function stateOf(sections: Uint8Array, description: Uint8Array | null): DeviceState {
  checkSections(sections);
  return { sections, description };
}

function isDescription(bytes: Uint8Array): boolean {
  try {
    return Array.isArray(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)).devices);
  } catch {
    return false;
  }
}
