// Cuts a stream of bytes into messages. It knows nothing of sockets: it says where the next bytes should be read to, and is told how many
// came. The body of a frame is read from the socket straight to where it will stay; only what came along with its header is copied.
//
//     socket reads   | header | up to 1 KiB behind it |   the rest of the body    | header | ...
//     into           |       look-ahead, copied       |  the body's target itself |  look-ahead
//
// The look-ahead lets one read bring many small messages, and costs a frame a copy of 1 KiB in 256.
//
// Where the other end proves what it sends (proof.ts), a proof follows each header and each body. Nothing is done about either before it holds.

import { AbdmError } from '../../bindings/errors.js';
import { decodeHeader, HEADER_BYTES, type MessageHeader, messageName } from './messages.js';
import { PROOF_BYTES, type Prover } from './proof.js';

/**
 * Where a body goes: a view of exactly `bodyBytes`, the receiver's own memory (null), nowhere ('discard': there will be no `onMessage`), or
 * not yet ('wait': nothing is read until `resume`, then the question is asked again).
 */
export type BodyTarget = Uint8Array | null | 'discard' | 'wait';

export interface ReceiverHandler {
  /** Asked for every message, also for one without a body, once its header was found good. */
  bodyTarget(header: MessageHeader): BodyTarget;
  /** `body` is the target; or, where that was null, memory that is valid only during the call. */
  onMessage(header: MessageHeader, body: Uint8Array): void;
}

const LOOK_BYTES = HEADER_BYTES + 1008;
const NO_BYTES: Uint8Array = new Uint8Array(0);
// What nobody wants is read to here, by all receivers: nobody ever reads it.
const scratch = new Uint8Array(64 * 1024);

export class Receiver {
  readonly #handler: ReceiverHandler;
  readonly #prover: Prover | null;
  readonly #look = new Uint8Array(LOOK_BYTES);
  /** A header and its proof, if it has one. */
  readonly #head: Uint8Array;
  #headBytes = 0;
  /** The proof of a body, as it comes in. */
  readonly #proof = new Uint8Array(PROOF_BYTES);
  #proofBytes = 0;
  #header: MessageHeader | null = null;
  /** undefined: not asked yet. */
  #target: Uint8Array | null | 'discard' | undefined;
  #bodyBytes = 0;
  /** Bytes that came but are not used yet: only while waiting. */
  #rest: Uint8Array = NO_BYTES;
  #waiting = false;
  #stopped = false;
  #disturbed = false;

  /** @param prover for what the other end proves; null if it proves nothing. */
  constructor(handler: ReceiverHandler, prover: Prover | null = null) {
    this.#handler = handler;
    this.#prover = prover;
    this.#head = new Uint8Array(HEADER_BYTES + (prover === null ? 0 : PROOF_BYTES));
  }

  /** Between a 'wait' and `resume`: do not read. */
  get waiting(): boolean {
    return this.#waiting;
  }

  /** A proof did not hold: somebody between the two ends has changed what was sent. */
  get disturbed(): boolean {
    return this.#disturbed;
  }

  /** A message has begun and is not complete. */
  get midMessage(): boolean {
    return this.#headBytes > 0 || this.#header !== null;
  }

  /** How far the message that has begun has come, for an error's text. */
  describe(): string {
    const header = this.#header;
    if (header === null)
      return `${this.#headBytes} of ${this.#head.byteLength} bytes of a message's header had arrived`;
    const name = messageName(header.type);
    return `${this.#bodyBytes} of ${header.bodyBytes} bytes of ${name} ${header.id} had arrived`;
  }

  /** Where the next bytes should be read to; never empty. */
  next(): Uint8Array {
    const target = this.#target;
    if (this.#stopped) return scratch;
    if (this.#header === null || target === undefined || target === null) return this.#look;
    if (this.#bodyBytes === this.#header.bodyBytes) return this.#look;
    if (target !== 'discard') return target.subarray(this.#bodyBytes);
    return scratch.subarray(0, Math.min(scratch.byteLength, this.#header.bodyBytes - this.#bodyBytes));
  }

  /** `bytes` bytes were read into `into`, which `next` returned. */
  read(into: Uint8Array, bytes: number): void {
    if (this.#stopped) return;
    if (into === this.#look) {
      this.feed(into.subarray(0, bytes));
      return;
    }
    this.#bodyBytes += bytes;
    this.#prover?.update(into.subarray(0, bytes));
    if (this.#bodyBytes < this.#header!.bodyBytes || this.#prover !== null) return;
    this.#finish(this.#target as Uint8Array | 'discard');
  }

  /**
   * Takes bytes that were read elsewhere. While waiting it keeps them, without a copy: do not touch them until `resume` returned.
   * @throws {AbdmError} `PROTOCOL`; `PEER_GONE` if a proof does not hold; and what the handler throws. The receiver is of no use afterwards.
   */
  feed(bytes: Uint8Array): void {
    let rest = bytes;
    while (!this.#stopped) {
      if (this.#header === null) {
        const taken = Math.min(this.#head.byteLength - this.#headBytes, rest.byteLength);
        this.#head.set(rest.subarray(0, taken), this.#headBytes);
        this.#headBytes += taken;
        rest = rest.subarray(taken);
        if (this.#headBytes < this.#head.byteLength) return;
        this.#prover?.update(this.#head.subarray(0, HEADER_BYTES));
        this.#requireProof(this.#head.subarray(HEADER_BYTES));
        this.#header = decodeHeader(this.#head, 0);
        this.#headBytes = 0;
      }
      const header = this.#header;
      if (this.#target === undefined) {
        const target = this.#handler.bodyTarget(header);
        if (this.#stopped) return;
        if (target === 'wait') {
          this.#rest = rest;
          this.#waiting = true;
          return;
        }
        this.#target = checkTarget(target, header);
      }
      // A message without a body has said all with its header.
      const proofBytes = this.#prover === null || header.bodyBytes === 0 ? 0 : PROOF_BYTES;
      if (this.#target === null) {
        // The common small message lies in one piece in what was read: no copy, no allocation.
        const bytes = header.bodyBytes + proofBytes;
        if (rest.byteLength >= bytes) {
          const body = rest.subarray(0, header.bodyBytes);
          if (proofBytes > 0) this.#prover?.update(body);
          this.#requireProof(rest.subarray(header.bodyBytes, bytes));
          this.#finish(body);
          rest = rest.subarray(bytes);
          continue;
        }
        this.#target = new Uint8Array(header.bodyBytes);
      }
      const taken = Math.min(header.bodyBytes - this.#bodyBytes, rest.byteLength);
      if (taken > 0) {
        const part = rest.subarray(0, taken);
        if (this.#target !== 'discard') this.#target.set(part, this.#bodyBytes);
        this.#prover?.update(part);
        this.#bodyBytes += taken;
        rest = rest.subarray(taken);
      }
      if (this.#bodyBytes < header.bodyBytes) return;
      const proof = rest.subarray(0, proofBytes - this.#proofBytes);
      this.#proof.set(proof, this.#proofBytes);
      this.#proofBytes += proof.byteLength;
      rest = rest.subarray(proof.byteLength);
      if (this.#proofBytes < proofBytes) return;
      this.#requireProof(this.#proof.subarray(0, proofBytes));
      this.#finish(this.#target);
    }
  }

  /** Asks again after a 'wait', and goes on with what had come already. */
  resume(): void {
    if (!this.#waiting) return;
    const rest = this.#rest;
    this.#waiting = false;
    this.#rest = NO_BYTES;
    this.feed(rest);
  }

  /** Nothing is delivered any more; whatever still comes is thrown away. */
  stop(): void {
    this.#stopped = true;
    this.#waiting = false;
    this.#rest = NO_BYTES;
    this.#target = undefined;
  }

  #requireProof(proof: Uint8Array): void {
    if (proof.byteLength === 0 || this.#prover!.holds(proof)) return;
    this.#disturbed = true;
    throw new AbdmError('PEER_GONE', 'the connection was disturbed: what arrived is not what the other end sent');
  }

  #finish(body: Uint8Array | 'discard'): void {
    const header = this.#header!;
    this.#header = null;
    this.#target = undefined;
    this.#bodyBytes = 0;
    this.#proofBytes = 0;
    if (body !== 'discard') this.#handler.onMessage(header, body);
  }
}

function checkTarget(target: Uint8Array | null | 'discard', header: MessageHeader): Uint8Array | null | 'discard' {
  if (target instanceof Uint8Array && target.byteLength !== header.bodyBytes) {
    throw new AbdmError('USAGE', `a body of ${header.bodyBytes} bytes was given ${target.byteLength} bytes of memory`);
  }
  return target;
}
