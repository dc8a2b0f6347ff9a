// Placement: which nodes keep what, as a function of the offset in the image and of the nodes that are there.
//
// Weighted rendezvous hashing: every node draws a number for the offset, scaled by its weight, and the best ones win. A node that leaves gives up
// only what it held; a node that joins takes over only what it wins.

import { MAX_NODES, NODES_PTR, PICKS_PTR } from './abi.js';
import { createEngine, type Engine, MemoryPlan } from './engine.js';
import { requireInteger } from './options.js';

const NODE_BYTES = 24;

/** A node that can be chosen. */
export interface PlacementNode {
  /** What the node is known by, wherever placement is computed: its address. */
  name: string;
  /** Its share, relative to the others': its memory. 0 and below: it takes nothing. */
  weight: number;
}

/** Chooses which nodes keep a frame: the same everywhere where the same nodes are known. */
export class Placement {
  readonly #engine: Engine;
  readonly #view: DataView;
  readonly #scratchPtr: number;
  #nodes = 0;

  private constructor(engine: Engine, scratchPtr: number) {
    this.#engine = engine;
    this.#view = new DataView(engine.memory.buffer);
    this.#scratchPtr = scratchPtr;
  }

  /** Creates a placement with a small engine of its own. Throws USAGE. */
  static async create(): Promise<Placement> {
    const plan = new MemoryPlan();
    const scratchPtr = plan.reserve(1024);
    return new Placement(await createEngine(plan), scratchPtr);
  }

  /** The nodes to choose from, at most 256. Picks are indices into this list. Throws USAGE. */
  setNodes(nodes: readonly PlacementNode[]): void {
    requireInteger('nodes', nodes.length, 0, MAX_NODES);
    nodes.forEach(({ name, weight }, i) => {
      const at = NODES_PTR + NODE_BYTES * i;
      const bytes = new TextEncoder().encode(name).subarray(0, 1000);
      this.#engine.memory.set(bytes, this.#scratchPtr);
      this.#engine.exports.xxh3(this.#scratchPtr, bytes.length, at);
      this.#view.setFloat64(at + 8, weight, true);
    });
    this.#nodes = nodes.length;
  }

  /** The `replicas` best different nodes for `key`, best first; fewer if there are not so many. Throws USAGE. */
  pick(key: number, replicas: number): number[] {
    requireInteger('replicas', replicas, 1, MAX_NODES);
    const picked = this.#engine.exports.place(key, this.#nodes, replicas);
    return Array.from({ length: picked }, (_, i) => this.#view.getUint32(PICKS_PTR + 4 * i, true));
  }
}
