// One migration at one node: what it keeps of it, who else has it, who gets it, and how long it stays.
//
//              HELLO                          REGISTER { complete: true }
//   (unknown) -------->  gathering  ----------------------------------------->  complete
//                            |                                                     |
//                            | no source, no destination for 10 s:                 | neither for as long as its lease is:
//                            | the source has died, and has the VM still           | nobody wants it any more
//                            v                                                     v
//                        dropped  <------------------- DROP ------------------  dropped      its id is remembered for 10 min, so that
//                                                                                            nothing that is late brings it back
//
// The connections of other intermediates do not count, else two of them would hold a migration that nobody else wants. But a node that has a
// source or destination tells the others so, with LEASE once a second, and that counts as if he were there.

import { AbdmError } from '../../bindings/errors.js';
import type { FoundMigration, Registration } from '../mam/bodies.js';
import type { NodeRef } from '../mam/keeper.js';
import { storeScheme } from '../wire/address.js';
import type { Security } from '../wire/security.js';
import type { BankPool } from './banks.js';
import { type Chain, Chains } from './chains.js';
import { Claim } from './claim.js';
import { type FrameCheck, Frames } from './frames.js';
import { Peers } from './peers.js';
import { type Candidate, Restorer } from './restore.js';

/** A migration that is not complete and that nobody is connected for is dropped after this. */
const ORPHAN_MS = 10_000;
/** Before its source has said how long it stays. */
const LEASE_MS = 600_000;

/** Who a connection to an intermediate speaks for. */
export type Role = 'source' | 'destination' | 'intermediate';

/** What happens to migrations, for whoever watches. */
export type MigrationEvent = { readonly migration: string } & (
  | { readonly type: 'expired' | 'dropped'; readonly frames: number; readonly bytes: number }
  | { readonly type: 'lease-ending'; readonly vms: readonly string[]; readonly expiresInMs: number }
  | { readonly type: 'restoring' }
  | { readonly type: 'restored'; readonly blocks: number; readonly bytes: number; readonly left: number }
);

/** What all migrations of a node share. */
export interface MigrationOptions {
  /** The node's id. */
  readonly own: string;
  readonly pool: BankPool;
  readonly check: FrameCheck;
  readonly security: Security;
  /** Nodes that may take blocks whose holders are gone. */
  readonly nodes: () => readonly Candidate[];
  readonly onEvent: (event: MigrationEvent) => void;
  readonly orphanMs?: number | undefined;
  readonly claimStaleMs?: number | undefined;
}

export class Migration {
  readonly id: string;
  readonly frames: Frames;
  readonly peers: Peers;
  readonly chains: Chains;
  readonly claim: Claim;
  registration: Registration | null = null;
  /** Ended by a DROP, or because nobody came: why. */
  dropped: string | null = null;
  readonly #options: MigrationOptions;
  readonly #onOver: (remember: boolean) => void;
  readonly #restorer: Restorer;
  readonly #connections: Record<Role, number> = { source: 0, destination: 0, intermediate: 0 };
  #leaseMs = LEASE_MS;
  /** When a source or destination was here last. */
  #seenMs = performance.now();
  #warned = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param onOver called once, when it is dropped; with false if nothing was ever known of it. */
  constructor(id: string, options: MigrationOptions, onOver: (remember: boolean) => void) {
    const { own, pool, check, security } = options;
    this.id = id;
    this.#options = options;
    this.#onOver = onOver;
    this.frames = new Frames(pool, check);
    this.claim = new Claim(options.claimStaleMs);
    this.peers = new Peers({
      migration: id,
      security,
      registration: () => this.registration,
      renew: () => (this.#attended ? this.#leaseMs : null),
      onChange: () => this.#restorer.check(),
    });
    this.chains = new Chains(own, this.peers);
    this.#restorer = new Restorer({
      own,
      frames: this.frames,
      peers: this.peers,
      chains: this.chains,
      candidates: () => this.#candidates(),
      onStart: () => options.onEvent({ type: 'restoring', migration: id }),
      onEnd: (done) => options.onEvent({ type: 'restored', migration: id, ...done }),
    });
  }

  /** Connections of all roles. */
  get connections(): number {
    const { source, destination, intermediate } = this.#connections;
    return source + destination + intermediate;
  }

  /** Until it is dropped if nobody comes; while somebody is here: if he left now. */
  get expiresInMs(): number {
    const from = this.#attended ? performance.now() : this.#seenMs;
    return Math.max(0, Math.round(from + this.#spanMs - performance.now()));
  }

  join(role: Role): void {
    this.#connections[role]++;
    if (role !== 'intermediate') this.#seen();
    else if (this.connections === 1) this.#arm();
  }

  leave(role: Role): void {
    this.#connections[role]--;
    if (this.dropped !== null) return;
    if (role !== 'intermediate') this.#seen();
    const nothing = this.frames.count === 0 && this.registration === null && this.claim.by === null;
    if (nothing && this.connections === 0) this.drop('empty');
  }

  /** What the source said, or what another node passes on; what was complete stays so. */
  register(registration: Registration): void {
    const complete = registration.complete || (this.registration?.complete ?? false);
    this.registration = { ...registration, complete };
    this.renew(registration.leaseMs);
    if (registration.token !== null && this.claim.by === null) {
      this.claim.ask(registration.token, 'the destination that its source chose');
    }
  }

  /** It stays for so long after its last source or destination, or for so long from now. */
  renew(leaseMs: number): void {
    this.#leaseMs = leaseMs;
    this.#seen();
  }

  /** A kept block is at all nodes of this chain: from now on they look after each other. */
  hold(frameId: number, chain: Chain): void {
    this.frames.setChain(frameId, chain);
    for (const peer of chain.others) peer.watch();
  }

  /** Forgets everything, for good. A DROP goes on to all nodes that this one is connected to for it: they may have blocks that nobody else knows of. */
  drop(why: 'asked' | 'expired' | 'empty' | 'closed'): { frames: number; bytes: number } {
    if (this.dropped !== null) return { frames: 0, bytes: 0 };
    this.dropped = why === 'asked' ? 'it was dropped' : `it has expired: nobody was connected for it`;
    clearTimeout(this.#timer);
    this.#restorer.stop();
    this.peers.close(why === 'asked');
    const dropped = this.frames.drop();
    this.#onOver(why !== 'empty');
    if (why === 'asked' || why === 'expired') {
      this.#options.onEvent({ type: why === 'asked' ? 'dropped' : 'expired', migration: this.id, ...dropped });
    }
    return dropped;
  }

  /** For whoever looks for it; null while its source has not said what it is. */
  describe(): FoundMigration | null {
    if (this.registration === null) return null;
    const { vms, over = [], parked, complete, frames, replicas, voters } = this.registration;
    const { by } = this.claim;
    const sourceConnected = this.#connections.source > 0;
    const { id: migration, expiresInMs } = this;
    const what = { migration, vms, over, parked, complete, frames, replicas, voters };
    return { ...what, claimed: by, sourceConnected, expiresInMs };
  }

  /** @throws {AbdmError} CANCELLED if it was dropped. */
  requireLive(): void {
    if (this.dropped !== null) throw over(this.id, this.dropped);
  }

  get #attended(): boolean {
    return this.#connections.source + this.#connections.destination > 0;
  }

  get #spanMs(): number {
    return this.registration?.complete ? this.#leaseMs : (this.#options.orphanMs ?? ORPHAN_MS);
  }

  #seen(): void {
    this.#seenMs = performance.now();
    this.#warned = false;
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#attended || this.dropped !== null) return;
    const left = this.expiresInMs;
    const warnMs = this.registration?.complete && !this.#warned ? this.#spanMs / 10 : 0;
    this.#timer = setTimeout(() => this.#onTimer(), Math.max(1, left - warnMs));
    this.#timer.unref();
  }

  #onTimer(): void {
    const { expiresInMs } = this;
    if (expiresInMs <= 0) {
      this.drop('expired');
      return;
    }
    if (this.registration?.complete && !this.#warned && expiresInMs <= this.#spanMs / 10) {
      this.#warned = true;
      const { vms } = this.registration;
      this.#options.onEvent({ type: 'lease-ending', migration: this.id, vms, expiresInMs });
    }
    this.#arm();
  }

  #candidates(): (NodeRef | Candidate)[] {
    // Stores make their own copies, and take none from nodes.
    const voters = (this.registration?.voters ?? []).filter(({ address }) => storeScheme(address) === null);
    return [...voters, ...this.#options.nodes()];
  }
}

/** What whoever speaks for a dropped migration is told. */
export function over(id: string, why: string): AbdmError {
  return new AbdmError('CANCELLED', `migration ${id} is over here: ${why}`);
}
