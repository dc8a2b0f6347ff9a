// When a holder of blocks is missing, the first one in their chain that is not restores the number of copies: it gives each block to the holders
// that are left and to another node, down a new chain, exactly as it would forward a block that came just now.
//
//   chain a b c, b is missing:     a  -- PUT, chain a c d -->  c (has it already)  -->  d
//   chain b c,   b is missing:     c  -- PUT, chain c d ---->  d
//
// Which node takes a missing one's place is decided for each block by rendezvous, so that the work is spread, and whoever does it chooses alike.

import { setImmediate } from 'node:timers/promises';
import { Placement } from '../../bindings/placement.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Chain, Chains } from './chains.js';
import type { Frames } from './frames.js';
import type { Peers } from './peers.js';

/** Blocks on their way at a time: little enough that those who fetch are served as before. */
const IN_FLIGHT = 8;
const LOOK_AT_ONCE = 65_536;
/** When there was nobody to take a block, it is tried again after this. */
const AGAIN_MS = 2_000;

/** A node that may take blocks. */
export interface Candidate extends NodeRef {
  readonly freeBytes: number;
}

/** What restoring is about. */
export interface RestorerOptions {
  readonly own: string;
  readonly frames: Frames;
  readonly peers: Peers;
  readonly chains: Chains;
  /** Nodes that may take blocks, beside those that are known from chains. */
  readonly candidates: () => readonly (NodeRef | Candidate)[];
  readonly onStart: () => void;
  /** So many blocks were given to others; so many still have too few copies, for want of a node that takes them. */
  readonly onEnd: (done: { blocks: number; bytes: number; left: number }) => void;
}

/** Restores copies of one migration's blocks. */
export class Restorer {
  readonly #options: RestorerOptions;
  #running = false;
  #again = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RestorerOptions) {
    this.#options = options;
  }

  /** To be called when a node is missing, is back, or is new. */
  check(): void {
    if (this.#stopped) return;
    this.#again = true;
    if (!this.#running) void this.#run();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#again && !this.#stopped) {
      this.#again = false;
      clearTimeout(this.#timer);
      const done = await this.#pass();
      if (done === null || this.#stopped) continue;
      this.#options.onEnd(done);
      if (done.left === 0) continue;
      this.#timer = setTimeout(() => this.check(), AGAIN_MS);
      this.#timer.unref();
    }
    this.#running = false;
  }

  // Once through all blocks; null if there was nothing to do.
  async #pass(): Promise<{ blocks: number; bytes: number; left: number } | null> {
    const { frames, onStart } = this.#options;
    const done = { blocks: 0, bytes: 0, left: 0 };
    const takers = new Takers(this.#options);
    const flying = new Set<Promise<void>>();
    let started = false;
    let seen = 0;
    for (const [id, chain] of frames.chained) {
      // Of millions most may be others' work: they must not hold up who fetches.
      if (++seen % LOOK_AT_ONCE === 0) await setImmediate();
      if (this.#stopped) break;
      if (!this.#isMine(chain)) continue;
      if (!started) {
        started = true;
        await takers.open();
        onStart();
      }
      const one = this.#restore(id, chain, takers)
        .catch(() => null)
        .then((given) => {
          if (given !== null) done.blocks++;
          if (given === null || given.left) done.left++;
          done.bytes += given?.bytes ?? 0;
          flying.delete(one);
        });
      flying.add(one);
      if (flying.size >= IN_FLIGHT) await Promise.race(flying);
    }
    await Promise.all(flying);
    return started ? done : null;
  }

  // Copies are missing, and this node is the first that is left.
  #isMine(chain: Chain): boolean {
    const { others, position, copies } = chain;
    const living = others.filter(({ missing }) => !missing).length + 1;
    return living < copies && others.slice(0, position).every(({ missing }) => missing);
  }

  /** The block's bytes, and whether it still has too few copies; null if nobody took it. */
  async #restore(id: number, chain: Chain, takers: Takers): Promise<{ bytes: number; left: boolean } | null> {
    const { frames, chains } = this.#options;
    const { copies } = chain;
    for (;;) {
      const missing = new Set(chain.others.filter((peer) => peer.missing).map((peer) => peer.id));
      const living = chain.nodes.filter((node) => !missing.has(node.id));
      const taken = takers.choose(id, copies - living.length, chain);
      if (taken.length === 0) return null;
      const next = chains.intern([...living, ...taken], copies);
      const kept = this.#stopped ? null : frames.get(id);
      if (kept === null) return null;
      const bytes = kept.body.byteLength;
      const result = await next.next!.forward(id, kept.body, next, kept.done);
      if (result.stored) {
        frames.setChain(id, next);
        for (const peer of next.others) peer.watch();
        return { bytes, left: next.nodes.length < copies };
      }
      // Whoever it was is passed over from now on; each turn there is one less.
      if (!takers.passOver(result.node)) return null;
    }
  }
}

/** The nodes that may take blocks, during one pass. */
class Takers {
  readonly #options: RestorerOptions;
  #placement!: Placement;
  #nodes: NodeRef[] = [];
  readonly #passed = new Set<string>();

  constructor(options: RestorerOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    const { own, peers, candidates } = this.#options;
    const all = new Map<string, { node: NodeRef; weight: number }>();
    for (const peer of peers) all.set(peer.id, { node: peer, weight: peer.freeBytes ?? 0 });
    for (const node of candidates()) {
      const weight = 'freeBytes' in node ? node.freeBytes : (all.get(node.id)?.weight ?? 0);
      all.set(node.id, { node, weight });
    }
    all.delete(own);
    // Of those of whom it is not known, any room is assumed.
    const known = [...all.values()].map(({ weight }) => weight).filter((weight) => weight > 0);
    const usual = known.length > 0 ? known.reduce((sum, weight) => sum + weight, 0) / known.length : 1;
    const nodes = [...all.values()].slice(0, 256);
    this.#placement = await Placement.create();
    this.#placement.setNodes(nodes.map(({ node, weight }) => ({ name: node.id, weight: weight || usual })));
    this.#nodes = nodes.map(({ node }) => node);
  }

  /** The best `count` nodes for a block that are no members of its chain, or fewer. */
  choose(id: number, count: number, chain: Chain): NodeRef[] {
    if (count <= 0 || this.#nodes.length === 0) return [];
    const chosen: NodeRef[] = [];
    const { peers } = this.#options;
    for (const index of this.#placement.pick(id, this.#nodes.length)) {
      const node = this.#nodes[index]!;
      if (this.#passed.has(node.address) || chain.nodes.some((member) => member.id === node.id)) continue;
      if (peers.find(node.id)?.missing) continue;
      chosen.push(node);
      if (chosen.length === count) break;
    }
    return chosen;
  }

  /** False if it was passed over already. */
  passOver(address: string): boolean {
    const known = this.#passed.has(address);
    this.#passed.add(address);
    return !known;
  }
}
