// The nodes that a destination fetches from, each by its id: at the same address there may be another one after a restart, which has nothing.
//
//        away ----> up <----> silent        asked, and said nothing at all for three seconds; up again when it says something
//         |  ^      |           |
//         |  +------+-----------+           its connection is lost: tried again and again
//         v         v           v
//        gone <-----+-----------+           nobody is there any more, or somebody else: what it had is gone with it
//
// Where guests run while they are merged there are two connections to each: what somebody waits for comes over the second one, and does not stand behind
// what is fetched in bulk. Only the first says how the node is.

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Security } from '../wire/security.js';
import type { Claimed } from './bodies.js';
import type { Voter } from './claim.js';
import { Connection } from './connection.js';
import { dial } from './dial.js';
import type { FrameKeeper, NodeRef } from './keeper.js';

/** So long nothing at all came from a node that was asked. */
const SILENT_MS = 3_000;
const RETRY_MS = 500;
/** How long a node may take to say whether it grants a claim. */
const CLAIM_MS = 5_000;
/** How long a node may take to forget a migration when it is over. */
const DROP_MS = 2_000;
/** Nodes that a destination deals with, at most: those that the source named, and others that are asked when these have failed. */
const MAX_HOLDERS = 1_024;

export interface HoldersOptions {
  migration: string;
  security: Security;
  /** There are guests: a second connection to each holder is kept ready for what they wait for. */
  urgent?: boolean;
  /** A holder is up again, silent, away or gone. */
  onChange(holder: Holder): void;
}

/** A node that may have frames. */
export class Holder implements NodeRef, Voter {
  readonly address: string;
  readonly id: string;
  state: 'away' | 'up' | 'silent' | 'gone' = 'away';
  /** What came from it. */
  frames = 0;
  bytes = 0;
  /** Why it is not up. */
  why: AbdmError | null = null;
  #ended = false;
  readonly #bulk: Connection;
  readonly #urgent: Connection | null;
  readonly #options: HoldersOptions;

  constructor(ref: NodeRef, options: HoldersOptions) {
    this.address = ref.address;
    this.id = ref.id;
    this.#options = options;
    this.#bulk = new Connection(ref, options, {
      onUp: () => this.#turn('up', null),
      onDown: (error, surely) => this.#onDown(error, surely),
    });
    this.#urgent = options.urgent ? new Connection(ref, options, { onUp() {}, onDown() {} }) : null;
  }

  /** The connection, while there is one. */
  get node(): FrameKeeper | null {
    return this.state === 'up' || this.state === 'silent' ? this.#bulk.node : null;
  }

  /**
   * Fetches a block into `into`; resolves to its length. `urgent`: somebody waits for it.
   * @throws {AbdmError} FRAME_LOST if it does not have it, PEER_UNREACHABLE or PEER_GONE if it does not answer: see `state` then.
   */
  async get(id: number, into: Uint8Array, urgent = false): Promise<number> {
    const node = (urgent ? this.#urgent?.node : null) ?? this.#require();
    try {
      return await node.get(id, into, { deadlineMs: SILENT_MS });
    } catch (cause) {
      const error = asAbdmError(cause);
      if (error.code === 'FRAME_LOST') throw error;
      if (node === this.#bulk.node && !node.gone) this.#suspect(node, error);
      // Whatever else ended the connection: it may be there again.
      throw new AbdmError('PEER_GONE', error.message, { cause });
    }
  }

  /** Calls `each` with all ids of blocks that it has, from `from` on and below `to`, some at a time. @throws {AbdmError} */
  async list(from: number, to: number, each: (ids: readonly number[]) => void): Promise<void> {
    for (let next = from; ; ) {
      const ids = (await this.#require().list(next)).filter((id) => id >= next && id < to);
      if (ids.length === 0) return;
      each(ids);
      next = ids.at(-1)! + 1;
    }
  }

  /** Asks for its vote, as soon as it is connected. @throws {AbdmError} if it does not answer in time. */
  async claim(token: string, by: string, forGood = false): Promise<Claimed> {
    await this.settled();
    return this.#require().claim(token, by, { forGood, deadlineMs: CLAIM_MS });
  }

  /** Gives its vote back. */
  async release(token: string, by: string): Promise<void> {
    await this.node?.release(token, by, CLAIM_MS);
  }

  /** Surely: it will never answer again. */
  get dead(): boolean {
    return this.state === 'gone';
  }

  /** It forgets the migration. */
  async drop(): Promise<void> {
    await this.#require().drop();
  }

  end(): void {
    this.#ended = true;
    this.#bulk.end();
    this.#urgent?.end();
  }

  /** Resolves when it is up or gone, or has not been reached for five seconds. */
  async settled(): Promise<void> {
    const by = performance.now() + CLAIM_MS;
    while (this.state === 'away' && performance.now() < by) await sleep(20);
  }

  #require(): FrameKeeper {
    if (this.node) return this.node;
    throw this.why ?? new AbdmError('PEER_GONE', `${this.address} is not connected`);
  }

  #onDown(error: AbdmError, surely: boolean): void {
    if (surely || this.state !== 'away') this.#turn(surely ? 'gone' : 'away', error);
    else this.why = error;
  }

  /** Is asked whether it is still there until it says so. */
  async #suspect(node: FrameKeeper, why: AbdmError): Promise<void> {
    if (this.state !== 'up') return;
    this.#turn('silent', why);
    while (this.#bulk.node === node && !this.#ended) {
      if (await node.ping(SILENT_MS)) {
        if (this.#bulk.node === node) this.#turn('up', null);
        return;
      }
      // A connection that is being made again answers at once that it does not.
      await sleep(RETRY_MS, undefined, { ref: false });
    }
  }

  #turn(state: Holder['state'], why: AbdmError | null): void {
    if (this.state === 'gone') return;
    this.state = state;
    this.why = why;
    if (!this.#ended) this.#options.onChange(this);
  }
}

/** All of them. */
export class Holders {
  readonly #options: HoldersOptions;
  readonly #byId = new Map<string, Holder>();

  constructor(options: HoldersOptions) {
    this.#options = options;
  }

  [Symbol.iterator](): IterableIterator<Holder> {
    return this.#byId.values();
  }

  /** The holder that this is, connected to as soon as possible. @throws {AbdmError} PROTOCOL if they become too many. */
  of(ref: NodeRef): Holder {
    let holder = this.#byId.get(ref.id);
    if (!holder) {
      if (this.#byId.size >= MAX_HOLDERS) throw new AbdmError('PROTOCOL', `more than ${MAX_HOLDERS} nodes are named`);
      holder = new Holder(ref, this.#options);
      this.#byId.set(ref.id, holder);
    }
    return holder;
  }

  /** The holder that is at this address now, whichever it is. @throws {AbdmError} if it cannot be reached. */
  async at(address: string): Promise<Holder> {
    for (const holder of this) if (holder.address === address && holder.state === 'up') return holder;
    const { migration, security } = this.#options;
    const node = await dial(address, { migration, security, role: 'destination' });
    node.end();
    return this.of({ address, id: node.id });
  }

  /** All that can be reached forget the migration. */
  async drop(): Promise<void> {
    const up = [...this].filter(({ node }) => node);
    const drops = Promise.allSettled(up.map((holder) => holder.drop()));
    await Promise.race([drops, sleep(DROP_MS, undefined, { ref: false })]);
  }

  end(): void {
    for (const holder of this) holder.end();
  }
}
