// DISCARD: which pages of a VM are not what came before. Those that are set in its bitmap come in frames from `floor` on, and in no earlier one.
//
//   u16 vm | u16 0 | u32 pages | u64 first pfn | u64 floor | a bit a page

import { MAX_FRAME_ID } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';

const HEAD_BYTES = 24;
const MAX_PAGES = 256 * 1024;

export interface Discard {
  readonly vm: number;
  readonly first: number;
  readonly pages: number;
  readonly floor: number;
  /** Bit i of byte i >> 3 is page `first` + i. */
  readonly bitmap: Uint8Array;
}

/** @throws {AbdmError} PROTOCOL if it is none, or not of these images. */
export function readDiscard(body: Uint8Array, vms: readonly { pages: number }[]): Discard {
  if (body.byteLength <= HEAD_BYTES) throw bad(`${body.byteLength} bytes`);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const vm = view.getUint16(0, true);
  const pages = view.getUint32(4, true);
  const first = Number(view.getBigUint64(8, true));
  const floor = Number(view.getBigUint64(16, true));
  if (view.getUint16(2, true) !== 0) throw bad('a reserved field is not 0');
  if (vm >= vms.length) throw bad(`vm ${vm}, there are ${vms.length}`);
  if (!(pages >= 1 && pages <= MAX_PAGES)) throw bad(`${pages} pages`);
  if (body.byteLength !== HEAD_BYTES + Math.ceil(pages / 8)) throw bad(`${body.byteLength} bytes for ${pages} pages`);
  if (!(first + pages <= vms[vm]!.pages)) throw bad(`page ${first + pages - 1}, vm ${vm} has ${vms[vm]!.pages} pages`);
  if (!(floor >= 1 && floor <= MAX_FRAME_ID)) throw bad(`floor ${floor}`);
  return { vm, first, pages, floor, bitmap: body.subarray(HEAD_BYTES) };
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `DISCARD: ${text}`);
}
