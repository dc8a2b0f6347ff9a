// The chains of one migration, as one of their holders sees them. There are few of them: each is kept once, and blocks refer to it.
//
//   source -> [ a ] -> [ b ] -> [ c ]        holders, in order; each gives a block to the next one when it has it itself,
//          <-       <-       <-              and says that it is stored when the next one has said so

import { AbdmError } from '../../bindings/errors.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Peer, Peers } from './peers.js';

/** So many nodes have three copies in every order, and some to spare. */
const MAX_CHAINS = 16_384;

export interface Chain {
  /** All holders in order, this node among them. */
  readonly nodes: readonly NodeRef[];
  /** The others, in order. */
  readonly others: readonly Peer[];
  /** Where this node stands in it, from 0. */
  readonly position: number;
  /** Who is behind this node; null if nobody is. */
  readonly next: Peer | null;
  /** How many holders there should be: more than there are if a missing one could not be replaced. */
  readonly copies: number;
}

export class Chains {
  readonly #own: string;
  readonly #peers: Peers;
  readonly #byIds = new Map<string, Chain>();

  /** @param own this node's id. */
  constructor(own: string, peers: Peers) {
    this.#own = own;
    this.#peers = peers;
  }

  /** The chain of these holders. @throws {AbdmError} PROTOCOL if this node is not among them, NO_ROOM if there are too many chains. */
  intern(nodes: readonly NodeRef[], copies = nodes.length): Chain {
    const key = `${copies} ${nodes.map(({ id }) => id)}`;
    const known = this.#byIds.get(key);
    if (known !== undefined) return known;
    const position = nodes.findIndex(({ id }) => id === this.#own);
    if (position < 0) throw new AbdmError('PROTOCOL', `CHAIN: this node, ${this.#own}, is not in it`);
    if (this.#byIds.size >= MAX_CHAINS)
      throw new AbdmError('NO_ROOM', `a migration has at most ${MAX_CHAINS} chains here`);
    const others = nodes.filter((_, i) => i !== position).map((node) => this.#peers.get(node));
    const chain = { nodes: [...nodes], others, position, next: others[position] ?? null, copies };
    this.#byIds.set(key, chain);
    return chain;
  }
}
