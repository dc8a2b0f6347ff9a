// One life of a node, as somebody who puts blocks sees it: how much may be sent to it, and whether anything should be.
//
//            it was asked, and is silent; others cannot reach it
//     up  ----------------------------------------------------->  suspect        nothing is put to it, and it is asked whether it is there
//      ^                                                             |
//      +---------------------- it answers ---------------------------+           gone: see MamNode. What comes back is another member
//
// What it had acknowledged counts until it is gone.

import { setTimeout as sleep } from 'node:timers/promises';
import type { FrameKeeper } from './keeper.js';
import { Window, type WindowLimits } from './window.js';

/** A node that had no room is not asked again before this. */
const PASS_OVER_MS = 1_000;
/** How long a suspect may take to say that it is there. */
const PING_MS = 1_000;

export class Member {
  readonly address: string;
  readonly window: Window;
  /** What it has acknowledged, as the first of a chain or behind others. */
  readonly stored = { frames: 0, bytes: 0 };
  readonly node: FrameKeeper;
  readonly #onChange: () => void;
  #freeBytes: number;
  #toldAt = performance.now();
  #fullUntil = 0;
  #suspect = false;

  /** `onChange` is called when it is trusted again. */
  constructor(node: FrameKeeper, limits: WindowLimits, onChange: () => void) {
    this.address = node.address;
    this.window = new Window(limits);
    this.node = node;
    this.#freeBytes = node.freeBytes;
    this.#onChange = onChange;
  }

  /** 32 hex digits; empty for a destination. */
  get id(): string {
    return this.node.id;
  }

  get up(): boolean {
    return this.node.open && !this.#suspect;
  }

  get gone(): boolean {
    return this.node.gone !== null;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** It has so many bytes free, by its own word. */
  tell(freeBytes: number): void {
    this.#freeBytes = freeBytes;
    this.#toldAt = performance.now();
  }

  /** It did not take a block for want of room; perhaps it will later. */
  full(): void {
    this.#fullUntil = performance.now() + PASS_OVER_MS;
  }

  /** It does not do what it should. Nothing is put to it until it answers, and not before `atLeastMs` have passed. */
  suspect(atLeastMs = 0): void {
    if (this.#suspect || this.gone) return;
    this.#suspect = true;
    void this.#probe(atLeastMs);
  }

  /**
   * Whether it could be given so many bytes, were its window open. A node that had too little when it last said so is tried now and then, with one
   * block: others may have left it since.
   */
  takes(bytes: number): boolean {
    const now = performance.now();
    if (!this.up || now < this.#fullUntil) return false;
    if (this.#freeBytes - this.window.outstandingBytes >= bytes) return true;
    return this.window.outstandingBytes === 0 && now - this.#toldAt > PASS_OVER_MS;
  }

  /** For people: how it stands. */
  describe(): string {
    const state = this.gone ? 'gone' : this.up ? `${this.#freeBytes} bytes free` : 'does not answer';
    return `${this.address} (${state}, keeps ${this.stored.bytes})`;
  }

  async #probe(atLeastMs: number): Promise<void> {
    await sleep(atLeastMs, undefined, { ref: false });
    while (!this.gone) {
      const askedAt = performance.now();
      if (await this.node.ping(PING_MS)) break;
      // A ping that fails at once is no reason to ask again at once.
      await sleep(Math.max(0, askedAt + PING_MS - performance.now()), undefined, { ref: false });
    }
    this.#suspect = false;
    this.#onChange();
  }
}
