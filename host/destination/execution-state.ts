// A guest's execution state as it comes from the source, in the bodies of STATE:
//
//    0        2        4        6        8
//    | vm u16 | part   | parts  | 0      | a piece of it
//
// Every piece but the last has 256,000 bytes. The parts come in order, and begin anew whenever the first one comes.

import { AbdmError } from '../../bindings/errors.js';

const HEAD_BYTES = 8;
const PIECE_BYTES = 256_000;
/** A state is at most so long. */
const MAX_BYTES = 64 * 1024 * 1024;

/** Which VM the state is of, of which `body` is a part. */
export function stateVm(body: Uint8Array): number {
  return new DataView(body.buffer, body.byteOffset, body.byteLength).getUint16(0, true);
}

/** Puts one VM's parts together. */
export class StateCollector {
  #pieces: Uint8Array[] = [];

  /** Returns the state if this was the last part of it. @throws {AbdmError} PROTOCOL. */
  take(body: Uint8Array): Uint8Array | null {
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    const part = view.getUint16(2, true);
    const parts = view.getUint16(4, true);
    const zero = view.getUint16(6, true);
    const bytes = body.byteLength - HEAD_BYTES;
    const isLast = part === parts - 1;
    if (zero !== 0) throw bad(`reserved bytes are ${zero}, not 0`);
    if (parts < 1 || parts > Math.ceil(MAX_BYTES / PIECE_BYTES)) throw bad(`${parts} parts`);
    if (part === 0) this.#pieces = [];
    if (part !== this.#pieces.length || part >= parts) throw bad(`part ${part} of ${parts} is not the next one`);
    if (isLast ? bytes > PIECE_BYTES : bytes !== PIECE_BYTES) throw bad(`part ${part} of ${parts} has ${bytes} bytes`);
    this.#pieces.push(body.slice(HEAD_BYTES));
    if (!isLast) return null;
    const state = Buffer.concat(this.#pieces);
    this.#pieces = [];
    if (state.byteLength > MAX_BYTES) throw bad(`${state.byteLength} bytes, ${MAX_BYTES} are allowed`);
    return state;
  }
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `STATE: ${text}`);
}
