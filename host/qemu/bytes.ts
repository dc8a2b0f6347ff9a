// Big-endian numbers, names, and bytes that are gathered: what the parsers and the writers here share.

import { AbdmError } from '../../bindings/errors.js';
import { printable } from '../wire/json.js';

/** An error for bytes that no QEMU sends. */
export function malformed(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `the migration stream is not one of QEMU 7.2 to 10, or was damaged: ${text}`);
}

/** An error for what a QEMU may well send, and nobody here understands; `hint` says how to do without. */
export function unsupported(text: string, hint: string): AbdmError {
  return new AbdmError('IMAGE', `the migration stream has ${text}, which is not understood; ${hint}`);
}

export function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

export function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** @throws {AbdmError} PROTOCOL from 2^53 on. */
export function u64(bytes: Uint8Array, at: number): number {
  const high = u32(bytes, at);
  if (high >= 2 ** 21) throw malformed('a number is 2^53 or more');
  return high * 2 ** 32 + u32(bytes, at + 4);
}

/** The name of a block, a section or a machine. @throws {AbdmError} PROTOCOL unless all of it is printable ASCII. */
export function nameAt(bytes: Uint8Array, at: number, length: number): string {
  let name = '';
  for (let i = at; i < at + length; i++) {
    const code = bytes[i]!;
    if (code < 0x20 || code > 0x7e) throw malformed(`a name has a byte ${code}: ${printable(name)}`);
    name += String.fromCharCode(code);
  }
  return name;
}

/** Gathers bytes of which nobody knows yet how many come; what it takes grows with what has come. */
export class Gathered {
  #bytes = new Uint8Array(4096);
  #length = 0;

  /** @param what for the error. */
  constructor(
    readonly what: string,
    readonly maxBytes: number,
  ) {}

  /** What has come; valid until more is added. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** @throws {AbdmError} PROTOCOL if that is too much. */
  add(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.maxBytes) throw malformed(`${this.what} is longer than ${this.maxBytes} bytes`);
    if (length > this.#bytes.length) {
      const larger = new Uint8Array(Math.min(this.maxBytes, Math.max(length, this.#bytes.length * 2)));
      larger.set(this.bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = length;
  }
}
