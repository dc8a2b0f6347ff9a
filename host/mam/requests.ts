// What a node has been asked and has not answered yet: puts and gets by their block, everything else by its kind. Outlives the connection that it
// was asked on: what is still wanted is asked again on the next one.
//
// A request whose deadline has passed is given up by whoever made it, but an answer is still due, and must not be taken for another's:
//
//   PUT    a late answer is counted; until it comes, the same block is not put again
//   GET    a late frame is thrown away; who asks for it again before it comes gets it
//   GET whose frame stops in the middle: its memory is free only when the connection that writes to it is gone, so that is ended

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { BodyTarget } from '../wire/channel.js';
import { decodeJson, need, printable } from '../wire/json.js';
import { decodeU64s, type MessageHeader, MessageType, messageName } from '../wire/messages.js';
import type { NodeRef, PutOptions, PutResult } from './keeper.js';

interface Put {
  readonly id: number;
  readonly block: Uint8Array;
  readonly chain: readonly NodeRef[];
  readonly fills: boolean;
  /** null when the deadline has passed. */
  waiting: { resolve(result: PutResult): void; reject(error: AbdmError): void } | null;
  timer: NodeJS.Timeout | undefined;
  /** Sockets that still read the block. */
  writing: number;
  onFree: (() => void) | undefined;
}

interface Get {
  readonly id: number;
  /** null when the deadline has passed. */
  waiting: { into: Uint8Array; resolve(bytes: number): void; reject(error: AbdmError): void } | null;
  timer: NodeJS.Timeout | undefined;
  /** Its body is being received into `into`. */
  arriving: boolean;
  /** It stopped in the middle of its body: not to be asked again. */
  stuck: AbdmError | null;
}

/** Everything else: the first of those that wait for such an answer gets it. */
interface Ask {
  readonly type: MessageType;
  readonly id: number;
  readonly body: Uint8Array | undefined;
  readonly answer: MessageType;
  /** null when the deadline has passed. */
  waiting: { take(body: Uint8Array): void; reject(error: AbdmError): void } | null;
  timer: NodeJS.Timeout | undefined;
}

/** A question that is neither PUT nor GET. */
export interface Question<T> {
  readonly type: MessageType;
  readonly id?: number;
  readonly body?: Uint8Array;
  /** What it is answered with, and what that means. */
  readonly answer: MessageType;
  readonly decode: (body: Uint8Array) => T;
  readonly deadlineMs?: number | undefined;
}

/** The connection that questions are asked on, or the two of them. */
export interface Line {
  isOpen(): boolean;
  /** Received so far where blocks come in. */
  bytesIn(): number;
  put(put: Pick<Put, 'id' | 'block' | 'chain' | 'fills'>, onWritten: () => void): void;
  send(type: MessageType, id: number, body?: Uint8Array): void;
  /** Where blocks come in, it is of no use any more. */
  break(error: AbdmError): void;
}

export class Requests {
  /** Blocks that were acknowledged. */
  readonly stored = { frames: 0, bytes: 0 };
  /** Bytes of puts that are not answered. */
  outstandingBytes = 0;
  /** As the last answer to a put told. */
  freeBytes = 0;
  readonly #address: string;
  readonly #line: Line;
  readonly #puts = new Map<number, Put>();
  readonly #gets = new Map<number, Get>();
  #asks: Ask[] = [];

  constructor(address: string, line: Line) {
    this.#address = address;
    this.#line = line;
  }

  /** Answers that are due on a connection that carries questions of these types. */
  due(carries: (type: MessageType) => boolean): number {
    const blocks = carries(MessageType.PUT) ? this.#puts.size + this.#gets.size : 0;
    return this.#asks.reduce((sum, { type }) => sum + (carries(type) ? 1 : 0), blocks);
  }

  put(
    id: number,
    block: Uint8Array,
    chain: readonly NodeRef[],
    { deadlineMs, onFree, fills = false }: PutOptions,
  ): Promise<PutResult> {
    return new Promise((resolve, reject) => {
      if (this.#puts.has(id)) {
        onFree?.();
        return reject(this.#unready(`has not answered yet to an earlier PUT of ${id}`));
      }
      const waiting = { resolve, reject };
      const put: Put = { id, block, chain, fills, waiting, timer: undefined, writing: 0, onFree };
      if (deadlineMs !== undefined) put.timer = after(deadlineMs, () => this.#abandonPut(put, deadlineMs));
      this.outstandingBytes += block.byteLength;
      this.#puts.set(id, put);
      if (this.#line.isOpen()) this.#sendPut(put);
    });
  }

  get(id: number, into: Uint8Array, deadlineMs: number | undefined): Promise<number> {
    return new Promise((resolve, reject) => {
      const earlier = this.#gets.get(id);
      if (earlier?.waiting) return reject(this.#unready(`is being asked for ${id} already`));
      const get: Get = earlier ?? { id, waiting: null, timer: undefined, arriving: false, stuck: null };
      get.waiting = { into, resolve, reject };
      if (deadlineMs !== undefined) this.#watchGet(get, deadlineMs);
      this.#gets.set(id, get);
      if (earlier === undefined && this.#line.isOpen()) this.#line.send(MessageType.GET, id);
    });
  }

  ask<T>({ type, id = 0, body, answer, decode, deadlineMs }: Question<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      // A body that cannot be read ends the connection, and the question with it.
      const take = (body: Uint8Array) => {
        try {
          resolve(decode(body));
        } catch (error) {
          reject(asAbdmError(error));
          throw error;
        }
      };
      const ask: Ask = { type, id, body, answer, waiting: { take, reject }, timer: undefined };
      if (deadlineMs !== undefined) {
        ask.timer = after(deadlineMs, () => {
          if (!this.#asks.includes(ask)) return;
          ask.waiting = null;
          if (!this.#line.isOpen()) this.#asks = this.#asks.filter((other) => other !== ask);
          reject(this.#late(`answered ${messageName(type)}`, deadlineMs));
        });
      }
      this.#asks.push(ask);
      if (this.#line.isOpen()) this.#line.send(type, id, body);
    });
  }

  bodyTarget(header: MessageHeader): BodyTarget {
    if (header.type !== MessageType.FRAME) return null;
    const get = this.#gets.get(header.id);
    if (!get) throw unasked(this.#address, header);
    if (!get.waiting) {
      this.#gets.delete(header.id);
      return 'discard';
    }
    const { into } = get.waiting;
    if (header.bodyBytes > into.byteLength) {
      const text = `${this.#address} sent frame ${header.id} with ${header.bodyBytes} bytes, too many`;
      throw new AbdmError('PROTOCOL', text);
    }
    get.arriving = true;
    return into.subarray(0, header.bodyBytes);
  }

  /** An answer. @throws {AbdmError} PROTOCOL. */
  onMessage(header: MessageHeader, body: Uint8Array): void {
    switch (header.type) {
      case MessageType.STORED:
        return this.#onStored(header, body);
      case MessageType.REFUSED:
        return this.#onRefused(header, body);
      case MessageType.FRAME:
        return this.#takeGet(header)?.resolve(body.byteLength);
      case MessageType.MISSING: {
        const error = new AbdmError('FRAME_LOST', `${this.#address} does not have frame ${header.id}`);
        return this.#takeGet(header)?.reject(error);
      }
      default: {
        const at = this.#asks.findIndex(({ answer }) => answer === header.type);
        if (at < 0) throw unasked(this.#address, header);
        const [ask] = this.#asks.splice(at, 1);
        clearTimeout(ask!.timer);
        ask!.waiting?.take(body);
      }
    }
  }

  /** The connection is gone: what nobody waits for any more is not asked again. */
  interrupt(): void {
    for (const put of this.#puts.values()) if (!put.waiting) this.#forgetPut(put);
    for (const get of this.#gets.values()) {
      get.arriving = false;
      if (get.waiting && !get.stuck) continue;
      this.#gets.delete(get.id);
      if (get.stuck) get.waiting?.reject(get.stuck);
    }
    this.#asks = this.#asks.filter(({ waiting }) => waiting);
  }

  /** There is a new connection. */
  repeat(): void {
    for (const put of this.#puts.values()) this.#sendPut(put);
    for (const { id } of this.#gets.values()) this.#line.send(MessageType.GET, id);
    for (const { type, id, body } of this.#asks) this.#line.send(type, id, body);
  }

  /** There will be no answers any more. */
  fail(error: AbdmError): void {
    const all = [...this.#puts.values(), ...this.#gets.values(), ...this.#asks];
    for (const put of this.#puts.values()) this.#forgetPut(put);
    this.#gets.clear();
    this.#asks = [];
    for (const { waiting, timer } of all) {
      clearTimeout(timer);
      waiting?.reject(error);
    }
  }

  #onStored(header: MessageHeader, body: Uint8Array): void {
    const freeBytes = decodeU64s(body, 'STORED');
    const put = this.#takePut(header);
    this.freeBytes = freeBytes[0]!;
    this.stored.frames++;
    this.stored.bytes += put.block.byteLength;
    put.waiting?.resolve({ stored: true, freeBytes });
  }

  #onRefused(header: MessageHeader, body: Uint8Array): void {
    const refused = decodeJson(body, 'REFUSED');
    const put = this.#takePut(header);
    this.freeBytes = need.integer(refused, 'freeBytes', 'REFUSED');
    const code = printable(need.string(refused, 'code', 'REFUSED', 64));
    const message = printable(need.string(refused, 'message', 'REFUSED', 4000));
    const node = Object.hasOwn(refused, 'node') ? need.string(refused, 'node', 'REFUSED', 300) : this.#address;
    put.waiting?.resolve({ stored: false, code, message, node });
  }

  #takePut(header: MessageHeader): Put {
    const put = this.#puts.get(header.id);
    if (!put) throw unasked(this.#address, header);
    this.#forgetPut(put);
    return put;
  }

  #forgetPut(put: Put): void {
    this.#puts.delete(put.id);
    clearTimeout(put.timer);
    this.outstandingBytes -= put.block.byteLength;
    queueMicrotask(() => this.#freePut(put));
  }

  // The bytes are free when nobody waits for the answer any more and no socket reads them.
  #freePut(put: Put): void {
    const due = put.waiting !== null && this.#puts.get(put.id) === put;
    if (due || put.writing > 0) return;
    put.onFree?.();
    put.onFree = undefined;
  }

  #takeGet(header: MessageHeader): Get['waiting'] {
    const get = this.#gets.get(header.id);
    if (!get) throw unasked(this.#address, header);
    this.#gets.delete(header.id);
    clearTimeout(get.timer);
    return get.waiting;
  }

  #sendPut(put: Put): void {
    put.writing++;
    this.#line.put(put, () => {
      put.writing--;
      this.#freePut(put);
    });
  }

  #abandonPut(put: Put, deadlineMs: number): void {
    if (this.#puts.get(put.id) !== put) return;
    const { waiting } = put;
    put.waiting = null;
    // While there is no connection nothing is due.
    if (!this.#line.isOpen()) this.#forgetPut(put);
    waiting?.reject(this.#late(`said that it has ${put.id}`, deadlineMs));
    this.#freePut(put);
  }

  #watchGet(get: Get, deadlineMs: number): void {
    const bytesIn = this.#line.bytesIn();
    get.timer = after(deadlineMs, () => {
      if (this.#gets.get(get.id) !== get) return;
      if (this.#line.isOpen() && this.#line.bytesIn() > bytesIn) return this.#watchGet(get, deadlineMs);
      const error = this.#late(`sent ${get.id}`, deadlineMs);
      if (get.arriving) {
        get.stuck = error;
        this.#line.break(new AbdmError('PEER_GONE', error.message));
        return;
      }
      const { waiting } = get;
      get.waiting = null;
      if (!this.#line.isOpen()) this.#gets.delete(get.id);
      waiting?.reject(error);
    });
  }

  #late(what: string, ms: number): AbdmError {
    return this.#unready(`has not ${what} within ${ms} ms`);
  }

  #unready(what: string): AbdmError {
    return new AbdmError('PEER_UNREACHABLE', `${this.#address} ${what}`);
  }
}

/** When a deadline has passed, and what came before it has been read too: whoever was busy himself does not take that for silence. */
function after(deadlineMs: number, late: () => void): NodeJS.Timeout {
  return setTimeout(() => setImmediate(late), deadlineMs);
}

/** What is said of an answer to nothing. */
export function unasked(address: string, { type, id }: MessageHeader): AbdmError {
  const what = id === 0 ? messageName(type) : `${messageName(type)} for frame ${id}`;
  return new AbdmError('PROTOCOL', `${address} sent ${what}, which nobody asked for`);
}
