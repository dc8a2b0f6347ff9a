// A guest in the test's own hands that sends its memory itself, as QEMU does: in rounds while it runs, and what is left when it was stopped. What has not come
// cannot be read.
import { randomBytes } from 'node:crypto';
import { onTestFinished } from 'vitest';
import { layOut, type PageListener, type SendingGuest } from '#abdm/host/image/image.js';
import { seeded } from '../../engine.js';
import { seededPages } from '../../pages.js';

const PAGE = 4096;
const TICK_MS = 1;

export interface SendingOptions {
  pages?: number;
  seed?: number;
  /** Pages that it sends in a millisecond. */
  pace?: number;
  /** It writes to so many pages a millisecond while it runs, of the first `workingSet`. */
  writes?: number;
  workingSet?: number;
}

export class SendingTestGuest implements SendingGuest {
  readonly guestId = randomBytes(16).toString('hex');
  readonly description = 'a guest of the test that sends';
  readonly memory: Uint8Array;
  readonly regions;
  readonly pages: number;
  readonly bytes: number;
  readonly state = new Uint8Array(randomBytes(1000));
  /** `begin`, `stop`, `resume`, `release`. */
  readonly told: string[] = [];
  readonly wanted: number[] = [];
  /** How far it was ahead of who reads, at most; not counted once it was stopped. */
  mostUnread = 0;
  runs = true;
  isHeld = false;
  readonly #shadow: Uint8Array;
  #listener!: PageListener;
  /** Pages that are to be sent in this round, and written to since. */
  #round = new Set<number>();
  #dirty = new Set<number>();
  #came = new Set<number>();
  readonly #unread = new Set<number>();
  #sends = false;
  #order: number[] = [];

  constructor({ pages = 1024, seed = 1, pace = 16, writes = 0, workingSet = pages }: SendingOptions = {}) {
    this.memory = seededPages(seed, pages, ['random', 'text', 'zero', 'duplicate']);
    this.#shadow = new Uint8Array(this.memory.length);
    this.pages = pages;
    this.bytes = pages * PAGE;
    this.regions = layOut([{ name: 'pc.ram', address: 0, bytes: this.bytes }]);
    const random = seeded(seed);
    const timer = setInterval(() => {
      for (let i = 0; i < writes && this.runs; i++) {
        const pfn = random() % workingSet;
        new DataView(this.memory.buffer, this.memory.byteOffset).setUint32(
          pfn * PAGE + (random() % 1024) * 4,
          random(),
        );
        this.#dirty.add(pfn);
      }
      for (let i = 0; i < pace && this.#sends && (!this.isHeld || !this.runs); i++) this.#sendOne();
    }, TICK_MS);
    onTestFinished(() => clearInterval(timer));
  }

  listen(listener: PageListener): void {
    this.#listener = listener;
  }

  async begin(): Promise<void> {
    this.told.push('begin');
    this.#beginAnew();
  }

  hold(isHeld: boolean): void {
    this.isHeld = isHeld;
  }

  want(pfn: number): void {
    this.wanted.push(pfn);
    this.#order.unshift(pfn);
  }

  async stop(): Promise<Uint8Array> {
    this.told.push('stop');
    if (!this.#sends) this.#beginAnew();
    await new Promise((resolve) => setTimeout(resolve, 2));
    this.runs = false;
    for (const pfn of this.#dirty) {
      this.#round.add(pfn);
      this.#order.push(pfn);
    }
    for (const pfn of this.#round) if (this.#came.has(pfn)) this.#listener.onAwaited(pfn, 1);
    this.#dirty.clear();
    return this.state;
  }

  async resume(): Promise<void> {
    this.told.push('resume');
    this.runs = true;
    this.#sends = false;
  }

  async release(): Promise<void> {
    this.told.push('release');
  }

  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    for (let page = pfn; page < pfn + pages; page++) {
      if (!this.#came.has(page)) throw new Error(`page ${page} was read, and has not come`);
      this.#unread.delete(page);
    }
    memory.set(this.#shadow.subarray(pfn * PAGE, (pfn + pages) * PAGE), offset);
  }

  close(): void {}

  /** It is not there any more. */
  gone(error: Error): void {
    this.#sends = false;
    this.#listener.onGone(error);
  }

  #beginAnew(): void {
    if (this.#came.size > 0) this.#listener.onAwaited(0, this.pages);
    this.#came.clear();
    this.#dirty.clear();
    this.#round = new Set(Array.from({ length: this.pages }, (_, pfn) => pfn));
    this.#order = [...this.#round];
    this.#sends = true;
  }

  #sendOne(): void {
    while (this.#order.length > 0) {
      const pfn = this.#order.shift()!;
      if (!this.#round.delete(pfn)) continue;
      this.#shadow.set(this.memory.subarray(pfn * PAGE, (pfn + 1) * PAGE), pfn * PAGE);
      this.#dirty.delete(pfn);
      this.#came.add(pfn);
      if (this.runs) this.#unread.add(pfn);
      this.mostUnread = Math.max(this.mostUnread, this.#unread.size);
      this.#listener.onPage(pfn);
      if (this.#round.size === 0) break;
      return;
    }
    if (!this.runs || this.#round.size > 0) return;
    this.#listener.onRound(this.#dirty.size);
    this.#round = new Set(this.#dirty);
    this.#order = [...this.#round];
    this.#dirty.clear();
    // Nothing is left: it stands still by itself.
    if (this.#round.size === 0) this.runs = false;
  }
}
