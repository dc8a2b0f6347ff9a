// A store as a keeper of blocks: what an intermediate of ours does by itself, done with keys that expire (records.ts).
//
//   put 7            the head says that there may be blocks up to 1024; add abdm:{migration}:7
//   every 3 s        touch abdm:{migration}:source, and the claim that is spoken for
//   a third of the   touch every key: it stays for as long again. A source then learns if any of what it has put is not there any more, and so it does
//   lease            when the connection was broken, and at the exit: then the store is gone for it, and everything is put again
//   drop             remove every key
//
// How it is lost, for whoever uses it: see node.ts. What a connection that broke has not answered is asked again by the engine.
//
//   not reached for 5 s               it is gone for us; its blocks may still be there
//   without the migration's head      it was dropped, emptied, or lost what it had: it is gone, and its blocks with it
//   without a block that it had       likewise

import { AbdmError, type AbdmErrorCode, asAbdmError } from '../../bindings/errors.js';
import type { Claimed, Registration } from '../mam/bodies.js';
import {
  type ClaimOptions,
  type FrameKeeper,
  type Gone,
  isSurelyGone,
  type KeeperOptions,
  type NodeRef,
  type PutOptions,
  type PutResult,
  peerCode,
} from '../mam/keeper.js';
import { StoreClaim } from './claim.js';
import { Contents } from './contents.js';
import { within } from './deadline.js';
import type { Engine, EngineOptions, ReadTarget } from './engine.js';
import { forgotten, HeadRecord } from './head.js';
import { enterNames, leaveNames, renewNames } from './names.js';
import { Presence } from './presence.js';
import { Keys } from './records.js';

/** A connection that broke is waited for so long. */
const AWAY_MS = 5_000;
const TIMEOUT_MS = 5_000;
/** How often it is said that somebody is here. */
const BEAT_MS = 3_000;
/** How long a last word may take. */
const LAST_MS = 1_000;
/** How long what is left of a migration may take to be removed. */
const CLEAN_MS = 30_000;
/** Millions of keys take a while to be dropped; what is done of that at a time does not. What is left expires. */
const STEP_MS = 10_000;
const SOURCE_CHOSE = 'the destination that its source chose';
/** It answers, and does not do what it is asked for. */
const REFUSALS: ReadonlySet<AbdmErrorCode> = new Set(['NO_ROOM', 'PEER_ABORTED', 'UNAUTHENTICATED']);

export class StoreKeeper implements FrameKeeper {
  readonly address: string;
  readonly chains = false;
  freeBytes = 0;
  bytesOut = 0;
  readonly #options: KeeperOptions;
  readonly #keys: Keys;
  #engine!: Engine;
  #head!: HeadRecord;
  #contents!: Contents;
  #claim!: StoreClaim;
  #presence!: Presence;
  #connected = true;
  /** It has said what it is. */
  #begun = false;
  #gone: Gone | null = null;
  #ended = false;
  /** Nothing of it is to be there any more: nobody says from now on that he is here. */
  #dropped = false;
  #dropping: Promise<{ frames: number; bytes: number }> | null = null;
  readonly #puts = new Map<number, Promise<PutResult>>();
  #away: NodeJS.Timeout | undefined;
  #beating: NodeJS.Timeout | undefined;
  #renewedAt = performance.now();

  private constructor(address: string, options: KeeperOptions) {
    this.address = address;
    this.#options = options;
    this.#keys = new Keys(options.migration);
  }

  /** @throws {AbdmError} as MamNode.connect; USAGE, for a source, if the store is not fit to be used. */
  static async connect(
    address: string,
    options: KeeperOptions,
    open: (options: EngineOptions) => Promise<Engine>,
  ): Promise<StoreKeeper> {
    const { replicas = 1, timeoutMs = TIMEOUT_MS, signal } = options;
    const keeper = new StoreKeeper(address, options);
    keeper.#engine = await open({
      copies: replicas,
      timeoutMs,
      signal,
      onOpen: (open, why) => keeper.#onOpen(open, why),
    });
    try {
      await within(timeoutMs, `${address} has not answered`, keeper.#begin());
    } catch (error) {
      keeper.#engine.close();
      throw error;
    }
    return keeper;
  }

  get id(): string {
    return this.#head.value.id;
  }

  get copies(): number {
    return this.#engine.copies;
  }

  get open(): boolean {
    return this.#connected && !this.#ended && this.#gone === null;
  }

  get gone(): Gone | null {
    return this.#gone;
  }

  put(id: number, block: Uint8Array, _chain: readonly NodeRef[] = [], options: PutOptions = {}): Promise<PutResult> {
    const { deadlineMs, onFree } = options;
    const lost = this.#lost();
    if (lost) {
      onFree?.();
      return Promise.reject(lost);
    }
    // One that was given up, and is still under way, is not sent twice.
    const putting = this.#puts.get(id) ?? this.#put(id, block);
    this.#puts.set(id, putting);
    const done = () => {
      this.#puts.delete(id);
      onFree?.();
    };
    putting.then(done, done);
    return within(deadlineMs, `${this.address} has not said that it has ${id}`, putting);
  }

  async get(id: number, into: Uint8Array, { deadlineMs }: { deadlineMs?: number } = {}): Promise<number> {
    this.#requireOpen();
    const target: ReadTarget = { into };
    const reading = this.#engine.read(this.#contents.keyOf(id), target);
    try {
      const bytes = await within(deadlineMs, `${this.address} has not sent ${id}`, reading);
      if (bytes !== null) return bytes;
    } finally {
      target.into = null;
    }
    throw new AbdmError('FRAME_LOST', `${this.address} does not have frame ${id}`);
  }

  async list(from: number): Promise<number[]> {
    await this.#refresh();
    return this.#contents.list(from);
  }

  async register(registration: Registration): Promise<{ expiresInMs: number }> {
    this.#requireOpen();
    const { migration } = this.#options;
    const { vms, leaseMs, token, complete } = registration;
    try {
      await enterNames(this.#engine, migration, vms, complete ? leaseMs : this.#head.ttlMs);
      if (complete) await Promise.allSettled(this.#puts.values());
      // What it says is whole stays for as long as its lease, to the last block, before anybody is told.
      if (complete) await this.#touch(leaseMs);
      await this.#head.change((head) => {
        return { ...head, leaseMs, registration: { ...registration, complete: isComplete(head, complete) } };
      });
      await renewNames(this.#engine, migration, vms, this.#head.ttlMs);
      if (token !== null) await this.#claim.ask(token, SOURCE_CHOSE);
    } catch (cause) {
      const error = asAbdmError(cause);
      // Whoever does not know what the migration is keeps nothing of it that could be found.
      if (peerCode(error) !== 'USAGE') this.#lose(error);
      throw error;
    }
    return { expiresInMs: this.#head.ttlMs };
  }

  claim(token: string, by: string, { forGood = false, deadlineMs }: ClaimOptions = {}): Promise<Claimed> {
    this.#requireOpen();
    const asked = this.#refresh().then(() => this.#claim.ask(token, by, forGood));
    return within(deadlineMs, `${this.address} has not answered to a claim`, asked);
  }

  release(token: string, _by: string, deadlineMs?: number): Promise<Claimed> {
    this.#requireOpen();
    return within(deadlineMs, `${this.address} has not taken a claim back`, this.#claim.release(token));
  }

  lease(leaseMs: number, deadlineMs?: number): Promise<{ expiresInMs: number }> {
    const lengthened = async () => {
      await this.#refresh();
      await this.#head.change((head) => ({ ...head, leaseMs }));
      await this.#touch(this.#head.ttlMs);
      this.#beat();
      return { expiresInMs: this.#head.ttlMs };
    };
    return within(deadlineMs, `${this.address} has not lengthened the lease`, lengthened());
  }

  async verify(): Promise<void> {
    await this.#touch(this.#head.ttlMs).catch((error) => this.#judge(error));
  }

  ping(timeoutMs: number): Promise<boolean> {
    if (!this.open) return Promise.resolve(false);
    return within(timeoutMs, '', this.#engine.ping()).then(
      () => true,
      () => false,
    );
  }

  drop(deadlineMs?: number): Promise<{ frames: number; bytes: number }> {
    this.#dropping ??= this.#drop();
    return within(deadlineMs, `${this.address} has not dropped it all`, this.#dropping);
  }

  end(): void {
    if (this.#ended) return;
    const isSource = this.open && this.#options.role === 'source';
    this.#stop();
    const said = isSource ? this.#presence.leave() : Promise.resolve();
    this.#closeAfter(said, LAST_MS);
  }

  abandon(): void {
    this.#stop();
    this.#closeAfter(Promise.resolve(), 0);
  }

  async #begin(): Promise<void> {
    const { role, id } = this.#options;
    const isSource = role === 'source';
    if (isSource) await this.#engine.check();
    this.#head = await HeadRecord.open(this.#engine, this.#keys, isSource);
    if (id !== undefined && id !== this.id) {
      throw forgotten(`what ${this.address} had of this migration is gone: the store was emptied`);
    }
    this.#contents = new Contents(this.#engine, this.#keys, this.#head, isSource);
    this.#claim = new StoreClaim(this.#engine, this.#keys.claim, () => this.#head.ttlMs);
    this.freeBytes = await this.#engine.freeBytes();
    this.#presence = new Presence(this.#engine, this.#keys.source, this.#head);
    if (isSource) await this.#presence.say();
    this.#begun = true;
    this.#beat();
  }

  async #put(id: number, block: Uint8Array): Promise<PutResult> {
    const { address } = this;
    try {
      await this.#head.reach(id);
      const added = await this.#engine.add(this.#contents.keyOf(id), block, this.#head.ttlMs);
      if (added === 'full') {
        this.freeBytes = 0;
        const message = `no room for ${block.byteLength} bytes: the store is full`;
        return { stored: false, code: 'NO_ROOM', message, node: address };
      }
      this.#contents.stored(id, block.byteLength);
      this.bytesOut += block.byteLength;
      this.freeBytes = Math.max(0, this.freeBytes - block.byteLength);
      return { stored: true, freeBytes: Array.from({ length: this.copies }, () => this.freeBytes) };
    } catch (cause) {
      const error = this.#judge(cause);
      if (!REFUSALS.has(error.code)) throw error;
      return { stored: false, code: error.code, message: error.message, node: address };
    }
  }

  async #drop(): Promise<{ frames: number; bytes: number }> {
    const step = <T>(done: Promise<T>) => within(STEP_MS, `${this.address} has not removed anything`, done);
    try {
      await step(this.#refresh());
    } catch (error) {
      if (isSurelyGone(error)) return { frames: 0, bytes: 0 };
      throw error;
    }
    this.#dropped = true;
    this.#presence.stop();
    // What is under way would come after what is removed.
    await step(Promise.allSettled(this.#puts.values()));
    const { registration } = this.#head.value;
    if (registration) await step(leaveNames(this.#engine, this.#options.migration, registration.vms));
    return this.#contents.remove(step);
  }

  /** Every key stays for so long from now on. @throws {AbdmError} PEER_GONE, surely, if blocks are not there that it said it has. */
  async #touch(ttlMs: number): Promise<void> {
    this.#renewedAt = performance.now();
    await this.#contents.touch(ttlMs, this.address);
    await this.#claim.renewForGood();
    const { registration } = this.#head.value;
    if (registration) await renewNames(this.#engine, this.#options.migration, registration.vms, ttlMs);
  }

  /** Now and then: says that somebody is here, and that what is here is still wanted. */
  #beat(): void {
    const { ttlMs } = this.#head;
    clearTimeout(this.#beating);
    if (this.#ended || this.#gone || this.#dropped) return;
    this.#beating = setTimeout(
      async () => {
        try {
          if (this.#connected) await this.#renew();
        } catch (error) {
          this.#judge(error);
        }
        this.#beat();
      },
      Math.min(BEAT_MS, ttlMs / 4),
    );
    this.#beating.unref();
  }

  async #renew(): Promise<void> {
    if (this.#options.role === 'source') await this.#presence.say();
    else await this.#head.refresh();
    await this.#claim.renew();
    this.freeBytes = await this.#engine.freeBytes();
    const { ttlMs } = this.#head;
    if (performance.now() - this.#renewedAt > ttlMs / 3) await this.#touch(ttlMs);
  }

  #onOpen(open: boolean, why?: string): void {
    if (this.#ended || this.#gone || this.#connected === open) return;
    this.#connected = open;
    if (!this.#begun) return;
    clearTimeout(this.#away);
    if (open) void this.#look();
    else {
      const error = new AbdmError('PEER_GONE', `${this.address} cannot be reached any more${why ? `: ${why}` : ''}`);
      this.#away = setTimeout(() => this.#lose(error), AWAY_MS);
    }
    this.#options.onState?.(this);
  }

  /** It is reached again: whether it still has what it had. */
  async #look(): Promise<void> {
    try {
      await this.#refresh();
      if (this.#options.role === 'source') await this.#touch(this.#head.ttlMs);
    } catch (error) {
      this.#judge(error);
    }
  }

  /** What a failure means for all that is here. */
  #judge(cause: unknown): AbdmError {
    const error = asAbdmError(cause);
    if (isSurelyGone(error)) this.#lose(error);
    return error;
  }

  #lose(error: AbdmError): void {
    if (this.#gone || this.#ended) return;
    const surely = isSurelyGone(error);
    this.#gone = { error, surely };
    if (surely && this.#options.role === 'source') {
      this.#stop();
      const cleaned = Promise.allSettled(this.#puts.values()).then(() => this.#contents.abandon());
      this.#closeAfter(cleaned, CLEAN_MS);
    } else this.abandon();
    this.#options.onState?.(this);
  }

  /** A drop that nobody waits for any more goes on, too: what it leaves would stay for as long as its lease. */
  #closeAfter(last: Promise<unknown>, ms: number): void {
    const close = () => this.#engine.close();
    if (this.#dropping) void Promise.allSettled([this.#dropping, within(ms, '', last)]).then(close);
    else if (ms === 0) close();
    else within(ms, '', last).then(close, close);
  }

  #stop(): void {
    this.#ended = true;
    clearTimeout(this.#away);
    clearTimeout(this.#beating);
  }

  async #refresh(): Promise<void> {
    this.#requireOpen();
    try {
      await this.#head.refresh();
    } catch (error) {
      throw this.#judge(error);
    }
  }

  #requireOpen(): void {
    const lost = this.#lost();
    if (lost) throw lost;
  }

  #lost(): AbdmError | null {
    if (this.#gone) return this.#gone.error;
    return this.#ended ? new AbdmError('PEER_GONE', `the connection to ${this.address} has ended`) : null;
  }
}

/** What was complete stays so. */
function isComplete({ registration }: { registration: Registration | null }, complete: boolean): boolean {
  return complete || (registration?.complete ?? false);
}
