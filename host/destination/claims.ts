// What the nodes say of whose the VMs are: what has become of the source, and whether we are the ones to whom they are given (mam/claim.ts).

import { setTimeout as sleep } from 'node:timers/promises';
import type { FoundMigration } from '../mam/bodies.js';
import { claim, claimError } from '../mam/claim.js';
import type { Holders } from '../mam/holders.js';
import { lookUp, together } from '../mam/lookup.js';
import { claimant } from '../mam/parked.js';
import type { Security } from '../wire/security.js';
import type { Notes } from './notes.js';

/** How long nodes may take to give a claim back. */
const RELEASE_MS = 1_000;

export class Claims {
  readonly #notes: Notes;
  readonly #holders: Holders;
  readonly #security: Security;

  constructor(notes: Notes, holders: Holders, security: Security) {
    this.#notes = notes;
    this.#holders = holders;
    this.#security = security;
  }

  /**
   * Claims the VMs by our token, or renews that; says whether they are ours for sure. `forGood`: one of them runs, or is about to, so they are never given to
   * anybody else, however long we are away.
   * @throws {AbdmError} CLAIMED if somebody else has them.
   */
  async claim(forGood: boolean): Promise<boolean> {
    const { voters, token, vms } = this.#notes.state!;
    const who = voters.map((voter) => this.#holders.of(voter));
    const verdict = await claim(who, token, claimant(), forGood);
    if (verdict.other && !verdict.granted) throw claimError(vms.map(({ name }) => name).join(', '), verdict);
    // When no voter is left, nobody else can be granted it either.
    return verdict.granted || verdict.voters === 0;
  }

  /** What the nodes know of this migration, and which of them did not answer. */
  async lookUp(): Promise<{ known: FoundMigration | null; silent: string[] }> {
    const { migration, vms, voters } = this.#notes.state!;
    const addresses = [...this.#holders].map(({ address }) => address);
    const { found, silent } = await lookUp(addresses, vms[0]!.name, this.#security);
    const known = together(found, migration);
    if (known && voters.length === 0) this.#notes.change({ voters: [...known.voters] });
    return { known, silent };
  }

  /** Whoever is started next need not wait until the claim is stale. */
  async release(): Promise<void> {
    const { token } = this.#notes.state!;
    const releases = [...this.#holders].map((holder) => holder.release(token, claimant()));
    await Promise.race([Promise.allSettled(releases), sleep(RELEASE_MS, undefined, { ref: false })]);
  }
}
