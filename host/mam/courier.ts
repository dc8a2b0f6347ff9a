// Brings blocks to the nodes: each to R of them, along a chain, whatever the nodes do meanwhile. Knows nothing of what is in a block.
//
//   waiting ---- a chain has room ----> under way ---- STORED by all of it ----> delivered
//      ^                                    |
//      |   refused, silent, or gone         |  3 s, or at the end far longer than the others take:
//      +------------------------------------+  under way along another chain too, and the first that answers counts
//
// From either it may be recalled, since nobody needs it any more; or be lost, if it could go to the destination only and that is gone, refuses it, or holds
// up the end for a quarter of a second. A block's bytes are given back when it is delivered, recalled or lost, and no socket takes from them any more.

import { AbdmError } from '../../bindings/errors.js';
import { type Mam, PATIENCE_MS } from './mam.js';
import type { Member } from './member.js';
import { putAlong } from './put.js';
import type { Block } from './seal.js';
import { Spill } from './spill.js';

/** A put that is not answered for so long: its chain is suspect, and the block goes along another one. */
const SILENT_MS = 3_000;
/** A node that another one does not reach: that one looks again once a second, and refuses everything until then. */
const UNREACHED_MS = 1_000;
/** So often the first of a chain refuses a block, for other reasons than want of room, before the migration is given up. */
const MAX_REFUSALS = 8;
/** And so often, and for so long, because of nodes behind it: connections between nodes may break, and be made again. */
const MAX_UNREACHED_MS = 30_000;
/** At the end, a block is late when it has taken so many times as long as most have lately, and more than this. */
const LATE_FACTOR = 3;
const LATE_MS = 20;
/** What can go nowhere but to the destination is late later: instead of it, nodes get what was not to go to them. */
const ONLY_LATE_MS = 250;
/** Less than this on its way to nodes, or waiting for them, takes next to nothing of the source's link: some milliseconds of a gigabit. */
const DRAINED_BYTES = 512 * 1024;
/** Where nodes get little, no more than this is on its way to them: three short frames, which keep the link busy. */
const LITTLE_BYTES = 192 * 1024;
const LOOK_MS = 20;
/** So many of the last acknowledgements say how long one takes. */
const RECENT = 64;

/**
 * Of blocks that may go nowhere but to the destination so much waits: little, since the exit waits for it, and more than nothing: what refers to what
 * the destination has is small, and gets the room there before what can go to nodes as well.
 */
const MAX_ONLY_BYTES = 128 * 1024;
/**
 * And so much of what is referred to while the destination is tried: enough to see a fast one at work. With 1 MiB a mix left to a destination of half at
 * 1 Gbit/s in 4.0 s instead of 3.5.
 */
const MAX_TRIED_BYTES = 256 * 1024;

/** Who has a block. */
export type Chain = readonly Member[];

/** Whether a block goes straight to the destination: never, while that has room for it, or there and nowhere else. */
export type Straight = 'never' | 'may' | 'only';
/** Who is served first of those that wait: what has but one way to go, and is short of room there for no other reason than what went before it. */
const TURNS: readonly Straight[] = ['only', 'never', 'may'];

/** What becomes of a block while it is on its way. */
export interface Sending {
  /** Default `never`. */
  readonly straight?: Straight;
  /** Whenever it is given to somebody: to the destination, or to a chain of nodes. It may still come to somebody else. */
  readonly onGiven?: (straight: boolean) => void;
  /** It could go to the destination only, and that has not said that it has it; `isDoubtful`: it may have it. */
  readonly onLost?: (isDoubtful: boolean) => void;
}

interface Parcel {
  readonly block: Block;
  readonly key: number;
  straight: Straight;
  readonly onGiven: ((straight: boolean) => void) | undefined;
  readonly onLost: ((isDoubtful: boolean) => void) | undefined;
  readonly resolve: (chain: Chain) => void;
  /** Under way; also those whose answer is not waited for any more, until their sockets are done with the bytes. */
  attempts: number;
  /** When the youngest attempt began. */
  startedAt: number;
  chain: Chain;
  /** It is delivered, recalled or lost. */
  done: boolean;
  released: boolean;
  /** By the first of a chain, for its own reasons. */
  refusals: number;
  /** Because of a node behind it: how often, and since when; infinite before. */
  unreached: number;
  unreachedAt: number;
  /** Who has failed with it: others first. */
  readonly avoid: Set<Member>;
}

export interface CourierOptions {
  readonly mam: Mam;
  /** Blocks can be delivered no more: NO_ROOM, or a block that all nodes refuse. */
  readonly onError: (error: AbdmError) => void;
  /** `isSlow` has changed. */
  readonly onSlow: () => void;
  /** How many bytes are still to be sent, as far as is known. Default: nobody knows. */
  readonly leftBytes?: (() => number) | undefined;
}

export class Courier {
  /** Times that a block was sent once more. */
  resent = 0;
  readonly #mam: Mam;
  readonly #spill = new Spill();
  /** Since it was last looked, something went to nodes only because the destination had no room. */
  #spilled = false;
  readonly #onError: (error: AbdmError) => void;
  readonly #onSlow: () => void;
  readonly #leftBytes: (() => number) | undefined;
  /** Not done, by the block's id. */
  readonly #parcels = new Map<number, Parcel>();
  /** Of these, those that are not under way, each in the line of its kind: where the first has no room, the others do not look. */
  readonly #waiting: Record<Straight, Parcel[]> = { only: [], never: [], may: [] };
  /** Of those that are for nodes only, the first waits for room: small ones of others that would still find some wait too. */
  #nodesAreBusy = false;
  readonly #underWay = new Set<Parcel>();
  /** Since when no chain was found for a block, although none is busy. */
  #stuck: NodeJS.Timeout | undefined;
  /** How long the last acknowledgements took, in milliseconds. */
  readonly #recent: number[] = [];
  #acknowledged = 0;
  readonly #looking: NodeJS.Timeout;
  #hurry = false;
  /** The destination has held up the end: until that is over, it is not sent anything; `never`: whatever it does, as only it has room. */
  #passesBy: boolean | 'never' = false;
  #stopped = false;

  constructor({ mam, onError, onSlow, leftBytes }: CourierOptions) {
    this.#mam = mam;
    this.#onError = onError;
    this.#onSlow = onSlow;
    this.#leftBytes = leftBytes;
    this.#looking = setInterval(() => this.#look(), LOOK_MS);
  }

  /**
   * What takes far longer than most goes along another chain too, at once, and not to the destination if that takes longer still: for the end, when only the
   * last few are under way and everybody waits for them.
   */
  set hurry(on: boolean) {
    this.#hurry = on;
    this.#passesBy = false;
  }

  /** The destination was seen not to keep up with who sends. */
  get isSlow(): boolean {
    return this.#spill.isSlow;
  }

  /** Blocks that are not delivered yet, and not recalled or lost. */
  get outstanding(): number {
    return this.#parcels.size;
  }

  /** A block that may go nowhere but to the destination, of so many bytes, would not wait there for long, if it came now. */
  canGoStraight(bytes: number): boolean {
    if (this.#waitsForDestination) return true;
    return this.#onlyBytes < MAX_ONLY_BYTES && this.#destination?.takes(bytes) === true;
  }

  /**
   * Resolves when as many nodes have the block as there are to be, or the destination alone has it; then, or later, it is released.
   * @param key where it belongs: placement is by it.
   */
  send(block: Block, key: number, { straight = 'never', onGiven, onLost }: Sending = {}): Promise<Chain> {
    return new Promise((resolve) => {
      const parcel: Parcel = {
        block,
        key,
        straight,
        onGiven,
        onLost,
        resolve,
        attempts: 0,
        startedAt: 0,
        chain: [],
        done: false,
        released: false,
        refusals: 0,
        unreached: 0,
        unreachedAt: Number.POSITIVE_INFINITY,
        avoid: new Set(),
      };
      this.#parcels.set(block.id, parcel);
      this.#waiting[straight].push(parcel);
      this.pump();
    });
  }

  /** This block is to be at nodes: from now on it is not given to the destination. One that may go nowhere else is left alone. */
  pin(id: number): void {
    const parcel = this.#parcels.get(id);
    if (parcel?.straight !== 'may') return;
    this.#stopWaiting(parcel);
    parcel.straight = 'never';
    if (!this.#underWay.has(parcel)) this.#waiting.never.push(parcel);
    this.pump();
  }

  /**
   * A block that waits for the destination, with nothing going to nodes instead, or little while it is tried, may go nowhere else from now on. False: it
   * does not wait, or goes elsewhere. Were it to go to nodes whenever it is referred to, they would get nearly all, however fast the destination is: where
   * memory holds much twice, most that waits is referred to before long.
   */
  commit(id: number): boolean {
    const parcel = this.#parcels.get(id);
    if (parcel?.straight !== 'may' || this.#underWay.has(parcel)) return false;
    if (!this.#waitsForDestination && !(this.#isTried && this.#onlyBytes < MAX_TRIED_BYTES)) return false;
    this.#stopWaiting(parcel);
    parcel.straight = 'only';
    this.#waiting.only.push(parcel);
    return true;
  }

  /** Nobody needs this block any more: it is not sent, or not once more. It is released as soon as no socket takes from it. */
  recall(id: number): void {
    const parcel = this.#parcels.get(id);
    if (!parcel) return;
    this.#stopWaiting(parcel);
    this.#finish(parcel);
  }

  /** There is no destination any more: recalls what could go nowhere else, and returns the ids of that. */
  recallStraight(): number[] {
    const only = [...this.#parcels.values()].filter(({ straight }) => straight === 'only');
    const ids = only.map(({ block }) => block.id);
    for (const id of ids) this.recall(id);
    return ids;
  }

  /** Sends on what waits, as far as windows allow. Called by itself whenever a block is settled; call it when nodes have come or gone. */
  pump(): void {
    if (this.#stopped) return;
    let stuck = false;
    this.#nodesAreBusy = false;
    for (const turn of TURNS) {
      const result = this.#pumpLine(this.#waiting[turn]);
      if (result === 'stuck') stuck = true;
      if (result === 'busy' && turn === 'never') this.#nodesAreBusy = true;
    }
    if (stuck) this.#stuck ??= setTimeout(() => this.#giveUp(), PATIENCE_MS);
    else this.#unstick();
  }

  /** How it is with those that are left. */
  #pumpLine(line: Parcel[]): 'stuck' | 'busy' | null {
    let blocked = false;
    let stuck = false;
    for (let i = 0; i < line.length; ) {
      const parcel = line[i]!;
      // Where the first has to wait, the others have to: only one that avoids somebody may fare otherwise. Those stand before all that are new.
      if (blocked && parcel.startedAt === 0) break;
      const chain = blocked && !this.#avoids(parcel) ? 'busy' : this.#choose(parcel);
      if (chain === 'busy') blocked = true;
      if (chain === 'none') stuck = true;
      if (chain === 'lost') this.#lose(parcel);
      else if (typeof chain === 'string') i++;
      else {
        line.splice(i, 1);
        void this.#attempt(parcel, chain);
      }
    }
    return stuck ? 'stuck' : blocked ? 'busy' : null;
  }

  /** Nothing more is sent, and nothing resolves any more. */
  stop(): void {
    this.#stopped = true;
    for (const turn of TURNS) this.#waiting[turn].length = 0;
    this.#unstick();
    clearInterval(this.#looking);
  }

  /** Whom it avoids might have room. */
  #avoids({ avoid }: Parcel): boolean {
    for (const member of avoid) if (member.up) return true;
    return false;
  }

  /** Null also while it is passed by. */
  get #destination(): Member | null {
    return this.#passesBy === true ? null : this.#mam.destination;
  }

  /** The destination has room for so many bytes. */
  #hasRoom(bytes: number): boolean {
    const destination = this.#destination;
    if (!destination?.takes(bytes)) return false;
    const { window } = destination;
    return window.hasRoom(bytes) && !(window.isFull && this.#mam.replicas > 0);
  }

  /** Nothing goes to nodes that can go there. */
  get #waitsForDestination(): boolean {
    return this.#spill.nodesGet === 'nothing' && this.#destination?.up === true;
  }

  /** What can go nowhere but there, and waits. */
  get #onlyBytes(): number {
    return bytesOf(this.#waiting.only);
  }

  /** Nodes get little, so that the destination may show how much it takes. */
  get #isTried(): boolean {
    return this.#spill.nodesGet === 'little' && this.#destination?.up === true;
  }

  /** They have as much on its way to them as they are to get for now. */
  get #nodesHaveEnough(): boolean {
    return this.#isTried && this.#toNodesBytes >= LITTLE_BYTES * this.#mam.replicas;
  }

  /** Each copy of a block counts. */
  get #toNodesBytes(): number {
    return this.#mam.members.reduce((sum, { window }) => sum + window.outstandingBytes, 0);
  }

  #choose({ key, block, straight, avoid, unreached }: Parcel): Chain | 'busy' | 'none' | 'lost' {
    const bytes = block.bytes.byteLength;
    const { replicas } = this.#mam;
    const destination = this.#destination;
    if (straight === 'only' && (destination?.gone ?? true)) return 'lost';
    const mayGo = straight === 'only' || (straight === 'may' && destination !== null && !avoid.has(destination));
    if (mayGo && this.#hasRoom(bytes)) return [destination!];
    // Without nodes there is nobody else.
    if (mayGo && replicas === 0) return destination?.up ? 'busy' : 'none';
    if (mayGo && this.#waitsForDestination) return 'busy';
    // What is for nodes only has its turn when the trial is over; at the end everybody waits for it.
    if (this.#nodesHaveEnough && !(straight === 'never' && this.#hurry)) return 'busy';
    if (straight === 'only' || (straight === 'may' && this.#nodesAreBusy)) return 'busy';
    if (mayGo) this.#spilled = true;
    let chain = this.#mam.choose(key, bytes, avoid);
    if (chain === 'none' && avoid.size > 0) {
      avoid.clear();
      chain = this.#mam.choose(key, bytes, avoid);
    }
    // That one node does not reach the others may be its own fault: they may reach it.
    if (typeof chain !== 'string' && unreached % 2 === 1) chain.reverse();
    if (chain !== 'none' || straight !== 'may' || !this.#mam.destination?.up) return chain;
    // A destination that takes frames will take this one, sooner or later.
    if (this.#passesBy) this.#passesBy = 'never';
    return 'busy';
  }

  /** Now and then: who had no room may have some again, and what is late goes along another chain too. */
  #look(): void {
    const { only, may } = this.#waiting;
    const waits = this.#spilled || only.length + may.length > 0;
    const wasSlow = this.isSlow;
    const isDrained = this.#toNodesBytes + bytesOf(this.#waiting.never) < DRAINED_BYTES;
    const changed = this.#mam.replicas > 0 && this.#spill.look(waits, isDrained, this.#leftBytes?.());
    this.#spilled = false;
    if (this.isSlow !== wasSlow) this.#onSlow();
    if (changed || this.#parcels.size > this.#underWay.size) this.pump();
    if (this.#underWay.size === 0) return;
    const recent = this.#hurry ? [...this.#recent].sort((a, b) => a - b) : [];
    const late = this.#hurry ? Math.max(LATE_MS, LATE_FACTOR * (recent[recent.length >> 1] ?? 0)) : SILENT_MS;
    const now = performance.now();
    for (const parcel of this.#underWay) {
      const ms = now - parcel.startedAt;
      if (parcel.straight === 'only') {
        if (this.#hurry && !this.#passesBy && ms > ONLY_LATE_MS) return this.#passBy();
      } else if (parcel.attempts === 1 && ms > Math.min(late, SILENT_MS)) this.#sendToo(parcel);
    }
  }

  /** The end does not wait for the destination any longer. */
  #passBy(): void {
    this.#passesBy = true;
    for (const parcel of [...this.#parcels.values()]) if (parcel.straight === 'only') this.#lose(parcel);
    this.pump();
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
    parcel.onGiven?.(first === this.#mam.destination);
    let took: number | null = null;
    let isRefused = false;
    try {
      const result = await putAlong(chain, block, {
        // A destination takes as long as it likes.
        ...(first !== this.#mam.destination && { deadlineMs: SILENT_MS }),
        onFree: () => this.#free(parcel),
        fills: first === this.#mam.destination && this.#mam.replicas > 0 && this.#spill.fills,
      });
      if (result.stored) {
        took = performance.now() - startedAt;
        this.#onStored(parcel, chain, result.freeBytes, took);
      } else {
        isRefused = true;
        this.#onRefused(parcel, chain, result);
      }
    } catch {
      // Gone, or silent. A destination may be back soon; whether it is waited for is not for us to say.
      if (first !== this.#mam.destination) first.suspect();
      parcel.avoid.add(first);
    }
    for (const member of chain) member.window.settled(bytes, took);
    if (!parcel.done && parcel.chain === chain && !this.#stopped) {
      if (parcel.straight === 'only') this.#lose(parcel, !isRefused);
      else {
        this.#underWay.delete(parcel);
        this.#waiting[parcel.straight].unshift(parcel);
      }
    }
    this.pump();
  }

  #onStored(parcel: Parcel, chain: Chain, freeBytes: readonly number[], ms: number): void {
    this.#recent[this.#acknowledged++ % RECENT] = ms;
    this.#spill.stored(parcel.block.bytes.byteLength, chain[0] === this.#mam.destination);
    for (const [i, member] of chain.entries()) {
      member.tell(freeBytes[i] ?? member.freeBytes);
      member.stored.frames++;
      member.stored.bytes += parcel.block.bytes.byteLength;
    }
    if (parcel.done) return;
    this.#finish(parcel);
    if (!this.#stopped) parcel.resolve(chain);
  }

  #stopWaiting(parcel: Parcel): void {
    const line = this.#waiting[parcel.straight];
    const at = line.indexOf(parcel);
    if (at >= 0) line.splice(at, 1);
  }

  #lose(parcel: Parcel, isDoubtful = parcel.startedAt > 0): void {
    this.recall(parcel.block.id);
    parcel.onLost?.(isDoubtful);
  }

  /** Nobody waits for it any more. */
  #finish(parcel: Parcel): void {
    parcel.done = true;
    this.#underWay.delete(parcel);
    this.#parcels.delete(parcel.block.id);
    this.#release(parcel);
  }

  #release(parcel: Parcel): void {
    if (!parcel.done || parcel.attempts > 0 || parcel.released) return;
    parcel.released = true;
    parcel.block.release();
  }

  #onRefused(parcel: Parcel, chain: Chain, { code, message, node }: { code: string; message: string; node: string }) {
    const culprit = chain.find(({ address }) => address === node) ?? chain[0]!;
    if (code === 'NO_ROOM') return culprit.full();
    parcel.avoid.add(culprit);
    if (culprit === chain[0]) {
      if (++parcel.refusals < MAX_REFUSALS) return;
    } else {
      culprit.suspect(UNREACHED_MS);
      const now = performance.now();
      parcel.unreachedAt = Math.min(parcel.unreachedAt, now);
      if (++parcel.unreached < MAX_REFUSALS || now - parcel.unreachedAt < MAX_UNREACHED_MS) return;
    }
    this.#fail(new AbdmError('PEER_ABORTED', `${node} refused block ${parcel.block.id}: ${message} (${code})`));
  }

  #free(parcel: Parcel): void {
    parcel.attempts--;
    // The answer may be told only after this.
    queueMicrotask(() => {
      this.#release(parcel);
      this.pump();
    });
  }

  #unstick(): void {
    clearTimeout(this.#stuck);
    this.#stuck = undefined;
  }

  #giveUp(): void {
    this.#stuck = undefined;
    const waiting = TURNS.flatMap((turn) => this.#waiting[turn]);
    const bytes = Math.max(...waiting.map(({ block }) => block.bytes.byteLength));
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

function bytesOf(parcels: readonly Parcel[]): number {
  return parcels.reduce((sum, { block }) => sum + block.bytes.byteLength, 0);
}
