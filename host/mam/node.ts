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
// Where the connection is secured, WELCOME brings a ticket, and with it a second one is made (lane.ts): CHAIN, PUT, GET, PING and their answers go
// there, everything else stays on the first. The two are one for whoever uses the node: if either breaks, both are made again.
//
// How a node is lost:
//   a connection breaks        it is made again, at once and for 2 s; the same node goes on, and what it has not answered is asked again
//   refused there              it is gone, and its blocks with it
//   another node is there      likewise
//   not reached within 2 s     it is gone for us; its blocks may still be there
//   asked, and silent          after `answerMs`, likewise; deadlines of single requests are the caller's, and end nothing

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { connect } from '../wire/connect.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import {
  decodeU64s,
  FILLS,
  isAboutBlocks,
  MAX_CHAIN,
  MAX_REPLICAS,
  MessageType,
  PROTOCOL_VERSION,
} from '../wire/messages.js';
import type { Security } from '../wire/security.js';
import { needTicket, type Ticket } from '../wire/tickets.js';
import {
  type Claimed,
  decodeClaimed,
  decodeFound,
  decodeLeased,
  type FoundMigration,
  isNodeId,
  type Registration,
} from './bodies.js';
import {
  type ClaimOptions,
  type FrameKeeper,
  type Gone,
  isSurelyGone,
  type KeeperOptions,
  type NodeRef,
  type PutOptions,
  type PutResult,
  peerCode,
} from './keeper.js';
import { Lane } from './lane.js';
import { type Question, Requests, unasked } from './requests.js';

/** A node that is asked for something and says nothing for so long is given up. */
const ANSWER_MS = 60_000;
/** How long a connection that broke is tried again. */
const RETRY_MS = 2_000;
const RETRY_PAUSE_MS = 50;
/** A connection that breaks so often with no answer in between is not made again. What is not about blocks does not show that blocks get through. */
const MAX_BREAKS = 5;
const TIMEOUT_MS = 5_000;

export class MamNode implements FrameKeeper {
  readonly copies = 1;
  readonly chains = true;
  readonly address: string;
  /** 32 hexadecimal digits; empty for a destination, which is no member of chains. */
  id: string;
  memoryBytes = 0;
  readonly #options: KeeperOptions;
  readonly #requests: Requests;
  /** The connections that stand: the first for everything but blocks, the last for blocks, which may be the same; none while there is none. */
  #lanes: readonly Lane[] = [];
  /** Of these, the first that broke, while the other one is still going. */
  #broken: { readonly lane: Lane; readonly reason: AbdmError } | null = null;
  #gone: Gone | null = null;
  #ended = false;
  /** Of connections that are closed. */
  readonly #past = { bytesIn: 0, bytesOut: 0, blocksIn: 0 };
  /** How often a connection broke since the last answer. */
  #breaks = 0;
  /** Chains that the node knows on this connection, by the ids of their members. */
  readonly #chains = new Map<string, number>();

  private constructor(address: string, options: KeeperOptions) {
    this.address = address;
    this.id = options.id ?? '';
    this.#options = options;
    this.#requests = new Requests(address, {
      isOpen: () => this.open,
      bytesIn: () => this.#past.blocksIn + (this.#lanes.at(-1)?.bytesIn ?? 0),
      put: ({ id, block, chain, fills }, onWritten) => {
        const number = chain.length > 0 ? this.#chainNumber(chain) : fills ? FILLS : 0;
        this.#lanes.at(-1)!.ask(MessageType.PUT, id, block, onWritten, number);
      },
      send: (type, id, body) => {
        this.#lanes.at(isAboutBlocks(type) ? -1 : 0)!.ask(type, id, body);
      },
      break: (error) => this.#lanes.at(-1)?.destroy(error),
    });
  }

  /**
   * Connects and says hello.
   * @throws {AbdmError} PEER_UNREACHABLE, PEER_ABORTED, PROTOCOL, PEER_GONE; {@link isSurelyGone} tells whether anybody may still be there.
   */
  static async connect(address: string, options: KeeperOptions): Promise<MamNode> {
    const node = new MamNode(address, options);
    await node.#open(options.timeoutMs ?? TIMEOUT_MS, options.signal);
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
    return this.#lanes.length > 0 && this.#lanes.every(({ open }) => open);
  }

  /** Why it will never be open again; null: it is open, or soon will be. */
  get gone(): Gone | null {
    return this.#gone;
  }

  /** Blocks that it has acknowledged, and their bytes; those of chains count here once. */
  get stored(): { readonly frames: number; readonly bytes: number } {
    return this.#requests.stored;
  }

  get outstandingBytes(): number {
    return this.#requests.outstandingBytes;
  }

  get freeBytes(): number {
    return this.#requests.freeBytes;
  }

  get bytesIn(): number {
    return this.#lanes.reduce((sum, { bytesIn }) => sum + bytesIn, this.#past.bytesIn);
  }

  get bytesOut(): number {
    return this.#lanes.reduce((sum, { bytesOut }) => sum + bytesOut, this.#past.bytesOut);
  }

  /**
   * Gives it a block, for itself and for whoever comes behind it in the chain (FrameKeeper.put).
   * @param chain all holders in order; this node forwards to the one behind it. If it is not among them it stands before them. Empty: only this one.
   */
  put(id: number, block: Uint8Array, chain: readonly NodeRef[] = [], options: PutOptions = {}): Promise<PutResult> {
    const lost = this.#lost();
    if (lost === null) return this.#requests.put(id, block, chain, options);
    options.onFree?.();
    return Promise.reject(lost);
  }

  /** With `deadlineMs`: rejects when nothing at all came from the node for so long. */
  get(id: number, into: Uint8Array, { deadlineMs }: { deadlineMs?: number } = {}): Promise<number> {
    const lost = this.#lost();
    return lost === null ? this.#requests.get(id, into, deadlineMs) : Promise.reject(lost);
  }

  list(from: number): Promise<number[]> {
    const decode = (body: Uint8Array) => decodeU64s(body, 'LISTED');
    return this.#ask({ type: MessageType.LIST, id: from, answer: MessageType.LISTED, decode });
  }

  /** Tells what this migration is, so that others can find and claim it. */
  register(registration: Registration): Promise<{ expiresInMs: number }> {
    const body = encodeJson(registration);
    return this.#ask({ type: MessageType.REGISTER, body, answer: MessageType.LEASED, decode: decodeLeased });
  }

  /** Asks for the migration, for whoever has the token; `by` says who that is, to people. `forGood`: and nobody else is ever given it. */
  claim(token: string, by: string, { forGood = false, deadlineMs }: ClaimOptions = {}): Promise<Claimed> {
    const body = encodeJson({ token, by, ...(forGood && { forGood }) });
    return this.#ask({
      type: MessageType.CLAIM,
      body,
      answer: MessageType.CLAIMED,
      decode: decodeClaimed,
      deadlineMs,
    });
  }

  /** Gives a claim back. */
  release(token: string, by: string, deadlineMs?: number): Promise<Claimed> {
    const body = encodeJson({ token, by, release: true });
    return this.#ask({
      type: MessageType.CLAIM,
      body,
      answer: MessageType.CLAIMED,
      decode: decodeClaimed,
      deadlineMs,
    });
  }

  /** The migration stays for so long after its last connection. */
  lease(leaseMs: number, deadlineMs?: number): Promise<{ expiresInMs: number }> {
    const body = encodeJson({ leaseMs });
    return this.#ask({
      type: MessageType.LEASE,
      body,
      answer: MessageType.LEASED,
      decode: decodeLeased,
      deadlineMs,
    });
  }

  /** A node has what it has for as long as it is the same. */
  async verify(): Promise<void> {}

  /** Whether it answers within this. */
  ping(timeoutMs: number): Promise<boolean> {
    const answer = MessageType.PONG;
    const pong = this.#ask({ type: MessageType.PING, answer, decode: () => true, deadlineMs: timeoutMs });
    return pong.catch(() => false);
  }

  async drop(deadlineMs?: number): Promise<{ frames: number; bytes: number }> {
    try {
      const answer = MessageType.DROPPED;
      return await this.#ask({ type: MessageType.DROP, answer, decode: decodeDropped, deadlineMs });
    } catch (error) {
      // It was dropped already, as we find when a connection that broke is made again.
      if (peerCode(error) === 'CANCELLED') return { frames: 0, bytes: 0 };
      throw error;
    }
  }

  end(): void {
    this.#ended = true;
    for (const lane of this.#lanes) lane.end();
  }

  /** Ends the connection at once: what is on its way is given up. */
  abandon(): void {
    this.#ended = true;
    for (const lane of this.#lanes) lane.destroy();
  }

  /** Connections that stand: up to WELCOME, and, with a ticket, up to PONG on the second. */
  async #open(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const { role, migration, security, answerMs = ANSWER_MS } = this.#options;
    const by = performance.now() + timeoutMs;
    const common = {
      requests: this.#requests,
      answerMs,
      onClose: (reason: AbdmError, lane: Lane) => this.#onClose(reason, lane),
    };
    const [talk, ticket] = await Lane.open(this.address, {
      ...common,
      timeoutMs,
      connect: { signal, ...(security && { security }) },
      first: { type: MessageType.HELLO, body: encodeJson({ protocol: PROTOCOL_VERSION, role, migration }) },
      answer: MessageType.WELCOME,
      decode: (body) => this.#onWelcome(body),
    });
    let blocks = talk;
    if (ticket !== null) {
      talk.carries = (type) => !isAboutBlocks(type);
      try {
        [blocks] = await Lane.open(this.address, {
          ...common,
          timeoutMs: Math.max(1, by - performance.now()),
          connect: { signal, ticket },
          first: { type: MessageType.PING },
          answer: MessageType.PONG,
          decode: () => {},
        });
      } catch (error) {
        talk.destroy();
        throw error;
      }
      blocks.carries = isAboutBlocks;
    }
    // Meanwhile the first one may have gone again, or both.
    const closed = talk.closed ?? blocks.closed;
    if (closed !== null) {
      for (const lane of [talk, blocks]) lane.destroy();
      throw closed;
    }
    this.#lanes = blocks === talk ? [talk] : [talk, blocks];
  }

  #onWelcome(body: Uint8Array): Ticket | null {
    const welcome = decodeJson(body, 'WELCOME');
    need.integer(welcome, 'protocol', 'WELCOME', PROTOCOL_VERSION, PROTOCOL_VERSION);
    this.#requests.freeBytes = need.integer(welcome, 'freeBytes', 'WELCOME');
    const ticket = needTicket(welcome, 'ticket', 'WELCOME');
    const { role } = this.#options;
    if (role === 'frames' || role === 'urgent') return ticket;
    const id = need.string(welcome, 'id', 'WELCOME', 32);
    if (!isNodeId(id)) throw new AbdmError('PROTOCOL', 'WELCOME: `id` is not 32 hexadecimal digits');
    this.memoryBytes = need.integer(welcome, 'memoryBytes', 'WELCOME');
    if (this.id !== '' && this.id !== id) {
      const text = `the node at ${this.address} is another one than before: it was restarted, and has lost what it kept`;
      throw new AbdmError('PEER_GONE', text, { cause: ANOTHER_NODE });
    }
    this.id = id;
    return ticket;
  }

  #ask<T>(question: Question<T>): Promise<T> {
    const lost = this.#lost();
    return lost === null ? this.#requests.ask(question) : Promise.reject(lost);
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
    this.#lanes.at(-1)!.tell(MessageType.CHAIN, encodeJson({ chain: number, nodes }));
    return number;
  }

  #onClose(reason: AbdmError, lane: Lane): void {
    if (!this.#lanes.includes(lane)) return;
    this.#broken ??= { lane, reason };
    // The other one goes too, at once unless it still ends in order; until it has gone, it may write where a block is to go.
    const left = this.#lanes.filter(({ closed }) => closed === null);
    if (!this.#ended) for (const other of left) other.destroy();
    if (left.length === 0) this.#onGone(this.#broken);
  }

  #onGone({ lane, reason }: { lane: Lane; reason: AbdmError }): void {
    const [talk, blocks] = [this.#lanes[0], this.#lanes.at(-1)!];
    this.#past.bytesIn = this.bytesIn;
    this.#past.bytesOut = this.bytesOut;
    this.#past.blocksIn += blocks.bytesIn;
    this.#lanes = [];
    this.#broken = null;
    this.#chains.clear();
    this.#requests.interrupt();
    if (blocks.answered || (lane === talk && lane.answered)) this.#breaks = 0;
    if (this.#ended || lane.silent || reason.code !== 'PEER_GONE' || ++this.#breaks >= MAX_BREAKS) {
      return this.#lose(reason);
    }
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
    if (this.#ended) return this.end();
    this.#requests.repeat();
    this.#options.onState?.(this);
  }

  #lose(error: AbdmError): void {
    this.#gone = { error, surely: isSurelyGone(error) };
    this.#requests.fail(error);
    this.#options.onState?.(this);
  }

  #lost(): AbdmError | null {
    if (this.#gone) return this.#gone.error;
    return this.#ended ? new AbdmError('PEER_GONE', `the connection to ${this.address} has ended`) : null;
  }
}

const ANOTHER_NODE = { code: 'ANOTHER_NODE' };

function decodeDropped(body: Uint8Array): { frames: number; bytes: number } {
  const dropped = decodeJson(body, 'DROPPED');
  return { frames: need.integer(dropped, 'frames', 'DROPPED'), bytes: need.integer(dropped, 'bytes', 'DROPPED') };
}
