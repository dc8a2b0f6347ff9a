// Seals blocks at the source and opens them at the destination: AES-256-GCM, from Node's crypto. What lies between, on nodes and on wires, can be
// lost or damaged but neither read nor made by anybody without the migration's key. The layout is drawn in bindings/sealed.ts.
//
// The nonce is u16 generation | u16 0 | u64 id. It must never come twice under one key, for AES-GCM then gives away both texts and the means to
// forge: ids are unique in a migration, a block that is made anew with other bytes takes the next generation, and the sealer remembers, a bit
// for each, what it has sealed.

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { MessageChannel } from 'node:worker_threads';
import { KEY_BYTES, MAX_FRAME_BYTES } from '../../bindings/abi.js';
import { createEngine, type Engine, MemoryPlan } from '../../bindings/engine.js';
import { AbdmError } from '../../bindings/errors.js';
import { requireInteger } from '../../bindings/options.js';
import {
  checkSealed,
  MAX_SEALED_BYTES,
  SEAL_BYTES,
  SEAL_CHECKSUM_BYTES,
  SEAL_HEADER_BYTES,
  SEAL_MAGIC,
  SEAL_TAG_BYTES,
  SEAL_VERSION,
} from '../../bindings/sealed.js';
import { Slots } from '../../bindings/slots.js';
import { deriveKey } from '../wire/security.js';

export { SEAL_BYTES };

const CIPHER = 'aes-256-gcm';
const LABEL = 'abdm seal';
const NONCE_BYTES = 12;
// Node's ciphers return new memory with each call, which costs more than AES does: left to the garbage collector, it comes cold each time. Pieces
// that are freed at once are reused while the cache has them. Measured for sealing, in CPU s/GiB: 0.40 becomes 0.29 on Node 20, 0.32 0.17 on Node 22.
const PIECE_BYTES = 64 * 1024;
const { port1: nowhere, port2: nobody } = new MessageChannel();
nobody.close();
nowhere.unref();

/** Moves what a cipher returned to `out`. Its own memory goes to nobody, and with that is freed. */
function move(piece: Buffer, out: Uint8Array, at: number): void {
  out.set(piece, at);
  nowhere.postMessage(null, [piece.buffer as ArrayBuffer]);
}

/** Named bytes on their way to a node. */
export interface Block {
  readonly id: number;
  /** They stay as they are until `release`. */
  readonly bytes: Uint8Array;
  /** Gives the memory back. Throws SLOT_STATE if it was given back before. */
  release(): void;
}

/** Seals blocks, into a bounded memory of its own. */
export class Sealer {
  readonly #key: Uint8Array;
  readonly #engine: Engine;
  readonly #view: DataView;
  readonly #slots: Slots;
  readonly #maxBytes: number;
  readonly #used = new UsedNonces();

  private constructor(key: Uint8Array, engine: Engine, slots: Slots, maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#key = key;
    this.#engine = engine;
    this.#view = new DataView(engine.memory.buffer);
    this.#slots = slots;
  }

  /**
   * @param migrationKey 32 bytes, the secret of one migration only: under one key no two sealers may seal the same id.
   * @param slots blocks that can be held at a time.
   * @param maxBytes the longest that will be sealed, as long as a frame at most; each slot takes as much memory.
   * @throws {AbdmError} `USAGE`.
   */
  static async create(migrationKey: Uint8Array, slots: number, maxBytes = MAX_FRAME_BYTES): Promise<Sealer> {
    requireInteger('slots', slots, 1, 8192);
    requireInteger('maxBytes', maxBytes, 0, MAX_FRAME_BYTES);
    const key = sealKey(migrationKey);
    const plan = new MemoryPlan();
    const slotBytes = Math.ceil((maxBytes + SEAL_BYTES) / 128) * 128;
    const ptr = plan.reserve(slots * slotBytes);
    return new Sealer(key, await createEngine(plan), new Slots('sealed block', ptr, slotBytes, slots), maxBytes);
  }

  /** Slots that `seal` would still find. */
  get freeSlots(): number {
    return this.#slots.free;
  }

  /**
   * Seals `body`, which is of no more use to the sealer afterwards.
   * @param generation 0, and one more each time that the block `id` is made anew.
   * @throws {AbdmError} `NO_SLOT` if all slots are held, `USAGE` if the body is too long, `INTERNAL` if this id was sealed in this
   * generation before.
   */
  seal(id: number, body: Uint8Array, generation = 0): Block {
    requireInteger('id', id, 0, Number.MAX_SAFE_INTEGER);
    requireInteger('generation', generation, 0, 0xffff);
    requireInteger('bytes of a block', body.byteLength, 0, this.#maxBytes);
    const slot = this.#slots.take();
    try {
      this.#used.add(id, generation);
    } catch (error) {
      this.#slots.give(slot);
      throw error;
    }
    const { ptr } = slot;
    const { memory, exports } = this.#engine;
    const view = this.#view;
    view.setUint32(ptr, SEAL_MAGIC, true);
    view.setUint16(ptr + 4, SEAL_VERSION, true);
    view.setUint16(ptr + 6, generation, true);
    view.setBigUint64(ptr + 8, BigInt(id), true);

    const header = memory.subarray(ptr, ptr + SEAL_HEADER_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, nonceOf(header), { authTagLength: SEAL_TAG_BYTES });
    cipher.setAAD(header);
    const tagPtr = ptr + SEAL_HEADER_BYTES + body.byteLength;
    for (let at = 0; at < body.byteLength; at += PIECE_BYTES) {
      move(cipher.update(body.subarray(at, at + PIECE_BYTES)), memory, ptr + SEAL_HEADER_BYTES + at);
    }
    cipher.final();
    memory.set(cipher.getAuthTag(), tagPtr);
    const sumPtr = tagPtr + SEAL_TAG_BYTES;
    exports.xxh3(ptr, sumPtr - ptr, sumPtr);
    const bytes = memory.subarray(ptr, sumPtr + SEAL_CHECKSUM_BYTES);
    return { id, bytes, release: () => this.#slots.give(slot) };
  }
}

/** Opens what a {@link Sealer} with the same migration key has sealed. */
export class Opener {
  readonly #key: Uint8Array;
  readonly #engine: Engine;
  readonly #view: DataView;
  /** Where a block's checksum is computed. */
  readonly #ptr: number;

  private constructor(key: Uint8Array, engine: Engine, ptr: number) {
    this.#key = key;
    this.#engine = engine;
    this.#view = new DataView(engine.memory.buffer);
    this.#ptr = ptr;
  }

  /** @throws {AbdmError} `USAGE` if the key is not 32 bytes long. */
  static async create(migrationKey: Uint8Array): Promise<Opener> {
    const key = sealKey(migrationKey);
    const plan = new MemoryPlan();
    const ptr = plan.reserve(MAX_SEALED_BYTES);
    return new Opener(key, await createEngine(plan), ptr);
  }

  /**
   * Opens a block in place: what was sealed then lies at the start of `block`. Returns its length in bytes.
   * @param id what the block was asked for by.
   * @throws {AbdmError} `FRAME_MALFORMED` if it is no sealed block or another one, `FRAME_CHECKSUM` if it is damaged, `FRAME_TAG` if it was not
   * made with this key. What `block` holds is then of no use.
   */
  open(id: number, block: Uint8Array): number {
    const what = `block ${id}`;
    if (block.byteLength > MAX_SEALED_BYTES) {
      throw new AbdmError('FRAME_MALFORMED', `${what}: ${block.byteLength} bytes are too many for a sealed block`);
    }
    this.#engine.memory.set(block, this.#ptr);
    const fault = checkSealed(this.#engine, this.#view, this.#ptr, block.byteLength, id);
    if (fault === 'FRAME_CHECKSUM') {
      throw new AbdmError(fault, `${what}: its checksum does not match: it was damaged on the way`);
    }
    if (fault !== null) throw new AbdmError(fault, `${what}: this is not a sealed block, or another one`);

    const bytes = block.byteLength - SEAL_BYTES;
    const sealed = this.#engine.memory.subarray(this.#ptr, this.#ptr + block.byteLength);
    const header = sealed.subarray(0, SEAL_HEADER_BYTES);
    const tagAt = SEAL_HEADER_BYTES + bytes;
    const decipher = createDecipheriv(CIPHER, this.#key, nonceOf(header), { authTagLength: SEAL_TAG_BYTES });
    decipher.setAAD(header);
    decipher.setAuthTag(sealed.subarray(tagAt, tagAt + SEAL_TAG_BYTES));
    for (let at = 0; at < bytes; at += PIECE_BYTES) {
      const from = SEAL_HEADER_BYTES + at;
      move(decipher.update(sealed.subarray(from, Math.min(from + PIECE_BYTES, tagAt))), block, at);
    }
    try {
      decipher.final();
    } catch (cause) {
      block.fill(0);
      throw new AbdmError('FRAME_TAG', `${what}: it was not sealed with this migration's key`, { cause });
    }
    return bytes;
  }
}

/** Which (id, generation) have been sealed: a bit for each, in pieces of 65,536 ids, so that dense ids cost a bit and not an object. */
class UsedNonces {
  readonly #pieces = new Map<number, Uint8Array>();

  add(id: number, generation: number): void {
    // 37 bits of the id and 16 of the generation: together just what a number holds exactly.
    const name = Math.floor(id / 2 ** 16) + generation * 2 ** 37;
    let piece = this.#pieces.get(name);
    if (piece === undefined) {
      piece = new Uint8Array(2 ** 13);
      this.#pieces.set(name, piece);
    }
    const at = (id % 2 ** 16) >> 3;
    const bit = 1 << (id & 7);
    if ((piece[at]! & bit) !== 0) {
      throw new AbdmError('INTERNAL', `block ${id} is sealed twice in generation ${generation}: a nonce is used once`);
    }
    piece[at]! |= bit;
  }
}

function sealKey(migrationKey: Uint8Array): Uint8Array {
  if (migrationKey.byteLength === KEY_BYTES) return deriveKey(migrationKey, LABEL);
  throw new AbdmError('USAGE', `the key has ${migrationKey.byteLength} bytes: it needs ${KEY_BYTES}`);
}

/** u16 generation | u16 0 | u64 id, from the block's header. */
function nonceOf(header: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(NONCE_BYTES);
  nonce.set(header.subarray(6, 8));
  nonce.set(header.subarray(8, 16), 4);
  return nonce;
}
