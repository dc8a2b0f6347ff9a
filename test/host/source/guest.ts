// A guest in the test's own hands: it writes to its memory while it runs, and says what it was told to do.
import { randomBytes } from 'node:crypto';
import { onTestFinished } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import { layOut, type TrackedGuest } from '#abdm/host/image/image.js';
import { seeded } from '../../engine.js';
import { seededPages } from '../../pages.js';

const PAGE = 4096;
const TICK_MS = 2;

export interface GuestOptions {
  pages?: number;
  kinds?: string[];
  seed?: number;
  /** It writes to so many pages a second, of the first `workingSet`. */
  writesPerS?: number;
  workingSet?: number;
  stateBytes?: number;
}

export class TestGuest implements TrackedGuest {
  readonly guestId = randomBytes(16).toString('hex');
  readonly description = 'a guest of the test';
  readonly memory: Uint8Array;
  readonly regions;
  readonly pages: number;
  readonly bytes: number;
  readonly state: Uint8Array;
  /** What it was told, and what it did: `stop`, `resume`, `release`. */
  readonly told: string[] = [];
  runs = true;
  /** Fails from now on. */
  gone: Error | null = null;
  writes = 0;
  readonly #dirty: Uint8Array;
  readonly #timer: NodeJS.Timeout;

  constructor({
    pages = 2048,
    kinds,
    seed = 1,
    writesPerS = 0,
    workingSet = pages,
    stateBytes = 1000,
  }: GuestOptions = {}) {
    this.memory = seededPages(seed, pages, kinds);
    this.pages = pages;
    this.bytes = pages * PAGE;
    this.regions = layOut([{ name: 'ram', address: 0, bytes: this.bytes }]);
    this.#dirty = new Uint8Array(Math.ceil(pages / 8));
    this.state = new Uint8Array(randomBytes(stateBytes));
    const random = seeded(seed);
    let owed = 0;
    this.#timer = setInterval(() => {
      if (!this.runs) return;
      for (owed += (writesPerS * TICK_MS) / 1000; owed >= 1; owed--) this.touch(random() % workingSet, random());
    }, TICK_MS);
    onTestFinished(() => clearInterval(this.#timer));
  }

  /** It writes to a page. */
  touch(pfn: number, value: number): void {
    new DataView(this.memory.buffer, this.memory.byteOffset).setUint32(pfn * PAGE + 4 * (value % 1024), value, true);
    this.#dirty[pfn >> 3]! |= 1 << (pfn & 7);
    this.writes++;
  }

  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    this.#check();
    memory.set(this.memory.subarray(pfn * PAGE, (pfn + pages) * PAGE), offset);
  }

  async dirty(bitmap: Uint8Array): Promise<void> {
    this.#check();
    await new Promise((resolve) => setTimeout(resolve, 1));
    for (const [i, byte] of this.#dirty.entries()) bitmap[i]! |= byte;
    this.#dirty.fill(0);
  }

  async stop(): Promise<Uint8Array> {
    this.#check();
    this.told.push('stop');
    await new Promise((resolve) => setTimeout(resolve, 2));
    this.runs = false;
    return this.state;
  }

  async resume(): Promise<void> {
    this.#check();
    this.told.push('resume');
    this.runs = true;
  }

  async release(): Promise<void> {
    this.#check();
    this.told.push('release');
  }

  close(): void {}

  #check(): void {
    if (this.gone) throw new AbdmError('IMAGE', this.gone.message);
    if (this.told.at(-1) === 'release') throw new Error('it was released');
  }
}
