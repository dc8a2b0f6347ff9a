// The MAM as who puts frames there sees it: the nodes that are there now, and which of them keep the next block.
//
// Placement is a function of the offset and of the nodes that are there: weighted rendezvous hashing ranks them for each extent of 64 pages, by
// their free memory. The best R that are up, have room and whose windows are open make the chain; the others are passed over for this once. So it is
// decided anew for each block, a node that is full, slow or gone holds nobody up, and one that joins is used at once.

import { AbdmError } from '../../bindings/errors.js';
import { Placement } from '../../bindings/placement.js';
import { storeScheme } from '../wire/address.js';
import type { NodeIndex } from './index.js';
import type { Member } from './member.js';
import { type Dial, Place, type PlaceEvents } from './place.js';
import { type WindowLimits, windowLimits } from './window.js';

/** How long enough nodes are waited for. */
export const PATIENCE_MS = 10_000;
/** When there are enough, the others that are known get so long to answer. */
const GATHER_MS = 1_000;
/** Weights follow free memory at this pace. */
const WEIGH_MS = 250;
/** How long a node may take to forget a migration. */
const DROP_MS = 1_500;

export interface MamOptions {
  /** Null: there are no nodes but the destination. */
  readonly index: NodeIndex | null;
  /** How many nodes keep each block. */
  readonly replicas: number;
  /** Connects to a node. */
  readonly dial: Dial;
  /** Of all windows to begin with. Default: those for whole frames. */
  readonly limits?: WindowLimits;
  /** A node answers that had not been there. */
  readonly onJoin: (member: Member) => void;
  /** A node is gone, and what it kept with it. */
  readonly onGone: (member: Member) => void;
  /** Other members may be up than before. */
  readonly onChange: () => void;
}

/** The nodes that keep the blocks of one migration. */
export class Mam {
  readonly replicas: number;
  readonly #options: MamOptions;
  readonly #placement: Placement;
  readonly #places = new Map<string, Place>();
  readonly #limits: WindowLimits;
  /** Of the destination's window, whoever is there. */
  readonly #destinationLimits: WindowLimits;
  #destination: Place | null = null;
  /** A second connection to the destination, for frames that somebody waits for there. */
  #urgent: Place | null = null;
  /** Destinations that were removed. */
  readonly #past: Place[] = [];
  /** Who is up, in the order of the placement's indices. */
  #up: Member[] = [];
  #weighedAt = Number.NEGATIVE_INFINITY;
  readonly #unsubscribe: () => void;
  #waiting: (() => void)[] = [];
  #stopped = false;

  private constructor(options: MamOptions, placement: Placement) {
    this.#options = options;
    this.#placement = placement;
    this.replicas = options.replicas;
    this.#limits = options.limits ?? windowLimits();
    this.#destinationLimits = { ...this.#limits };
    this.#unsubscribe = options.index?.onChange(() => this.#follow()) ?? (() => {});
    this.#follow();
  }

  /** Begins to connect to every node in the index, and to those that join it. */
  static async open(options: MamOptions): Promise<Mam> {
    return new Mam(options, await Placement.create());
  }

  /** Frames may go to the destination too from now on; `dial` connects to it, and `urgent` for those that somebody waits for there. */
  addDestination(address: string, dial: Dial, urgent: Dial | null): void {
    const events = { onJoin: () => {}, onGone: () => {}, onChange: () => this.#changed() };
    this.#destination ??= new Place(address, dial, this.#destinationLimits, events);
    if (urgent) this.#urgent ??= new Place(address, urgent, this.#destinationLimits, events);
  }

  /** No more frames to the destination. */
  removeDestination(): void {
    for (const place of [this.#destination, this.#urgent]) {
      place?.end();
      if (place) this.#past.push(place);
    }
    this.#destination = null;
    this.#urgent = null;
  }

  /** How far ahead of the destination bytes may be outstanding, and how many always. */
  setAhead(ahead: { ms: number; minBytes: number }): void {
    this.#destinationLimits.aheadMs = ahead.ms;
    this.#destinationLimits.minBytes = ahead.minBytes;
    this.#options.onChange();
  }

  /** Resolves when there are enough nodes. @throws {AbdmError} NO_ROOM that says how each stands; USAGE if one is not fit to be used; what aborts `signal`. */
  async ready(signal: AbortSignal): Promise<void> {
    const { replicas } = this;
    const startedAt = performance.now();
    let enoughAt: number | null = null;
    for (;;) {
      signal.throwIfAborted();
      const now = performance.now();
      const places = [...this.#places.values()];
      const refused = places.find(({ address, trouble }) => {
        const isLogin = trouble?.code === 'UNAUTHENTICATED' && storeScheme(address) !== null;
        return isLogin || trouble?.code === 'USAGE';
      });
      if (refused) throw refused.trouble!;
      const up = places.flatMap(({ up, member }) => (up ? [member!.node] : []));
      const holders = (chains: boolean) =>
        up.reduce((sum, node) => sum + (node.chains === chains ? node.copies : 0), 0);
      const enough = Math.max(holders(true), holders(false)) >= replicas;
      enoughAt = enough ? (enoughAt ?? now) : null;
      if (enough && places.every(({ up, trouble }) => up || trouble)) return;
      if (enoughAt !== null && now - enoughAt > GATHER_MS) return;
      if (!enough && now - startedAt > PATIENCE_MS) {
        const text = `${replicas} nodes are needed, and fewer could be reached within ${PATIENCE_MS} ms`;
        throw new AbdmError('NO_ROOM', `${text}: ${this.describe()}`);
      }
      await this.#change();
    }
  }

  /**
   * The nodes that take a block of `bytes` bytes whose place is `key`, in the order of the chain. `busy`: there are enough, but their windows are
   * full. `none`: there are not enough with room. Stores that make all copies by themselves stand alone.
   */
  choose(key: number, bytes: number, avoid: ReadonlySet<Member>): Member[] | 'busy' | 'none' {
    const { replicas } = this;
    // A node passes nothing on to a store: a chain is of one kind.
    const nodes = { chain: [] as Member[], holders: 0, busy: 0 };
    const stores = { chain: [] as Member[], holders: 0, busy: 0 };
    for (const member of this.best(key)) {
      if (avoid.has(member) || !member.takes(bytes)) continue;
      const { window, node } = member;
      const kind = node.chains ? nodes : stores;
      if (!window.hasRoom(bytes) || (window.isFull && this.#up.length > replicas)) {
        kind.busy += node.copies;
        continue;
      }
      if (node.copies >= replicas) return [member];
      kind.chain.push(member);
      kind.holders += node.copies;
      if (kind.holders >= replicas) return kind.chain;
    }
    return [nodes, stores].some(({ holders, busy }) => holders + busy >= replicas) ? 'busy' : 'none';
  }

  /** All nodes that are up, best first for `key`. */
  best(key: number): Member[] {
    this.#weigh();
    if (this.#up.length === 0) return [];
    return this.#placement.pick(key, this.#up.length).map((i) => this.#up[i]!);
  }

  /** The destination, once it was reached for frames; null: none takes any. */
  get destination(): Member | null {
    return this.#destination?.member ?? null;
  }

  /** The destination, as it is reached for frames that somebody waits for there. */
  get urgent(): Member | null {
    return this.#urgent?.member ?? null;
  }

  /** Every node that has not gone. */
  get members(): Member[] {
    return [...this.#places.values()].flatMap(({ member }) => (member && !member.gone ? [member] : []));
  }

  /** Every node that was ever used forgets this migration, those that were lost too if they answer. Resolves within two seconds. */
  async drop(): Promise<void> {
    const used = [...this.#places.values()].filter(({ members }) => members.length > 0);
    for (const place of this.#places.values()) place.stop();
    const drops = used.map(async (place) => {
      const node = await place.reach();
      await node.drop().finally(() => node.end());
    });
    const late = new Promise<void>((resolve) => setTimeout(resolve, DROP_MS).unref());
    await Promise.race([Promise.allSettled(drops), late]);
  }

  /** Ends all connections. */
  end(): void {
    this.#stopped = true;
    this.#unsubscribe();
    for (const place of this.#all) place.end();
  }

  get bytesOut(): number {
    return this.#all.reduce((sum, { bytesOut }) => sum + bytesOut, 0);
  }

  /** What each node has acknowledged, the destination last. */
  get shares(): { address: string; frames: number; bytes: number }[] {
    const shares = new Map<string, { address: string; frames: number; bytes: number }>();
    for (const { address, stored } of this.#all.flatMap(({ members }) => members)) {
      const share = shares.get(address) ?? { address, frames: 0, bytes: 0 };
      share.frames += stored.frames;
      share.bytes += stored.bytes;
      shares.set(address, share);
    }
    return [...shares.values()];
  }

  /** Nodes that do not answer, for people. */
  get warnings(): string[] {
    return [...new Set(this.#all.flatMap(({ trouble }) => (trouble ? [trouble.message] : [])))];
  }

  /** For people: how each node stands. */
  describe(): string {
    const states = this.#all.map(({ address, member, trouble }) => {
      if (trouble) return `${address} (${trouble.message})`;
      return member?.describe() ?? `${address} (has not answered yet)`;
    });
    return `${states.join(', ') || 'no node is known'}; add intermediates, or start them with more --memory`;
  }

  get #all(): Place[] {
    const here = [this.#destination, this.#urgent].filter((place) => place !== null);
    return [...this.#places.values(), ...this.#past, ...here];
  }

  /** New nodes in the index are connected to; those that have left it are waited for no more. */
  #follow(): void {
    const { index } = this.#options;
    if (index === null || this.#stopped) return;
    const nodes = index.nodes();
    for (const { address, id, freeBytes, heardMsAgo } of nodes) {
      const place = this.#places.get(address);
      if (!place) this.#places.set(address, new Place(address, this.#options.dial, this.#limits, this.#events()));
      else if (heardMsAgo !== null && heardMsAgo < 100 && place.member?.id === id) place.member.tell(freeBytes);
    }
    for (const [address, place] of this.#places) {
      if (place.member === null && !nodes.some((node) => node.address === address)) {
        place.stop();
        this.#places.delete(address);
      }
    }
    this.#changed();
  }

  #events(): PlaceEvents {
    return {
      onJoin: (member) => this.#options.onJoin(member),
      onGone: (member) => {
        this.#changed();
        this.#options.onGone(member);
      },
      onChange: (place) => {
        if (place.up) this.#options.index?.trust(place.address);
        else this.#options.index?.suspect(place.address);
        this.#changed();
      },
    };
  }

  #changed(): void {
    if (this.#stopped) return;
    this.#weighedAt = Number.NEGATIVE_INFINITY;
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.#options.onChange();
  }

  #weigh(): void {
    const now = performance.now();
    if (now - this.#weighedAt < WEIGH_MS) return;
    this.#weighedAt = now;
    this.#up = [...this.#places.values()].flatMap(({ up, member }) => (up ? [member!] : []));
    // A node without a free byte stays in the ranking, at its end: it may have some again.
    this.#placement.setNodes(this.#up.map(({ id, freeBytes }) => ({ name: id, weight: Math.max(freeBytes, 1) })));
  }

  /** Until something changes, or a little later. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 100);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
