// Changes what a node answers, as a node that lies could: every sum that needs no key is mended.
import { createEngine, MemoryPlan } from '#abdm/bindings/engine.js';
import { HEADER_BYTES, MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { Random } from '../random.js';
import { bodyOf, type Message, withBody } from './messages.js';
import type { Tamper } from './rule.js';

const CHECKSUM_BYTES = 8;
/** Where a frame, and a sealed block, has its own id. */
const ID_AT = 8;

const plan = new MemoryPlan();
const bytesPtr = plan.reserve(MAX_FRAME_BYTES);
const sumPtr = plan.reserve(CHECKSUM_BYTES);
const { exports, memory } = await createEngine(plan);

/** Makes the last eight bytes XXH3-64 of all before them. */
function mend(frame: Buffer): Buffer {
  const end = frame.length - CHECKSUM_BYTES;
  memory.set(frame.subarray(0, end), bytesPtr);
  exports.xxh3(bytesPtr, end, sumPtr);
  frame.set(memory.subarray(sumPtr, sumPtr + CHECKSUM_BYTES), end);
  return frame;
}

/** The frames of one node as they passed, by migration. */
export class Tamperer {
  readonly #random = new Random('tamper');
  readonly #migrations: Map<number, Buffer>[] = [];
  #name = '';

  /** HELLO of a connection: the frames of another migration begin a new chapter. */
  hello(body: Buffer): void {
    const { migration } = JSON.parse(body.toString()) as { migration: string };
    if (migration === this.#name) return;
    this.#name = migration;
    this.#migrations.unshift(new Map());
    this.#migrations.length = Math.min(2, this.#migrations.length);
  }

  /** A frame on its way to the node. */
  remember({ id, bytes }: Message): void {
    this.#migrations[0]?.set(id, Buffer.from(bytes.subarray(HEADER_BYTES)));
  }

  /** FRAME as it is told instead; null if nothing else than the truth is at hand. */
  change(message: Message, how: Tamper): Buffer | null {
    const body = this.#body(message, how);
    return body && withBody(message, mend(body));
  }

  #body(message: Message, how: Tamper): Buffer | null {
    if (how === 'flip') {
      const body = Buffer.from(bodyOf(message));
      body[this.#random.below(body.length - CHECKSUM_BYTES)]! ^= 1 << this.#random.below(8);
      return body;
    }
    if (how === 'old') {
      const before = this.#migrations[1]?.get(message.id);
      return before ? Buffer.from(before) : null;
    }
    const others = [...(this.#migrations[0] ?? [])].filter(([id]) => id !== message.id);
    if (others.length === 0) return null;
    const body = Buffer.from(this.#random.pick(others)[1]);
    if (this.#random.next() < 0.5) body.writeBigUInt64LE(BigInt(message.id), ID_AT);
    return body;
  }
}

/** WELCOME, STORED and REFUSED that speak of other free bytes; any other message as it is. */
export function pretend(message: Message, freeBytes: number): Buffer {
  const body = Buffer.from(bodyOf(message));
  if (message.type === MessageType.STORED) {
    body.writeBigUInt64LE(BigInt(freeBytes), 0);
    return withBody(message, body);
  }
  if (message.type !== MessageType.WELCOME && message.type !== MessageType.REFUSED) return message.bytes;
  const said = JSON.parse(body.toString()) as Record<string, unknown>;
  if ('memoryBytes' in said) said.memoryBytes = freeBytes;
  return withBody(message, Buffer.from(JSON.stringify({ ...said, freeBytes })));
}
