// What of one VM has to be sent, and what became of what was: who divides takes from it, and is told here what can be made again.

import { PAGE_BYTES } from '../../bindings/abi.js';
import type { ImageSource, TrackedGuest } from '../image/image.js';
import type { Kept } from '../mam/ledger.js';
import type { Frame, Scatter } from '../mam/scatter.js';
import { Todo } from './todo.js';

export interface OutgoingOptions {
  readonly vm: number;
  readonly image: ImageSource;
  /** Nobody writes to it. */
  readonly isStill: boolean;
  scatter(): Scatter;
  /** There is something to divide. */
  onTodo(): void;
}

export class Outgoing {
  readonly todo: Todo;
  readonly #options: OutgoingOptions;
  /** By page: the frame that it is in, or was in last. */
  readonly #newest: Float64Array;
  /** Frames from this id on are of memory that stands still. */
  #stillFrom: number;
  /** It was sent while it was written to. */
  #wasRunning = false;
  #isBegun = false;
  #going: 'on' | 'held' | 'quiet' | 'pressing' = 'on';
  #isOver = false;
  /** Frames that never come, as soon as what has to come instead is on its way. */
  #void: Kept[] = [];
  /** What was sent in the present round. */
  #round = { pages: 0, bytes: 0 };
  /** What a page takes that was written to, as the last round says. */
  #pageBytes = PAGE_BYTES;

  constructor(options: OutgoingOptions) {
    this.#options = options;
    this.todo = new Todo(options.image.pages);
    this.#newest = new Float64Array(options.image.pages);
    this.#stillFrom = options.isStill ? 0 : Number.POSITIVE_INFINITY;
  }

  /** There is something to send now. */
  get isReady(): boolean {
    return this.todo.count > 0 && (this.#going === 'on' || this.#going === 'pressing');
  }

  /** See Contender. */
  get isPressing(): boolean {
    return this.#going === 'pressing';
  }

  get needsQuiet(): boolean {
    return this.#going === 'quiet';
  }

  /** Bytes of the image that have been sent, and not been written to since, as far as is known. */
  get doneBytes(): number {
    return this.#isBegun ? Math.max(0, this.#options.image.bytes - this.todo.count * PAGE_BYTES) : 0;
  }

  get isStill(): boolean {
    return this.#stillFrom < Number.POSITIVE_INFINITY;
  }

  /**
   * What is sent now takes the place of what was sent while it was written to, of which the destination puts nothing in place any more that it does not have
   * yet: so it could not make a duplicate of it.
   */
  get isAlone(): boolean {
    return this.#wasRunning && this.isStill;
  }

  /** Everything was sent, and is where it should be. */
  get isSettled(): boolean {
    if (this.todo.count > 0) return false;
    for (const _ of this.coming()) return false;
    return true;
  }

  /** Its frames that nobody has yet. */
  *coming(): Iterable<Kept> {
    for (const frame of this.#options.scatter().underWay()) if (frame.vm === this.#options.vm) yield frame;
  }

  sendAll(): void {
    this.#isBegun = true;
    this.todo.addAll();
    this.#options.onTodo();
  }

  /** Nothing is sent for now, as something else goes first; with `quiet` nothing of others either, since what is on its way has to arrive first. */
  hold(quiet = false): void {
    this.#go(quiet ? 'quiet' : 'held');
  }

  /** What is to be sent is waited for by a guest that stands still. */
  press(): void {
    this.#go('pressing');
  }

  /** All as usual. */
  letGo(): void {
    this.#go('on');
  }

  /** Begins a round; the last one has sent what had been written to. */
  beginRound(): void {
    const { pages, bytes } = this.#round;
    if (this.#wasRunning && pages > 0) this.#pageBytes = bytes / pages;
    this.#round = { pages: 0, bytes: 0 };
    this.#wasRunning = true;
    this.letGo();
  }

  /** What so many pages take that were written to. */
  bytesOf(dirtyPages: number): number {
    return dirtyPages * this.#pageBytes;
  }

  /** Adds to `todo` what was written to since the guest was asked last. Returns how many pages that are. */
  async askDirty(guest: TrackedGuest, todo = this.todo): Promise<number> {
    const bitmap = new Uint8Array(todo.bitmap.byteLength);
    await guest.dirty(bitmap);
    return todo.addBitmap(bitmap);
  }

  /** From the frame on that is made next, its memory stands still. */
  standsStill(nextFrame: number): void {
    this.#stillFrom = nextFrame;
  }

  /** It is written to again. */
  moves(): void {
    this.#stillFrom = Number.POSITIVE_INFINITY;
    if (this.#going !== 'held') this.letGo();
  }

  /** Its memory stood still when this frame was made, and still does. */
  canMakeAgain({ id }: Kept): boolean {
    return !this.#isOver && id >= this.#stillFrom;
  }

  /** The frame that page `pfn` is in, or was in last. */
  newest(pfn: number): Kept | undefined {
    return this.#options.scatter().ledger.get(this.#newest[pfn]!);
  }

  /** Pages of it are in these frames now. */
  sent(frames: readonly Frame[]): void {
    for (const { id, base, pages, deltas, bytes } of frames) {
      for (let i = 0; i < pages; i++) this.#newest[base + (deltas ? deltas[i]! : i)] = id;
      this.#round.pages += pages;
      this.#round.bytes += bytes.byteLength;
    }
    if (this.todo.count === 0) this.#replaced();
  }

  /** Nobody has this frame any more, or can read it, and it cannot be made again: pages that are in no later one are sent once more. */
  sendInstead(frame: Kept): void {
    const { id, base, pages, deltas } = frame;
    this.#void.push(frame);
    for (let i = 0; i < pages && !this.#isOver; i++) {
      const pfn = base + (deltas ? deltas[i]! : i);
      if (this.#newest[pfn] === id) this.todo.add(pfn);
    }
    if (this.todo.count === 0) this.#replaced();
    else this.#options.onTodo();
  }

  /** Nothing more is sent. */
  end(): void {
    this.#isOver = true;
    this.todo.clear();
    this.letGo();
    this.#replaced();
  }

  #go(going: 'on' | 'held' | 'quiet' | 'pressing'): void {
    this.#going = going;
    this.#options.onTodo();
  }

  #replaced(): void {
    const frames = this.#void;
    this.#void = [];
    if (frames.length > 0) this.#options.scatter().void(frames);
  }
}
