// What a destination says to a source on the connection that the stream comes on: parsed, when we are the source of a destination, and written,
// when we are the destination of a source. Sources: migration/migration.c (migrate_send_rp_*, source_return_path_thread), migration.h.
//
//   u16 type | u16 length | body
//
//   1 SHUT           u32 0: all has come; else it has failed
//   2 PONG           u32 the PING's value
//   3 REQ_PAGES_ID   u64 start, u32 bytes, u8 length, name of the block
//   4 REQ_PAGES      u64 start, u32 bytes: of the block that was named last
//   5 RECV_BITMAP, 6 RESUME_ACK        a migration goes on after a pause: not here
//   7 SWITCHOVER_ACK nothing: the guest may be stopped now (capability switchover-ack)

import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { nameAt, u16, u32, u64 } from './bytes.js';
import type { RamBlock } from './format.js';
import { Steps } from './steps.js';

const Type = {
  SHUT: 1,
  PONG: 2,
  REQ_PAGES_ID: 3,
  REQ_PAGES: 4,
  RECV_BITMAP: 5,
  RESUME_ACK: 6,
  SWITCHOVER_ACK: 7,
} as const;

/** Start, length, and that of the name. */
const REQUEST_BYTES = 12;
const MAX_BODY_BYTES = REQUEST_BYTES + 1 + 255;
/** The body's length, where there is but one. */
const LENGTHS: Readonly<Record<number, number>> = {
  [Type.SHUT]: 4,
  [Type.PONG]: 4,
  [Type.REQ_PAGES]: REQUEST_BYTES,
  [Type.SWITCHOVER_ACK]: 0,
};

export interface ReturnPathHandler {
  /** It will say nothing more. 0: it has all; else it has failed. */
  onShut(value: number): void;
  onPong(value: number): void;
  /** The guest waits for these bytes, whole pages of the block with this number. */
  onRequest(block: number, start: number, bytes: number): void;
  onSwitchoverAck(): void;
}

export class ReturnPathParser {
  readonly #steps: Steps;
  readonly #handler: ReturnPathHandler;
  readonly #blocks: readonly RamBlock[];
  readonly #numbers: ReadonlyMap<string, number>;
  /** Of the last request; -1: there was none. */
  #block = -1;
  #shut = false;
  #error: unknown = null;

  constructor(handler: ReturnPathHandler, blocks: readonly RamBlock[]) {
    this.#handler = handler;
    this.#blocks = blocks;
    this.#numbers = new Map(blocks.map(({ name }, number) => [name, number]));
    this.#steps = new Steps(4, this.#head);
  }

  /** SHUT has come: nothing more will. */
  get shut(): boolean {
    return this.#shut;
  }

  /** Takes the next bytes. @throws {AbdmError} PROTOCOL if no QEMU says that; from then on always the same. */
  feed(chunk: Uint8Array): void {
    if (this.#error) throw this.#error;
    try {
      this.#steps.feed(chunk);
    } catch (error) {
      this.#error = error;
      throw error;
    }
  }

  #head = (bytes: Uint8Array, at: number): void => {
    if (this.#shut) throw bad('it goes on after SHUT');
    const type = u16(bytes, at);
    const length = u16(bytes, at + 2);
    if (type === Type.RECV_BITMAP || type === Type.RESUME_ACK) throw bad('it resumes a migration that was paused');
    const one = LENGTHS[type];
    if (type !== Type.REQ_PAGES_ID && one === undefined) throw bad(`there is no message ${type}`);
    if (one === undefined ? length <= REQUEST_BYTES || length > MAX_BODY_BYTES : length !== one) {
      throw bad(`message ${type} has ${length} bytes`);
    }
    if (length === 0) return this.#handler.onSwitchoverAck();
    this.#steps.next(length, (body, from) => {
      this.#steps.next(4, this.#head);
      this.#body(type, length, body, from);
    });
  };

  #body(type: number, length: number, body: Uint8Array, at: number): void {
    if (type === Type.PONG) return this.#handler.onPong(u32(body, at));
    if (type === Type.SHUT) {
      this.#shut = true;
      return this.#handler.onShut(u32(body, at));
    }
    if (type === Type.REQ_PAGES_ID) {
      const name = nameAt(body, at + REQUEST_BYTES + 1, length - REQUEST_BYTES - 1);
      if (body[at + REQUEST_BYTES] !== name.length) throw bad('the length of a name is wrong');
      this.#block = this.#numbers.get(name) ?? -1;
    }
    const block = this.#blocks[this.#block];
    const start = u64(body, at);
    const bytes = u32(body, at + 8);
    if (!block || bytes === 0 || start % PAGE_BYTES !== 0 || bytes % PAGE_BYTES !== 0 || start + bytes > block.bytes) {
      throw bad(`it asks for ${bytes} bytes at ${start} of ${block ? `RAM block ${block.name}` : 'no RAM block'}`);
    }
    this.#handler.onRequest(this.#block, start, bytes);
  }
}

/** The messages, for a source. */
export const returnPath = {
  /** Everything has come, and only then: the source may quit. Any other value: it has failed, which may let the source's guest go on. */
  shut: (value: number): Uint8Array => message(Type.SHUT, 4, (body) => body.writeUInt32BE(value)),
  pong: (value: number): Uint8Array => message(Type.PONG, 4, (body) => body.writeUInt32BE(value)),
  /** Always with the block's name: a source forgets the last one when it sends on its own. */
  request: ({ name }: RamBlock, start: number, bytes: number): Uint8Array =>
    message(Type.REQ_PAGES_ID, REQUEST_BYTES + 1 + name.length, (body) => {
      body.writeBigUInt64BE(BigInt(start));
      body.writeUInt32BE(bytes, 8);
      body.writeUInt8(name.length, REQUEST_BYTES);
      body.write(name, REQUEST_BYTES + 1, 'latin1');
    }),
};

function message(type: number, length: number, fill: (body: Buffer) => void): Uint8Array {
  const bytes = Buffer.alloc(4 + length);
  bytes.writeUInt16BE(type);
  bytes.writeUInt16BE(length, 2);
  fill(bytes.subarray(4));
  return bytes;
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `the destination's answers are not those of QEMU 7.2 to 10: ${text}`);
}
