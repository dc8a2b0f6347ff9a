// Who gets a migration, as a store says it (mam/claim.ts): one key that expires when its holder has been away for long, and which others find taken until then.
//
//   nobody has it  --- claim, or the token that the source registered --->  somebody has it; whoever speaks for him renews it
//                  <-- release ------------------------------------------
//                  <-- 30 s without him: the key expires -----------------
//
// A claim for good stays as long as the migration does.

import { AbdmError } from '../../bindings/errors.js';
import type { Claimed } from '../mam/bodies.js';
import type { Engine } from './engine.js';
import { decodeHolder, encodeHolder, type Holder } from './records.js';

/** A claimant who has not been here for so long has died. */
const STALE_MS = 30_000;
/** So often others are found to have changed it meanwhile. */
const TRIES = 20;

export class StoreClaim {
  readonly #engine: Engine;
  readonly #key: string;
  readonly #leaseMs: () => number;
  /** Whom this connection speaks for. */
  #token: string | null = null;

  /** @param leaseMs how long the migration stays. */
  constructor(engine: Engine, key: string, leaseMs: () => number) {
    this.#engine = engine;
    this.#key = key;
    this.#leaseMs = leaseMs;
  }

  /** Grants it if nobody has it, or he has it already. @throws {AbdmError} NO_ROOM and others. */
  async ask(token: string, by: string, forGood = false): Promise<Claimed> {
    for (let left = TRIES; left > 0; left--) {
      const raw = await this.#engine.get(this.#key);
      if (raw === null) {
        const holder: Holder = { token, by, sinceMs: Date.now(), forGood };
        const added = await this.#engine.add(this.#key, encodeHolder(holder), this.#ttlMs(holder));
        if (added === 'full') throw new AbdmError('NO_ROOM', 'the store has no room for a claim');
        if (added === 'stored') return this.#granted(holder);
        continue;
      }
      const before = decodeHolder(raw);
      if (before.token !== token) return { granted: false, by: before.by, sinceMs: sinceMs(before) };
      const holder = { ...before, by, forGood: before.forGood || forGood };
      if (await this.#engine.swap(this.#key, raw, encodeHolder(holder), this.#ttlMs(holder))) {
        return this.#granted(holder);
      }
    }
    throw new AbdmError('PEER_UNREACHABLE', 'others change the claim all the time');
  }

  /** Nobody has it any more, if he had it. Says whether it is not his now. */
  async release(token: string): Promise<Claimed> {
    if (this.#token === token) this.#token = null;
    const raw = await this.#engine.get(this.#key);
    const holder = raw && decodeHolder(raw);
    if (!raw || !holder) return { granted: true, by: null, sinceMs: 0 };
    if (holder.token !== token) return { granted: true, by: holder.by, sinceMs: sinceMs(holder) };
    await this.#engine.swap(this.#key, raw, null, 0);
    return { granted: true, by: null, sinceMs: 0 };
  }

  /** He is still here. */
  async renew(): Promise<void> {
    if (this.#token === null) return;
    const raw = await this.#engine.get(this.#key);
    const holder = raw && decodeHolder(raw);
    if (!holder || holder.token !== this.#token) this.#token = null;
    else await this.#engine.touch([this.#key], this.#ttlMs(holder));
  }

  /** A claim for good stays as long as the migration. */
  async renewForGood(): Promise<void> {
    const raw = await this.#engine.get(this.#key);
    const holder = raw && decodeHolder(raw);
    if (holder?.forGood) await this.#engine.touch([this.#key], this.#ttlMs(holder));
  }

  #granted(holder: Holder): Claimed {
    this.#token = holder.token;
    return { granted: true, by: holder.by, sinceMs: sinceMs(holder) };
  }

  #ttlMs({ forGood }: Holder): number {
    return forGood ? Math.max(STALE_MS, this.#leaseMs()) : STALE_MS;
  }
}

/** By our clock, which may differ from the one of whoever has claimed it. */
function sinceMs({ sinceMs }: Holder): number {
  return Math.max(0, Math.round(Date.now() - sinceMs));
}
