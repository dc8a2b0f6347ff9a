// Other nodes that hold blocks of the same migration: one connection to each, over which blocks are forwarded and over which this node finds out
// whether the other one is still there. All of them end with the migration.
//
//   this node                               the other holder
//   HELLO { role: intermediate }   ->
//                                  <-  WELCOME { id }          another id: the one we mean is dead
//   REGISTER                       ->                          what the source said, if it did: it may know nothing yet
//   CHAIN, PUT                     ->                          blocks on their way down a chain
//                                  <-  STORED or REFUSED
//   PING; and LEASE while a source or destination is connected here: then the migration must not run out there
//                                  <-  PONG, LEASED            nothing for 3 s: it is missing, until its next answer;
//                                                              nothing for 5 s: the connection is made anew

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Registration } from '../mam/bodies.js';
import { type FrameKeeper, isSurelyGone, type NodeRef, type PutResult } from '../mam/keeper.js';
import { MamNode } from '../mam/node.js';
import type { Security } from '../wire/security.js';
import type { Chain } from './chains.js';

/** What the last but one of a chain gives the last one to store a block. */
const FORWARD_MS = 2_000;
/** Those before it give a little more, less than this, so that the one is blamed that is silent, and not the one that waits for it. */
const FORWARD_MORE_MS = 750;
const PING_EVERY_MS = 1_000;
const MISSING_MS = 3_000;
/** A connection over which nothing comes for so long, although it is asked, is made anew: it may be that one which does not work, and not the node. */
const SILENT_MS = 5_000;
/** Blocks that wait for one node's answer. They lie in the log anyway; this bounds what is needed to remember that they wait. */
const MAX_WAITING_BYTES = 32 * 2 ** 20;
const MAX_WAITING = 16_384;
const MAX_PEERS = 256;

export interface PeersOptions {
  /** 32 hexadecimal digits. */
  readonly migration: string;
  readonly security: Security;
  /** What the source said of the migration, for nodes that it does not speak to. */
  readonly registration: () => Registration | null;
  /** The lease to renew at the others; null: there is nobody connected who would. */
  readonly renew: () => number | null;
  /** A node is missing, or is back. */
  readonly onChange: () => void;
}

/** The other holders of one migration's blocks. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #byId = new Map<string, Peer>();

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  [Symbol.iterator](): IterableIterator<Peer> {
    return this.#byId.values();
  }

  /** @throws {AbdmError} NO_ROOM if there are too many. */
  get(node: NodeRef): Peer {
    let peer = this.#byId.get(node.id);
    if (peer === undefined) {
      if (this.#byId.size >= MAX_PEERS) throw new AbdmError('NO_ROOM', `a migration has at most ${MAX_PEERS} nodes`);
      peer = new Peer(node, this.#options);
      this.#byId.set(node.id, peer);
    }
    return peer;
  }

  /** One that is known already. */
  find(id: string): Peer | undefined {
    return this.#byId.get(id);
  }

  /** Tells those that can be told what the source said. */
  register(): void {
    for (const peer of this) peer.register();
  }

  /** Ends all connections; with `drop`, the others are told first to forget the migration too. */
  close(drop: boolean): void {
    for (const peer of this) void peer.close(drop);
  }
}

/** One of them. */
export class Peer implements NodeRef {
  readonly address: string;
  readonly id: string;
  readonly #options: PeersOptions;
  #node: MamNode | null = null;
  #connecting: Promise<MamNode> | null = null;
  /** It answers; or nobody has asked yet. */
  #answers = true;
  #missing = false;
  #dead = false;
  readonly #closed = new AbortController();
  #watching = false;
  readonly #forwards = new Map<number, { chain: Chain; result: Promise<PutResult> }>();

  constructor({ address, id }: NodeRef, options: PeersOptions) {
    this.address = address;
    this.id = id;
    this.#options = options;
  }

  /** It has been silent for 3 s, or out of reach, or is dead: what it holds is not counted on. */
  get missing(): boolean {
    return this.#missing;
  }

  /** It will never come back: nobody is there, or another node. */
  get dead(): boolean {
    return this.#dead;
  }

  /** Room for blocks as it last said; unknown, and null, before it is connected. */
  get freeBytes(): number | null {
    return this.#node?.freeBytes ?? null;
  }

  /**
   * Gives it a block that lies in the log, down a chain. Never throws: says at which node it failed, at once if this one does not answer.
   * @param done called once, when the block's memory is not needed any more.
   */
  forward(id: number, block: Uint8Array, chain: Chain, done: () => void): Promise<PutResult> {
    const earlier = this.#forwards.get(id);
    const refusal = this.#refusal(earlier !== undefined && earlier.chain !== chain, block.byteLength);
    if (earlier?.chain === chain || refusal !== null) {
      done();
      return earlier?.chain === chain ? earlier.result : Promise.resolve(this.#refused('PEER_UNREACHABLE', refusal!));
    }
    const result = this.#put(id, block, chain, done).finally(() => this.#forwards.delete(id));
    this.#forwards.set(id, { chain, result });
    return result;
  }

  register(): void {
    const registration = this.#options.registration();
    if (registration !== null) this.#node?.register(registration).catch(() => {});
  }

  /** Finds out, until `close`, whether it is there. */
  watch(): void {
    if (this.#watching) return;
    this.#watching = true;
    void this.#watch().catch(() => {});
  }

  /** Ends the connection, after it was told to forget the migration if so asked. */
  async close(drop: boolean): Promise<void> {
    this.#closed.abort();
    await this.#connecting?.catch(() => {});
    if (drop && !this.#dead) await this.#node?.drop(MISSING_MS).catch(() => {});
    this.#node?.end();
  }

  async #watch(): Promise<void> {
    const { signal } = this.#closed;
    while (!signal.aborted && !this.#dead) {
      await this.#ask();
      await sleep(PING_EVERY_MS, undefined, { signal, ref: false });
    }
  }

  // One question: the answer, or that there is none, changes what we think of it.
  async #ask(): Promise<void> {
    try {
      const node = await this.#connected(MISSING_MS);
      const leaseMs = this.#options.renew();
      // Both, for they may go over two connections.
      const leased = leaseMs === null ? null : node.lease(leaseMs, MISSING_MS);
      const [answers] = await Promise.all([node.ping(MISSING_MS), leased]);
      this.#judge(answers, node.gone?.surely ?? false);
    } catch (error) {
      this.#judge(false, isSurelyGone(error));
    }
  }

  async #put(id: number, block: Uint8Array, chain: Chain, done: () => void): Promise<PutResult> {
    const behind = chain.nodes.length - 1 - chain.position;
    const deadlineMs = FORWARD_MS + FORWARD_MORE_MS * (1 - 1 / behind);
    const by = performance.now() + deadlineMs;
    let node: MamNode;
    try {
      node = await this.#connected(deadlineMs);
    } catch (cause) {
      done();
      this.#judge(false, isSurelyGone(cause));
      return this.#refused(...describe(cause));
    }
    try {
      const left = Math.max(1, by - performance.now());
      return await node.put(id, block, chain.nodes, { deadlineMs: left, onFree: done });
    } catch (cause) {
      // It is late: whoever comes next does not wait for it, until it answers again. Only who is silent for longer is missing.
      this.#answers = false;
      if (node.gone) this.#judge(false, node.gone.surely);
      return this.#refused(...describe(cause));
    }
  }

  #connected(timeoutMs: number): Promise<MamNode> {
    if (this.#closed.signal.aborted) return Promise.reject(new AbdmError('CANCELLED', 'the migration is over here'));
    if (this.#node !== null && this.#node.gone === null) return Promise.resolve(this.#node);
    const { migration, security } = this.#options;
    const onState = ({ gone }: FrameKeeper) => {
      if (gone) this.#judge(false, gone.surely);
    };
    const role = 'intermediate';
    const options = { migration, security, role, id: this.id, timeoutMs, answerMs: SILENT_MS, onState } as const;
    this.#connecting ??= MamNode.connect(this.address, options)
      .then((node) => {
        this.#node = node;
        this.register();
        return node;
      })
      .finally(() => {
        this.#connecting = null;
      });
    return this.#connecting;
  }

  #judge(answers: boolean, surely = false): void {
    if (this.#closed.signal.aborted || this.#dead) return;
    const before = this.#missing;
    this.#answers = answers;
    this.#missing = !answers;
    this.#dead = surely;
    if (this.#missing !== before || this.#dead) this.#options.onChange();
  }

  #refusal(otherChain: boolean, bytes: number): string | null {
    if (this.#dead) return 'is gone';
    if (!this.#answers) return 'does not answer';
    if (otherChain) return 'is being given this block along another chain';
    const waitingBytes = this.#node?.outstandingBytes ?? 0;
    if (this.#forwards.size >= MAX_WAITING || waitingBytes + bytes > MAX_WAITING_BYTES)
      return `has ${this.#forwards.size} blocks to answer for`;
    return null;
  }

  #refused(code: string, why: string): PutResult {
    return { stored: false, code, message: `${this.address} ${why}`, node: this.address };
  }
}

function describe(cause: unknown): [code: string, why: string] {
  const { code, message } = asAbdmError(cause);
  return [code, `did not take it: ${message}`];
}
