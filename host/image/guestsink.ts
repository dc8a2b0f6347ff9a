// The memory of a guest (host/guest) as an image that is written while the guest waits for it, or runs already: then it waits where it touches a page that
// is not there yet. What is there says a bitmap beside the memory, which outlives this process.

import { closeSync, readSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { bitmapFor, clearBit, hasBit, setAll, setBit } from '../guest/bits.js';
import { GuestClient } from '../guest/client.js';
import { type JsonObject, need } from '../wire/json.js';
import type { LeftOver } from './filesink.js';
import { misunderstood, openFile, readAll } from './guest.js';
import { checkRange, errnoOf, type GuestSink, imageError, reasonOf } from './image.js';

/** A process that was killed has let go of its socket by then. */
const DYING_MS = 2_000;
const LOOK_MS = 20;
/** Bits that are no farther from each other are written in one go. */
const NEAR_BYTES = 4096;
const ZEROS = new Uint8Array(64 * 1024);

/**
 * Begins the memory of the guest at `socket`, which waits for it, `bytes` long.
 * @param left `keep`: what an earlier destination has brought is gone on with, whether the guest runs by now or not.
 * @throws {AbdmError} IMAGE.
 */
export async function openWaitingGuest(socket: string, bytes: number, left?: LeftOver): Promise<GuestSink> {
  const client = await GuestClient.open(socket);
  try {
    // What it waits for may be said before anybody asks.
    const early: number[] = [];
    client.onFault = (pfns) => early.push(...pfns);
    const { answer } = await client.request({ ask: 'sink', bytes, keep: left === 'keep' });
    return new WaitingGuest(client, socket, bytes, answer, early);
  } catch (error) {
    client.close();
    throw misunderstood(socket, error);
  }
}

class WaitingGuest implements GuestSink {
  readonly description: string;
  readonly guestId: string;
  readonly hasRun: boolean;
  /** What is in the file of the same name. */
  readonly present: Uint8Array;
  readonly #pages: number;
  readonly #client: GuestClient;
  readonly #socket: string;
  /** Pages that may be something else than zero. */
  readonly #written: Uint8Array;
  /** Pages that the guest waits for. */
  readonly #waited = new Set<number>();
  /** Of those, what is written by now, and not said yet. */
  #came: number[] = [];
  /** Bytes of `present`, from one to before the other, that are not in its file yet; two numbers, as they change with every write. */
  #unsaidFrom = Number.POSITIVE_INFINITY;
  #unsaidTo = 0;
  readonly #memory: number;
  readonly #presence: number;
  #onFault: ((pfn: number) => void) | null = null;
  #onGone: ((error: Error) => void) | null = null;
  #runs: boolean;
  /** It may run by now: what is there is never written again. */
  #isFrozen: boolean;
  #isWhole = false;
  #isClosed = false;

  constructor(client: GuestClient, socket: string, bytes: number, answer: JsonObject, early: readonly number[]) {
    const description = `guest ${socket}`;
    this.#client = client;
    this.#socket = socket;
    this.description = description;
    this.guestId = need.string(answer, 'guest', 'the answer');
    this.hasRun = this.#runs = this.#isFrozen = need.boolean(answer, 'hasRun', 'the answer');
    this.#pages = bytes / PAGE_BYTES;
    this.present = bitmapFor(this.#pages);
    this.#written = bitmapFor(this.#pages);
    // What an earlier destination has left there is not known.
    if (!need.boolean(answer, 'isEmpty', 'the answer')) setAll(this.#written, this.#pages);
    this.#memory = openFile(description, answer, 'memory', 'r+');
    this.#presence = openFile(description, answer, 'presence', 'r+');
    readSync(this.#presence, this.present, 0, this.present.length, 0);
    client.onFault = (pfns) => this.#waitFor(pfns);
    client.onGone = (error) => this.#onGone?.(error);
    this.#waitFor(early);
  }

  get onFault(): (pfn: number) => void {
    return this.#onFault ?? (() => {});
  }

  /** Pages that are waited for already are said at once. */
  set onFault(onFault: (pfn: number) => void) {
    this.#onFault = onFault;
    for (const pfn of this.#waited) onFault(pfn);
  }

  get onGone(): (error: Error) => void {
    return this.#onGone ?? (() => {});
  }

  set onGone(onGone: (error: Error) => void) {
    this.#onGone = onGone;
    if (this.#client.gone && !this.#isClosed) onGone(this.#client.gone);
  }

  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    const pages = Math.ceil(bytes / PAGE_BYTES);
    this.#checkFree(pfn, pages);
    this.#writeAll(memory, offset, bytes, pfn * PAGE_BYTES);
    for (let page = pfn; page < pfn + pages; page++) setBit(this.#written, page);
    this.#arrived(pfn, pages);
  }

  zero(pfn: number, pages: number): void {
    this.#checkFree(pfn, pages);
    const end = pfn + pages;
    for (let page = pfn; page < end; page++) {
      const first = page;
      while (page < end && hasBit(this.#written, page)) clearBit(this.#written, page++);
      for (let at = first * PAGE_BYTES; at < page * PAGE_BYTES; at += ZEROS.length) {
        this.#writeAll(ZEROS, 0, Math.min(ZEROS.length, page * PAGE_BYTES - at), at);
      }
    }
    this.#arrived(pfn, pages);
  }

  settle(): void {
    this.#savePresence();
    // Only now: what it is told has come it looks for there.
    if (this.#came.length > 0) this.#client.tell({ came: this.#came.splice(0) });
  }

  read(pfn: number, memory: Uint8Array, offset: number): void {
    this.#check(pfn, 1);
    readAll(this.description, this.#memory, memory, offset, PAGE_BYTES, pfn * PAGE_BYTES);
  }

  forget(pfn: number, pages: number): void {
    this.#checkFree(pfn, pages);
    for (let page = pfn; page < pfn + pages; page++) clearBit(this.present, page);
    this.#notePresence(pfn, pages);
    this.#savePresence();
  }

  async load(state: Uint8Array): Promise<void> {
    await this.#client.request({ ask: 'load' }, state);
  }

  async run(): Promise<void> {
    this.#isFrozen = true;
    await this.#client.request({ ask: 'run' });
    this.#runs = true;
    this.#closeIfDone();
  }

  /** It notes that it runs before it does, and that outlives it; but one that is only stopped may come to it later. */
  async mayHaveRun(): Promise<boolean> {
    if (!(await isDead(this.#socket))) return true;
    const noted = new Uint8Array(1);
    return readSync(this.#presence, noted, 0, 1, this.present.length) !== 1 || noted[0] !== 0;
  }

  async commit(): Promise<void> {
    await this.#client.request({ ask: 'commit' });
    this.#isWhole = true;
    this.#closeIfDone();
  }

  async discard(): Promise<void> {
    // What has run, or could without us, stays as it is; and the guest says no if it knows better.
    if (!this.#runs && !this.#isWhole) await this.#client.request({ ask: 'reset' }).catch(() => {});
    this.#close();
  }

  async leave(): Promise<void> {
    this.#close();
  }

  /** Nobody needs to be there for a guest that runs and has all its memory. */
  #closeIfDone(): void {
    if (this.#runs && this.#isWhole) this.#close();
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#memory);
    closeSync(this.#presence);
    this.#client.close();
  }

  #waitFor(pfns: readonly number[]): void {
    for (const pfn of pfns) {
      if (pfn >= this.#pages || this.#waited.has(pfn)) continue;
      // It looked, and the page came, and then it said so.
      if (hasBit(this.present, pfn)) this.#client.tell({ came: [pfn] });
      else {
        this.#waited.add(pfn);
        this.#onFault?.(pfn);
      }
    }
  }

  /** The bytes of these pages are there. */
  #arrived(pfn: number, pages: number): void {
    for (let page = pfn; page < pfn + pages; page++) setBit(this.present, page);
    this.#notePresence(pfn, pages);
    if (this.#waited.size === 0) return;
    for (let page = pfn; page < pfn + pages; page++) if (this.#waited.delete(page)) this.#came.push(page);
  }

  #notePresence(pfn: number, pages: number): void {
    if (pages === 0) return;
    const from = pfn >>> 3;
    const to = ((pfn + pages - 1) >>> 3) + 1;
    // A frame's pages are near each other; those of others that have waited for it are not.
    if (from > this.#unsaidTo + NEAR_BYTES || to + NEAR_BYTES < this.#unsaidFrom) this.#savePresence();
    this.#unsaidFrom = Math.min(this.#unsaidFrom, from);
    this.#unsaidTo = Math.max(this.#unsaidTo, to);
  }

  #savePresence(): void {
    const from = this.#unsaidFrom;
    const bytes = this.#unsaidTo - from;
    if (bytes > 0) writeAll(this.description, this.#presence, this.present, from, bytes, from);
    this.#unsaidFrom = Number.POSITIVE_INFINITY;
    this.#unsaidTo = 0;
  }

  #writeAll(memory: Uint8Array, offset: number, bytes: number, position: number): void {
    writeAll(this.description, this.#memory, memory, offset, bytes, position);
  }

  #check(pfn: number, pages: number): void {
    checkRange(this.description, pfn, pages, this.#pages);
    if (this.#client.gone) throw this.#client.gone;
  }

  /** Nobody could undo a write to a page that the guest may have written to itself. */
  #checkFree(pfn: number, pages: number): void {
    this.#check(pfn, pages);
    if (!this.#isFrozen) return;
    for (let page = pfn; page < pfn + pages; page++) {
      if (!hasBit(this.present, page)) continue;
      throw new AbdmError('INTERNAL', `page ${page} of ${this.description}, which runs on it, was to be written again`);
    }
  }
}

/** Whether there is surely no process behind a guest's socket any more: a stopped one has it open still, and one that dies for a moment. */
async function isDead(socket: string): Promise<boolean> {
  for (const by = performance.now() + DYING_MS; performance.now() < by; await sleep(LOOK_MS)) {
    try {
      (await GuestClient.open(socket)).close();
    } catch (error) {
      if (errnoOf((error as AbdmError).cause) === 'ECONNREFUSED') return true;
    }
  }
  return false;
}

function writeAll(description: string, file: number, memory: Uint8Array, offset: number, bytes: number, to: number) {
  try {
    for (let done = 0; done < bytes; ) done += writeSync(file, memory, offset + done, bytes - done, to + done);
  } catch (error) {
    const hint = errnoOf(error) === 'ENOSPC' ? 'free some room where it has its memory' : 'start it anew';
    throw imageError(`cannot write the memory of ${description}: ${reasonOf(error)}`, hint, error);
  }
}
