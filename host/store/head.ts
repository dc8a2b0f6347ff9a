// The head of a migration at a store, as this connection knows it, and how it is changed: only ever from what is there, so that what another connection has
// changed, or dropped, is not written over.

import { randomBytes } from 'node:crypto';
import { AbdmError } from '../../bindings/errors.js';
import type { Engine } from './engine.js';
import { decodeHead, encodeHead, endOf, type Head, type Keys, rangeOf } from './records.js';

/** Before its source has said how long it stays. */
const LEASE_MS = 600_000;
/** While a source is at it, it stays for so long at least, and no longer than this without it. */
const GATHERING_MS = 120_000;
/** Others change it seldom. */
const TRIES = 20;

export class HeadRecord {
  value: Head;
  #raw: Uint8Array;
  readonly #engine: Engine;
  readonly #key: string;
  /** Changes come one after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(engine: Engine, key: string, raw: Uint8Array) {
    this.#engine = engine;
    this.#key = key;
    this.#raw = raw;
    this.value = decodeHead(raw);
  }

  /** The head that is there, or that a source makes. @throws {AbdmError} PEER_GONE, surely, if there is none; NO_ROOM. */
  static async open(engine: Engine, keys: Keys, make: boolean): Promise<HeadRecord> {
    if (make) {
      const id = randomBytes(16).toString('hex');
      const head = encodeHead({ id, leaseMs: LEASE_MS, ends: new Map(), registration: null });
      const added = await engine.add(keys.head, head, GATHERING_MS);
      if (added === 'full') throw new AbdmError('NO_ROOM', 'the store is full');
    }
    const raw = await engine.get(keys.head);
    if (raw === null)
      throw forgotten('the store has nothing of this migration: it was dropped, has expired or was lost');
    return new HeadRecord(engine, keys.head, raw);
  }

  /** How long what is there stays when nobody renews it. */
  get ttlMs(): number {
    return ttlOf(this.value);
  }

  /** There may be blocks with this id from now on. */
  async reach(id: number): Promise<void> {
    const first = rangeOf(id);
    const isReached = ({ ends }: Head) => (ends.get(first) ?? 0) > id;
    if (isReached(this.value)) return;
    await this.change((head) => (isReached(head) ? head : { ...head, ends: new Map(head.ends).set(first, endOf(id)) }));
  }

  /** Reads it anew. @throws {AbdmError} PEER_GONE, surely, if it is not there any more. */
  async refresh(): Promise<void> {
    const raw = await this.#engine.get(this.#key);
    if (raw === null)
      throw forgotten('the store has nothing of this migration any more: it was dropped, or has expired');
    const value = decodeHead(raw);
    if (value.id !== this.value.id) throw forgotten('the store was emptied, and is used for this migration anew');
    this.#raw = raw;
    this.value = value;
  }

  /** @throws {AbdmError} as `refresh`. */
  change(next: (head: Head) => Head): Promise<void> {
    const changed = this.#changing.then(() => this.#change(next));
    this.#changing = changed.catch(() => {});
    return changed;
  }

  /** It is gone, unless somebody has changed it. */
  async remove(): Promise<void> {
    await this.#engine.swap(this.#key, this.#raw, null, 0);
  }

  async #change(next: (head: Head) => Head): Promise<void> {
    for (let left = TRIES; left > 0; left--) {
      const before = this.value;
      const value = next(before);
      if (value === before) return;
      const raw = encodeHead(value);
      if (await this.#engine.swap(this.#key, this.#raw, raw, ttlOf(value))) {
        this.#raw = raw;
        this.value = value;
        return;
      }
      await this.refresh();
    }
    throw new AbdmError('PEER_UNREACHABLE', 'others change what the store says of this migration all the time');
  }
}

function ttlOf({ leaseMs, registration }: Head): number {
  return registration?.complete ? leaseMs : Math.min(leaseMs, GATHERING_MS);
}

/** What was there is surely not there any more. */
export function forgotten(text: string): AbdmError {
  return new AbdmError('PEER_GONE', text, { cause: { code: 'ANOTHER_NODE' } });
}
