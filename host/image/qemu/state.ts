// The execution state of a QEMU guest, as it moves: all of it but its memory.
//
//   u32 length | JSON { "wasRunning": true } | sections, up to the end         the number is big-endian, as in all that QEMU sends

import { AbdmError } from '../../../bindings/errors.js';
import { u32 } from '../../qemu/bytes.js';
import { MAX_DEVICE_STATE_BYTES } from '../../qemu/format.js';
import { checkSections } from '../../qemu/package.js';
import { decodeJson, encodeJson, need } from '../../wire/json.js';

const LENGTH_BYTES = 4;
const MAX_HEAD_BYTES = 4096;
const WHAT = 'the execution state of a QEMU guest';

export interface ExecutionState {
  /** It ran when it was stopped for this, and goes on by itself; one that was paused stays so. */
  readonly wasRunning: boolean;
  /** Device state: FULL sections, one after the other. */
  readonly sections: Uint8Array;
}

export function encodeState({ wasRunning, sections }: ExecutionState): Uint8Array {
  const head = encodeJson({ wasRunning });
  const bytes = Buffer.alloc(LENGTH_BYTES + head.length + sections.length);
  bytes.writeUInt32BE(head.length);
  bytes.set(head, LENGTH_BYTES);
  bytes.set(sections, LENGTH_BYTES + head.length);
  return bytes;
}

/** `sections` is a view of `bytes`. @throws {AbdmError} PROTOCOL unless it is one. */
export function decodeState(bytes: Uint8Array): ExecutionState {
  if (bytes.length < LENGTH_BYTES) throw bad(`it has ${bytes.length} bytes`);
  const length = u32(bytes, 0);
  const at = LENGTH_BYTES + length;
  if (length > MAX_HEAD_BYTES || at > bytes.length) throw bad(`its head has ${length} bytes`);
  const wasRunning = need.boolean(decodeJson(bytes.subarray(LENGTH_BYTES, at), WHAT), 'wasRunning', WHAT);
  const sections = bytes.subarray(at);
  if (sections.length > MAX_DEVICE_STATE_BYTES) throw bad(`it has ${sections.length} bytes`);
  checkSections(sections);
  return { wasRunning, sections };
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${WHAT}: ${text}`);
}
