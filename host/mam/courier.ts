// Brings blocks to the nodes: each to R of them, along a chain, whatever the nodes do meanwhile. Knows nothing of what is in a block.
//
//   waiting ---- a chain has room ----> under way ---- STORED by all of it ----> delivered
//      ^                                    |
//      |   refused, silent, or gone         |  3 s, or at the end far longer than the others take:
//      +------------------------------------+  under way along another chain too, and the first that answers counts
//
// A block's bytes are given back when it is delivered and no socket takes from them any more.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { type Mam, PATIENCE_MS } from './mam.js';
import type { Member } from './member.js';
import type { Block } from './seal.js';

/** A put that is not answered for so long: its chain is suspect, and the block goes along another one. */
const SILENT_MS = 3_000;
/** A node that another one does not reach: that one looks again once a second, and refuses everything until then. */
const UNREACHED_MS = 1_000;
/** So often a block is refused, for other reasons than want of room, before the migration is given up. */
const MAX_REFUSALS = 8;
/** At the end, a block is late when it has taken so many times as long as most have lately, and more than this. */
const LATE_FACTOR = 3;
const LATE_MS = 20;
const LOOK_MS = 20;
/** So many of the last acknowledgements say how long one takes. */
const RECENT = 64;

/** Who has a block. */
export type Chain = readonly Member[];

interface Parcel {
  readonly block: Block;
  readonly key: number;
  readonly forDestination: boolean;
  readonly resolve: (chain: Chain) => void;
  /** Under way; also those whose answer is not waited for any more, until their sockets are done with the bytes. */
  attempts: number;
  /** When the youngest attempt began. */
  startedAt: number;
  chain: Chain;
  delivered: boolean;
  refusals: number;
  /** Who has failed with it: others first. */
  readonly avoid: Set<Member>;
}

export interface CourierOptions {
  readonly mam: Mam;
  /** Blocks can be delivered no more: NO_ROOM, or a block that all nodes refuse. */
  readonly onError: (error: AbdmError) => void;
}

export class Courier {
  /** Times that a block was sent once more. */
  resent = 0;
  /**
   * What takes far longer than most goes along another chain too, at once: for the end, when only the last few are under way and everybody waits for
   * them.
   */
  hurry = false;
  readonly #mam: Mam;
  readonly #onError: (error: AbdmError) => void;
  #waiting: Parcel[] = [];
  readonly #underWay = new Set<Parcel>();
  /** Since when no chain was found for a block, although none is busy. */
  #stuck: NodeJS.Timeout | undefined;
  /** How long the last acknowledgements took, in milliseconds. */
  readonly #recent: number[] = [];
  #acknowledged = 0;
  readonly #looking: NodeJS.Timeout;
  #stopped = false;

  constructor({ mam, onError }: CourierOptions) {
    this.#mam = mam;
    this.#onError = onError;
    this.#looking = setInterval(() => this.#lookForLate(), LOOK_MS);
  }

  /** Blocks that are not delivered yet. */
  get outstanding(): number {
    return this.#waiting.filter(({ delivered }) => !delivered).length + this.#underWay.size;
  }

  /**
   * Resolves when as many nodes have the block as there are to be, or the destination alone has it; then, or later, it is released.
   * @param key where it belongs: placement is by it.
   * @param forDestination whether the destination may have it.
   */
  send(block: Block, key: number, forDestination: boolean): Promise<Chain> {
    return new Promise((resolve) => {
      this.#waiting.push({
        block,
        key,
        forDestination,
        resolve,
        attempts: 0,
        startedAt: 0,
        chain: [],
        delivered: false,
        refusals: 0,
        avoid: new Set(),
      });
      this.pump();
    });
  }

  /** Sends on what waits, as far as windows allow. Called by itself whenever a block is settled; call it when nodes have come or gone. */
  pump(): void {
    if (this.#stopped) return;
    let blocked = false;
    const waiting: Parcel[] = [];
    let stuck = false;
    for (const parcel of this.#waiting) {
      if (parcel.delivered) continue;
      // Where the first has to wait, the others have to: only one that avoids somebody may fare otherwise.
      const chain = blocked && parcel.avoid.size === 0 ? 'busy' : this.#choose(parcel);
      if (chain === 'busy') blocked = true;
      if (chain === 'none') stuck = true;
      if (typeof chain === 'string') waiting.push(parcel);
      else void this.#attempt(parcel, chain);
    }
    this.#waiting = waiting;
    if (stuck) this.#stuck ??= setTimeout(() => this.#giveUp(), PATIENCE_MS);
    else this.#unstick();
  }

  /** Nothing more is sent, and nothing resolves any more. */
  stop(): void {
    this.#stopped = true;
    this.#waiting = [];
    this.#unstick();
    clearInterval(this.#looking);
  }

  #choose({ key, block, forDestination, avoid }: Parcel): Chain | 'busy' | 'none' {
    const bytes = block.bytes.byteLength;
    const { destination, replicas } = this.#mam;
    if (forDestination && destination && !avoid.has(destination)) {
      const { window } = destination;
      if (destination.takes(bytes) && window.hasRoom(bytes) && !(window.isFull && replicas > 0)) return [destination];
      // Without nodes there is nobody else.
      if (replicas === 0) return destination.up ? 'busy' : 'none';
    }
    let chain = this.#mam.choose(key, bytes, avoid);
    if (chain === 'none' && avoid.size > 0) {
      avoid.clear();
      chain = this.#mam.choose(key, bytes, avoid);
    }
    // A destination that takes frames will take this one, sooner or later.
    return chain === 'none' && forDestination && destination?.up ? 'busy' : chain;
  }

  #lookForLate(): void {
    if (this.#underWay.size === 0) return;
    const recent = this.hurry ? [...this.#recent].sort((a, b) => a - b) : [];
    const late = this.hurry ? Math.max(LATE_MS, LATE_FACTOR * (recent[recent.length >> 1] ?? 0)) : SILENT_MS;
    const now = performance.now();
    for (const parcel of this.#underWay) {
      if (parcel.attempts === 1 && now - parcel.startedAt > Math.min(late, SILENT_MS)) this.#sendToo(parcel);
    }
  }

  /** Along another chain too, if there is one with room at once. */
  #sendToo(parcel: Parcel): void {
    const [first] = parcel.chain;
    const slowest = parcel.chain.reduce((a, b) => (b.window.drainMs > a.window.drainMs ? b : a));
    const chain = this.#mam.choose(parcel.key, parcel.block.bytes.byteLength, new Set([slowest]));
    if (this.#mam.replicas === 0 || typeof chain === 'string') return;
    // The first of the chain has not answered to this block yet, and is asked only once at a time.
    const [head, ...behind] = chain;
    void this.#attempt(parcel, head === first ? [...behind, head!] : chain);
  }

  async #attempt(parcel: Parcel, chain: Chain): Promise<void> {
    const { block } = parcel;
    const bytes = block.bytes.byteLength;
    const first = chain[0]!;
    const startedAt = performance.now();
    if (parcel.startedAt > 0) this.resent++;
    Object.assign(parcel, { startedAt, chain });
    parcel.attempts++;
    this.#underWay.add(parcel);
    for (const member of chain) member.window.sent(bytes);
    let took: number | null = null;
    try {
      const result = await first.node.put(block.id, block.bytes, chain.length > 1 ? chain : [], {
        // A destination takes as long as it likes.
        ...(first !== this.#mam.destination && { deadlineMs: SILENT_MS }),
        onFree: () => this.#free(parcel),
      });
      if (result.stored) {
        took = performance.now() - startedAt;
        this.#onStored(parcel, chain, result.freeBytes, took);
      } else this.#onRefused(parcel, chain, result);
    } catch (error) {
      // Gone, or silent. Without nodes there is nobody else to turn to.
      if (this.#mam.replicas === 0) this.#fail(asAbdmError(error));
      if (first !== this.#mam.destination) first.suspect();
      parcel.avoid.add(first);
    }
    for (const member of chain) member.window.settled(bytes, took);
    if (!parcel.delivered && parcel.chain === chain && !this.#stopped) {
      this.#underWay.delete(parcel);
      this.#waiting.unshift(parcel);
    }
    this.pump();
  }

  #onStored(parcel: Parcel, chain: Chain, freeBytes: readonly number[], ms: number): void {
    this.#recent[this.#acknowledged++ % RECENT] = ms;
    for (const [i, member] of chain.entries()) {
      member.tell(freeBytes[i] ?? member.freeBytes);
      member.stored.frames++;
      member.stored.bytes += parcel.block.bytes.byteLength;
    }
    if (parcel.delivered) return;
    parcel.delivered = true;
    this.#underWay.delete(parcel);
    if (!this.#stopped) parcel.resolve(chain);
  }

  #onRefused(parcel: Parcel, chain: Chain, { code, message, node }: { code: string; message: string; node: string }) {
    const culprit = chain.find(({ address }) => address === node) ?? chain[0]!;
    if (code === 'NO_ROOM') return culprit.full();
    parcel.avoid.add(culprit);
    if (culprit !== chain[0]) culprit.suspect(UNREACHED_MS);
    if (++parcel.refusals < MAX_REFUSALS) return;
    this.#fail(new AbdmError('PEER_ABORTED', `${node} refused block ${parcel.block.id}: ${message} (${code})`));
  }

  #free(parcel: Parcel): void {
    parcel.attempts--;
    // The answer may be told only after this.
    queueMicrotask(() => {
      if (parcel.delivered && parcel.attempts === 0) parcel.block.release();
      this.pump();
    });
  }

  #unstick(): void {
    clearTimeout(this.#stuck);
    this.#stuck = undefined;
  }

  #giveUp(): void {
    this.#stuck = undefined;
    const bytes = Math.max(...this.#waiting.map(({ block }) => block.bytes.byteLength));
    const { replicas } = this.#mam;
    const nodes = replicas === 1 ? 'no node has' : `fewer than ${replicas} nodes have`;
    this.#fail(new AbdmError('NO_ROOM', `${nodes} room for a frame of ${bytes} bytes: ${this.#mam.describe()}`));
  }

  #fail(error: AbdmError): void {
    if (this.#stopped) return;
    this.stop();
    this.#onError(error);
  }
}
