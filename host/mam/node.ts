// One node that keeps blocks, as its client sees it: an intermediate, or the destination when frames go straight there.
//
//   client                                  node
//   HELLO { role, migration }      ->
//                                  <-  WELCOME { id, freeBytes, memoryBytes }
//   CHAIN { chain: 1, nodes }      ->       once for each chain; no answer
//   PUT 7, chain 1 (block)         ->
//   PUT 8 (block)                  ->
//                                  <-  STORED 8 (free bytes)               in any order
//                                  <-  STORED 7 (free bytes of each holder)
//                                      or REFUSED 7 { code, message, freeBytes, node }
//   GET 7                          ->
//                                  <-  FRAME 7 (block)  or  MISSING 7
//   LIST, REGISTER, CLAIM, LEASE, PING, DROP, each with its answer
//
// How a node is lost:
//   the connection breaks      it is made again, at once and for 2 s; the same node goes on, and what it has not answered is asked again
//   refused there              it is gone, and its blocks with it
//   another node is there      likewise
//   not reached within 2 s     it is gone for us; its blocks may still be there
//   asked, and silent          after `answerMs`, likewise; deadlines of single requests are the caller's, and end nothing

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { BodyTarget, Channel } from '../wire/channel.js';
import { connect } from '../wire/connect.js';
import { decodeJson, encodeJson, need, printable } from '../wire/json.js';
import {
  decodeU64s,
  MAX_CHAIN,
  MAX_REPLICAS,
  type MessageHeader,
  MessageType,
  messageName,
  PROTOCOL_VERSION,
} from '../wire/messages.js';
import type { Security } from '../wire/security.js';
import {
  type Claimed,
  decodeClaimed,
  decodeFound,
  decodeLeased,
  type FoundMigration,
  isNodeId,
  type Registration,
} from './bodies.js';
import type { FrameKeeper, NodeRef, PutOptions, PutResult } from './keeper.js';

/** A node that is asked for something and says nothing for so long is given up. */
const ANSWER_MS = 60_000;
/** How long a connection that broke is tried again. */
const RETRY_MS = 2_000;
const RETRY_PAUSE_MS = 50;
/** A connection that breaks so often with no answer in between is not made again. */
const MAX_BREAKS = 5;
const TIMEOUT_MS = 5_000;

export interface NodeOptions {
  /** 32 hexadecimal digits. */
  readonly migration: string;
  readonly role: 'source' | 'destination' | 'frames' | 'intermediate';
  readonly security?: Security;
  /** Only this node will do; another one at the address is as if nobody were there. */
  readonly id?: string;
  /** A node that is asked for something and says nothing at all for so long is given up. Default 60 s. */
  readonly answerMs?: number;
  /** It must be connected and have said WELCOME within this. Default 5 s. */
  readonly timeoutMs?: number;
  /** Called when `open` or `gone` has changed. */
  readonly onState?: (node: MamNode) => void;
}

/** Why a node is not there any more, and whether it has surely lost its blocks. */
export interface Gone {
  readonly error: AbdmError;
  readonly surely: boolean;
}

interface Put {
  readonly id: number;
  readonly block: Uint8Array;
  readonly chain: readonly NodeRef[];
  /** null when the deadline has passed: an answer is still due, and is counted. */
  waiting: { resolve(result: PutResult): void; reject(error: AbdmError): void } | null;
  timer: NodeJS.Timeout | undefined;
  /** Sockets that still read the block. */
  writing: number;
  onFree: (() => void) | undefined;
}

interface Get {
  readonly id: number;
  /** null when the deadline has passed: an answer is still due, and is thrown away. */
  waiting: { into: Uint8Array; resolve(bytes: number): void; reject(error: AbdmError): void } | null;
  timer: NodeJS.Timeout | undefined;
  /** Its body is being received into `into`. */
  arriving: boolean;
  /** It stopped in the middle of its body: not to be asked again. */
  stuck: AbdmError | null;
}

/** Everything else that is asked: the first of those that wait for such an answer gets it. */
interface Ask {
  readonly type: MessageType;
  readonly id: number;
  readonly body: Uint8Array | undefined;
  readonly answer: MessageType;
  /** null when the deadline has passed. */
  waiting: { take(body: Uint8Array): void; reject(error: AbdmError): void } | null;
  timer: NodeJS.Timeout | undefined;
}

export class MamNode implements FrameKeeper, NodeRef {
  readonly address: string;
  /** 32 hexadecimal digits; empty for a destination, which is no member of chains. */
  id: string;
  readonly stored = { frames: 0, bytes: 0 };
  freeBytes = 0;
  memoryBytes = 0;
  outstandingBytes = 0;
  readonly #options: NodeOptions;
  #channel: Channel | null = null;
  #gone: Gone | null = null;
  #ended = false;
  /** Of channels that are closed. */
  #pastBytesIn = 0;
  #pastBytesOut = 0;
  /** How often the connection broke since the last answer. */
  #breaks = 0;
  readonly #puts = new Map<number, Put>();
  readonly #gets = new Map<number, Get>();
  #asks: Ask[] = [];
  /** Chains that the node knows on this connection, by the ids of their members. */
  #chains = new Map<string, number>();
  /** Runs while an answer is due; each message from the node starts it anew. */
  #deadline: NodeJS.Timeout | undefined;

  private constructor(address: string, options: NodeOptions) {
    this.address = address;
    this.id = options.id ?? '';
    this.#options = options;
  }

  /**
   * Connects and says hello.
   * @throws {AbdmError} PEER_UNREACHABLE, PEER_ABORTED, PROTOCOL, PEER_GONE; {@link isSurelyGone} tells whether anybody may still be there.
   */
  static async connect(address: string, options: NodeOptions): Promise<MamNode> {
    const node = new MamNode(address, options);
    await node.#open(options.timeoutMs ?? TIMEOUT_MS);
    return node;
  }

  /** What a node knows of migrations: of those with a VM of this name, or all. Connects for this question only. @throws {AbdmError} */
  static async lookup(
    address: string,
    name?: string,
    security?: Security,
    timeoutMs = TIMEOUT_MS,
  ): Promise<FoundMigration[]> {
    return new Promise((resolve, reject) => {
      let found: FoundMigration[] | null = null;
      connect(
        address,
        {
          onMessage: (header, body, channel) => {
            if (header.type !== MessageType.FOUND) throw unasked(address, header);
            found = decodeFound(body);
            channel.end();
          },
          onClose: (error) => {
            if (found) resolve(found);
            else reject(error ?? new AbdmError('PEER_GONE', `${address} ended the connection without an answer`));
          },
        },
        { timeoutMs, handshakeMs: timeoutMs, lingerMs: 200, ...(security && { security }) },
      ).then((channel) => channel.send(MessageType.LOOKUP, 0, encodeJson(name === undefined ? {} : { name })), reject);
    });
  }

  /** It is connected, and can be asked for something. */
  get open(): boolean {
    return this.#channel?.open ?? false;
  }

  /** Why it will never be open again; null: it is open, or soon will be. */
  get gone(): Gone | null {
    return this.#gone;
  }

  get bytesIn(): number {
    return this.#pastBytesIn + (this.#channel?.bytesIn ?? 0);
  }

  get bytesOut(): number {
    return this.#pastBytesOut + (this.#channel?.bytesOut ?? 0);
  }

  /**
   * @param chain all holders in order; this node forwards to the one behind it. If it is not among them it stands before them. Empty: only this one.
   */
  put(id: number, block: Uint8Array, chain: readonly NodeRef[] = [], options: PutOptions = {}): Promise<PutResult> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal(this.#puts.has(id) ? `has not answered yet to an earlier PUT of ${id}` : null);
      if (refusal) {
        options.onFree?.();
        return reject(refusal);
      }
      const { deadlineMs, onFree } = options;
      const put: Put = { id, block, chain, waiting: { resolve, reject }, timer: undefined, writing: 0, onFree };
      if (deadlineMs !== undefined) put.timer = setTimeout(() => this.#abandonPut(put, deadlineMs), deadlineMs);
      this.outstandingBytes += block.byteLength;
      this.#puts.set(id, put);
      if (this.open) this.#sendPut(put);
    });
  }

  /** With `deadlineMs`: rejects when nothing at all came from the node for so long. */
  get(id: number, into: Uint8Array, { deadlineMs }: { deadlineMs?: number } = {}): Promise<number> {
    return new Promise((resolve, reject) => {
      const earlier = this.#gets.get(id);
      const refusal = this.#refusal(earlier?.waiting ? `is being asked for ${id} already` : null);
      if (refusal) return reject(refusal);
      // An answer that is still due to somebody who has given up serves as well.
      const get: Get = earlier ?? { id, waiting: null, timer: undefined, arriving: false, stuck: null };
      get.waiting = { into, resolve, reject };
      if (deadlineMs !== undefined) this.#watchGet(get, deadlineMs);
      this.#gets.set(id, get);
      if (earlier === undefined && this.open) this.#sendGet(get);
    });
  }

  list(from: number): Promise<number[]> {
    return this.#ask(MessageType.LIST, undefined, MessageType.LISTED, (body) => decodeU64s(body, 'LISTED'), {
      id: from,
    });
  }

  /** Tells what this migration is, so that others can find and claim it. */
  register(registration: Registration): Promise<{ expiresInMs: number }> {
    return this.#ask(MessageType.REGISTER, encodeJson(registration), MessageType.LEASED, decodeLeased);
  }

  /** Asks for the migration, for whoever has the token. `by` says who that is, to people. */
  claim(token: string, by: string, deadlineMs?: number): Promise<Claimed> {
    return this.#ask(MessageType.CLAIM, encodeJson({ token, by }), MessageType.CLAIMED, decodeClaimed, { deadlineMs });
  }

  /** Gives a claim back. */
  release(token: string, by: string, deadlineMs?: number): Promise<Claimed> {
    const body = encodeJson({ token, by, release: true });
    return this.#ask(MessageType.CLAIM, body, MessageType.CLAIMED, decodeClaimed, { deadlineMs });
  }

  /** The migration stays for so long after its last connection. */
  lease(leaseMs: number, deadlineMs?: number): Promise<{ expiresInMs: number }> {
    return this.#ask(MessageType.LEASE, encodeJson({ leaseMs }), MessageType.LEASED, decodeLeased, { deadlineMs });
  }

  /** Whether it answers within this. */
  ping(timeoutMs: number): Promise<boolean> {
    const pong = this.#ask(MessageType.PING, undefined, MessageType.PONG, () => true, { deadlineMs: timeoutMs });
    return pong.catch(() => false);
  }

  async drop(deadlineMs?: number): Promise<{ frames: number; bytes: number }> {
    try {
      return await this.#ask(MessageType.DROP, undefined, MessageType.DROPPED, decodeDropped, { deadlineMs });
    } catch (error) {
      // It was dropped already, as we find when a connection that broke is made again.
      if (peerCode(error) === 'CANCELLED') return { frames: 0, bytes: 0 };
      throw error;
    }
  }

  end(): void {
    this.#ended = true;
    this.#channel?.end();
  }

  /** A connection that stands, up to WELCOME. */
  async #open(timeoutMs: number): Promise<void> {
    const { role, migration, security } = this.#options;
    const by = performance.now() + timeoutMs;
    let resolve!: () => void;
    let reject!: (error: AbdmError) => void;
    const welcome = new Promise<void>((...both) => {
      [resolve, reject] = both;
    });
    const channel = await connect(
      this.address,
      {
        bodyTarget: (header) => this.#bodyTarget(header),
        onMessage: (header, body, from) => {
          if (header.type !== MessageType.WELCOME) return this.#onMessage(header, body);
          if (this.#channel === from) throw unasked(this.address, header);
          this.#onWelcome(body);
          this.#channel = from;
          resolve();
        },
        onClose: (error, from) => {
          const reason = error ?? new AbdmError('PEER_GONE', `the connection to ${this.address} has ended`);
          reject(reason);
          if (this.#channel === from) this.#onClose(reason);
        },
      },
      { timeoutMs, ...(security && { security }) },
    );
    channel.send(MessageType.HELLO, 0, encodeJson({ protocol: PROTOCOL_VERSION, role, migration }));
    const timer = setTimeout(() => {
      const text = `${this.address} accepts connections, and has not said WELCOME within ${timeoutMs} ms: is it stopped?`;
      channel.destroy(new AbdmError('PEER_UNREACHABLE', text));
    }, by - performance.now());
    await welcome.finally(() => clearTimeout(timer));
  }

  #onWelcome(body: Uint8Array): void {
    const welcome = decodeJson(body, 'WELCOME');
    need.integer(welcome, 'protocol', 'WELCOME', PROTOCOL_VERSION, PROTOCOL_VERSION);
    this.freeBytes = need.integer(welcome, 'freeBytes', 'WELCOME');
    if (this.#options.role === 'frames') return;
    const id = need.string(welcome, 'id', 'WELCOME', 32);
    if (!isNodeId(id)) throw new AbdmError('PROTOCOL', 'WELCOME: `id` is not 32 hexadecimal digits');
    this.memoryBytes = need.integer(welcome, 'memoryBytes', 'WELCOME');
    if (this.id !== '' && this.id !== id) {
      const text = `the node at ${this.address} is another one than before: it was restarted, and has lost what it kept`;
      throw new AbdmError('PEER_GONE', text, { cause: ANOTHER_NODE });
    }
    this.id = id;
  }

  #bodyTarget(header: MessageHeader): BodyTarget {
    if (header.type !== MessageType.FRAME) return null;
    const get = this.#gets.get(header.id);
    if (!get) throw unasked(this.address, header);
    if (!get.waiting) {
      this.#gets.delete(header.id);
      this.#onAnswer();
      return 'discard';
    }
    const { into } = get.waiting;
    if (header.bodyBytes > into.byteLength) {
      const text = `${this.address} sent frame ${header.id} with ${header.bodyBytes} bytes, too many`;
      throw new AbdmError('PROTOCOL', text);
    }
    get.arriving = true;
    return into.subarray(0, header.bodyBytes);
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    switch (header.type) {
      case MessageType.STORED:
        this.#onStored(header, body);
        break;
      case MessageType.REFUSED:
        this.#onRefused(header, body);
        break;
      case MessageType.FRAME:
        this.#takeGet(header)?.resolve(body.byteLength);
        break;
      case MessageType.MISSING:
        this.#takeGet(header)?.reject(new AbdmError('FRAME_LOST', `${this.address} does not have frame ${header.id}`));
        break;
      default:
        this.#onOther(header, body);
    }
    this.#onAnswer();
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
    const node = Object.hasOwn(refused, 'node') ? need.string(refused, 'node', 'REFUSED', 300) : this.address;
    put.waiting?.resolve({ stored: false, code, message, node });
  }

  #onOther(header: MessageHeader, body: Uint8Array): void {
    const at = this.#asks.findIndex(({ answer }) => answer === header.type);
    if (at < 0) throw unasked(this.address, header);
    const [ask] = this.#asks.splice(at, 1);
    clearTimeout(ask!.timer);
    ask!.waiting?.take(body);
  }

  #takePut(header: MessageHeader): Put {
    const put = this.#puts.get(header.id);
    if (!put) throw unasked(this.address, header);
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
    if (!get) throw unasked(this.address, header);
    this.#gets.delete(header.id);
    clearTimeout(get.timer);
    return get.waiting;
  }

  #abandonPut(put: Put, deadlineMs: number): void {
    const { waiting } = put;
    put.waiting = null;
    // While the connection is being made again nothing is due.
    if (!this.open) this.#forgetPut(put);
    waiting?.reject(this.#late(`said that it has ${put.id}`, deadlineMs));
    this.#freePut(put);
  }

  #watchGet(get: Get, deadlineMs: number): void {
    const { bytesIn } = this;
    get.timer = setTimeout(() => {
      if (this.open && this.bytesIn > bytesIn) return this.#watchGet(get, deadlineMs);
      const error = this.#late(`sent ${get.id}`, deadlineMs);
      if (get.arriving) {
        // Its memory is free only when the connection that writes to it is gone.
        get.stuck = error;
        this.#channel?.destroy(new AbdmError('PEER_GONE', error.message));
        return;
      }
      const { waiting } = get;
      get.waiting = null;
      if (!this.open) this.#gets.delete(get.id);
      waiting?.reject(error);
    }, deadlineMs);
  }

  #ask<T>(
    type: MessageType,
    body: Uint8Array | undefined,
    answer: MessageType,
    decode: (body: Uint8Array) => T,
    { id = 0, deadlineMs }: { id?: number; deadlineMs?: number | undefined } = {},
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal(null);
      if (refusal) return reject(refusal);
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
        ask.timer = setTimeout(() => {
          ask.waiting = null;
          if (!this.open) this.#asks = this.#asks.filter((other) => other !== ask);
          reject(this.#late(`answered ${messageName(type)}`, deadlineMs));
        }, deadlineMs);
      }
      this.#asks.push(ask);
      if (this.open) this.#sendAsk(ask);
    });
  }

  #sendPut(put: Put): void {
    this.#expectAnswer();
    const chain = put.chain.length > 0 ? this.#chainNumber(put.chain) : 0;
    put.writing++;
    const written = () => {
      put.writing--;
      this.#freePut(put);
    };
    this.#channel!.send(MessageType.PUT, put.id, put.block, written, chain);
  }

  #sendGet(get: Get): void {
    this.#expectAnswer();
    this.#channel!.send(MessageType.GET, get.id);
  }

  #sendAsk({ type, id, body }: Ask): void {
    this.#expectAnswer();
    this.#channel!.send(type, id, body);
  }

  /** The number of a chain on this connection; tells the node if it does not know it. */
  #chainNumber(chain: readonly NodeRef[]): number {
    const key = chain.map(({ id }) => id).join();
    const known = this.#chains.get(key);
    if (known !== undefined) return known;
    // A number that is given anew means the new chain from then on.
    if (this.#chains.size === MAX_CHAIN) this.#chains.clear();
    const number = this.#chains.size + 1;
    this.#chains.set(key, number);
    const nodes = chain.map(({ address, id }) => ({ address, id }));
    if (!nodes.some(({ id }) => id === this.id)) nodes.unshift({ address: this.address, id: this.id });
    if (nodes.length > MAX_REPLICAS) throw new RangeError(`a chain of ${nodes.length} nodes`);
    this.#channel!.send(MessageType.CHAIN, 0, encodeJson({ chain: number, nodes }));
    return number;
  }

  #expectAnswer(): void {
    const answerMs = this.#options.answerMs ?? ANSWER_MS;
    this.#deadline ??= setTimeout(() => {
      const text = `${this.address} has been asked, and has not answered for ${answerMs} ms`;
      this.#breaks = MAX_BREAKS;
      this.#channel?.destroy(new AbdmError('PEER_GONE', text));
    }, answerMs);
  }

  #onAnswer(): void {
    this.#breaks = 0;
    if (this.#puts.size + this.#gets.size + this.#asks.length > 0) this.#deadline?.refresh();
    else this.#stopWaiting();
  }

  #stopWaiting(): void {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }

  #onClose(reason: AbdmError): void {
    this.#stopWaiting();
    this.#pastBytesIn = this.bytesIn;
    this.#pastBytesOut = this.bytesOut;
    this.#channel = null;
    this.#chains.clear();
    // What nobody waits for any more is not asked again.
    for (const put of this.#puts.values()) if (!put.waiting) this.#forgetPut(put);
    for (const get of this.#gets.values()) {
      get.arriving = false;
      if (get.waiting && !get.stuck) continue;
      this.#gets.delete(get.id);
      if (get.stuck) get.waiting?.reject(get.stuck);
    }
    this.#asks = this.#asks.filter(({ waiting }) => waiting);
    if (this.#ended || reason.code !== 'PEER_GONE' || ++this.#breaks >= MAX_BREAKS) return this.#lose(reason);
    this.#options.onState?.(this);
    void this.#reopen();
  }

  async #reopen(): Promise<void> {
    const by = performance.now() + RETRY_MS;
    for (let left = RETRY_MS; ; left = by - performance.now()) {
      try {
        await this.#open(left);
        break;
      } catch (cause) {
        const error = asAbdmError(cause);
        const final = isSurelyGone(error) || error.code === 'PEER_ABORTED' || error.code === 'PROTOCOL';
        if (this.#ended || final || performance.now() + RETRY_PAUSE_MS >= by) return this.#lose(error);
        await sleep(RETRY_PAUSE_MS);
      }
    }
    if (this.#ended) return this.#channel?.end();
    for (const put of this.#puts.values()) this.#sendPut(put);
    for (const get of this.#gets.values()) this.#sendGet(get);
    for (const ask of this.#asks) this.#sendAsk(ask);
    this.#options.onState?.(this);
  }

  #lose(error: AbdmError): void {
    const all = [...this.#puts.values(), ...this.#gets.values(), ...this.#asks];
    for (const put of this.#puts.values()) this.#forgetPut(put);
    this.#gets.clear();
    this.#asks = [];
    this.#gone = { error, surely: isSurelyGone(error) };
    for (const { waiting, timer } of all) {
      clearTimeout(timer);
      waiting?.reject(error);
    }
    this.#options.onState?.(this);
  }

  #refusal(busy: string | null): AbdmError | null {
    if (this.#gone) return this.#gone.error;
    if (this.#ended) return new AbdmError('PEER_GONE', `the connection to ${this.address} has ended`);
    return busy === null ? null : new AbdmError('PEER_UNREACHABLE', `${this.address} ${busy}`);
  }

  #late(what: string, ms: number): AbdmError {
    return new AbdmError('PEER_UNREACHABLE', `${this.address} has not ${what} within ${ms} ms`);
  }
}

const ANOTHER_NODE = { code: 'ANOTHER_NODE' };
/** Nothing listens there; or another node does; or the node says itself that it has dropped everything. */
const SURELY = ['ECONNREFUSED', 'ANOTHER_NODE', 'CANCELLED'];

/** Whether a failed connection proves that the node, or what it kept of the migration, is gone; otherwise it may just be out of reach. */
export function isSurelyGone(error: unknown): boolean {
  return SURELY.includes(peerCode(error) ?? '');
}

/** What a peer or the system called an error that a connection ended with; null if it said nothing. */
export function peerCode(error: unknown): string | null {
  const cause = error instanceof Error ? error.cause : undefined;
  return typeof cause === 'object' && cause !== null && 'code' in cause ? String(cause.code) : null;
}

function decodeDropped(body: Uint8Array): { frames: number; bytes: number } {
  const dropped = decodeJson(body, 'DROPPED');
  return { frames: need.integer(dropped, 'frames', 'DROPPED'), bytes: need.integer(dropped, 'bytes', 'DROPPED') };
}

function unasked(address: string, { type, id }: MessageHeader): AbdmError {
  const what = id === 0 ? messageName(type) : `${messageName(type)} for frame ${id}`;
  return new AbdmError('PROTOCOL', `${address} sent ${what}, which nobody asked for`);
}
