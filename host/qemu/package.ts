// What PACKAGED holds: LISTEN, the device state, a PING whose answer says that it is loaded, RUN. And the way from one migration to another: device state
// that came behind memory (pre-copy) leaves in a package (post-copy), or the other way round; its sections are the same bytes.
//
//     08 0004 0000 | 04 ... sections ... | 08 0002 0004 u32 value | 08 0005 0000

import { malformed, u32 } from './bytes.js';
import { Command, type DeviceState, Mark, PACKAGE_PING } from './format.js';

const HEAD_BYTES = 5;
const PING_BYTES = 9;
const TAIL_BYTES = PING_BYTES + HEAD_BYTES;
const FOOTER_BYTES = 5;

/** What a package holds: the device state, as a view of it, and the value of its PING. @throws {AbdmError} PROTOCOL. */
export function unpack(bytes: Uint8Array): { state: DeviceState; ping: number } {
  const end = bytes.length - TAIL_BYTES;
  if (end < HEAD_BYTES || !isCommand(bytes, 0, Command.LISTEN, 0))
    throw malformed('a package does not begin with LISTEN');
  if (!isCommand(bytes, end, Command.PING, 4) || !isCommand(bytes, end + PING_BYTES, Command.RUN, 0)) {
    throw malformed('a package does not end with PING and RUN');
  }
  const sections = bytes.subarray(HEAD_BYTES, end);
  checkSections(sections);
  return { state: { sections, description: null }, ping: u32(bytes, end + HEAD_BYTES) };
}

/** The package that runs a guest with this state. */
export function pack({ sections }: DeviceState): Uint8Array {
  const bytes = Buffer.alloc(HEAD_BYTES + sections.length + TAIL_BYTES);
  let at = putCommand(bytes, 0, Command.LISTEN, 0);
  bytes.set(sections, at);
  at = putCommand(bytes, at + sections.length, Command.PING, 4);
  at = bytes.writeUInt32BE(PACKAGE_PING, at);
  putCommand(bytes, at, Command.RUN, 0);
  return bytes;
}

/** As much of a device state as can be checked: it begins with a section and ends with a footer. @throws {AbdmError} PROTOCOL. */
export function checkSections(sections: Uint8Array): void {
  if (sections.length > FOOTER_BYTES && sections[0] === Mark.FULL && sections.at(-FOOTER_BYTES) === Mark.FOOTER) return;
  throw malformed('the device state does not begin with a section and end with a footer');
}

function isCommand(bytes: Uint8Array, at: number, command: number, length: number): boolean {
  return bytes[at] === Mark.COMMAND && u32(bytes, at + 1) === ((command << 16) | length);
}

function putCommand(bytes: Buffer, at: number, command: number, length: number): number {
  bytes.writeUInt8(Mark.COMMAND, at);
  bytes.writeUInt16BE(command, at + 1);
  return bytes.writeUInt16BE(length, at + 3);
}
