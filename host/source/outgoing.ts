// What of one VM has to be sent, and what became of what was: who divides takes from it, and is told here what can be made again.
//
//   awaited  ->  todo  ->  in a frame        a guest that sends its memory itself: until it has, a page is awaited, and cannot be read
//      ^-----------+-----------'             it comes once more

import { PAGE_BYTES } from '../../bindings/abi.js';
import { type ImageSource, isGuestSource, isSending, type SendingGuest, type TrackedGuest } from '../image/image.js';
import type { Kept } from '../mam/ledger.js';
import type { Frame, Scatter } from '../mam/scatter.js';
import { type Pages, Todo } from './todo.js';

export interface OutgoingOptions {
  readonly vm: number;
  readonly image: ImageSource;
  /** Nobody writes to it. */
  readonly isStill: boolean;
  scatter(): Scatter;
  /** There is something to divide. */
  onTodo(): void;
}

/** A guest that sends its memory itself, and runs, is let so far ahead: 8 MiB. What it stopped at then takes as long as sending that does. */
const MAX_AHEAD_PAGES = 2048;
const AHEAD_PAGES = MAX_AHEAD_PAGES / 2;

export class Outgoing {
  /** Pages that have to be sent, and can be read. */
  readonly todo: Todo;
  /** Pages that have to be sent, and cannot be read yet. */
  readonly awaited: Todo;
  readonly #options: OutgoingOptions;
  /** Sends its memory itself; null: it can be read at any time. */
  readonly #sender: SendingGuest | null;
  #isSenderHeld = false;
  /** What is to be done when an awaited page has come. */
  readonly #wanted = new Map<number, () => void>();
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
    this.awaited = new Todo(options.image.pages);
    const { image } = options;
    this.#sender = isGuestSource(image) && isSending(image) ? image : null;
    // It may begin to send before it is its turn.
    if (this.#sender) {
      this.awaited.addAll();
      this.#going = 'held';
    }
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

  /** How many pages have to be sent. */
  get unsentPages(): number {
    return this.todo.count + this.awaited.count;
  }

  /** All of these. */
  get unsent(): Todo {
    const all = new Todo(this.todo.pages);
    all.addBitmap(this.todo.bitmap);
    all.addBitmap(this.awaited.bitmap);
    return all;
  }

  /** Bytes of the image that have been sent, and not been written to since, as far as is known. */
  get doneBytes(): number {
    return this.#isBegun ? Math.max(0, this.#options.image.bytes - this.unsentPages * PAGE_BYTES) : 0;
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
    if (this.unsentPages > 0) return false;
    for (const _ of this.coming()) return false;
    return true;
  }

  /** Its frames that nobody has yet. */
  *coming(): Iterable<Kept> {
    for (const frame of this.#options.scatter().underWay()) if (frame.vm === this.#options.vm) yield frame;
  }

  sendAll(): void {
    this.#isBegun = true;
    if (!this.#sender) this.todo.addAll();
    this.#options.onTodo();
  }

  /** A page of a guest that sends its memory itself has come. */
  came(pfn: number): void {
    if (this.#isOver) return;
    this.awaited.delete(pfn);
    this.todo.add(pfn);
    if (this.todo.count > MAX_AHEAD_PAGES) this.#holdSender(true);
    const onCame = this.#wanted.get(pfn);
    this.#wanted.delete(pfn);
    onCame?.();
    this.#options.onTodo();
  }

  /** Pages come, or come once more: what there was of them does not count. */
  awaits(pfn: number, pages: number): void {
    if (this.#isOver) return;
    for (let page = pfn; page < pfn + pages; page++) {
      this.todo.delete(page);
      this.awaited.add(page);
    }
  }

  /** Somebody waits for this page, which is awaited; `onCame` is called when it can be read. */
  want(pfn: number, onCame: () => void): void {
    if (!this.#wanted.has(pfn)) this.#sender!.want(pfn);
    this.#wanted.set(pfn, onCame);
  }

  /** Of these pages, those that can be read; null: none. */
  readable(some: readonly number[]): Pages | null {
    const pfns = [...new Set(some)].filter((pfn) => !this.awaited.has(pfn)).sort((a, b) => a - b);
    if (pfns.length === 0) return null;
    const base = pfns[0]!;
    const isRun = pfns.at(-1)! - base === pfns.length - 1;
    return { base, pages: pfns.length, deltas: isRun ? undefined : Uint16Array.from(pfns, (pfn) => pfn - base) };
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
    // Nobody waits for pages of a guest that goes on here.
    this.#wanted.clear();
    if (this.#going !== 'held') this.letGo();
  }

  /** Its memory stood still when this frame was made, and still does; and nobody has another making of it. */
  canMakeAgain({ id, isDoubtful }: Kept): boolean {
    return !this.#isOver && id >= this.#stillFrom && !isDoubtful;
  }

  /** The frame that page `pfn` is in, or was in last. */
  newest(pfn: number): Kept | undefined {
    return this.#options.scatter().ledger.get(this.#newest[pfn]!);
  }

  /** How long what is on its way straight to the destination takes, in milliseconds, as far as one can tell. */
  get straightMs(): number {
    return this.#options.scatter().mam.destination?.window.drainMs ?? Number.POSITIVE_INFINITY;
  }

  /** Pages of it are in these frames now. */
  sent(frames: readonly Frame[]): void {
    for (const { id, base, pages, deltas, bytes } of frames) {
      for (let i = 0; i < pages; i++) this.#newest[base + (deltas ? deltas[i]! : i)] = id;
      this.#round.pages += pages;
      this.#round.bytes += bytes.byteLength;
    }
    if (this.todo.count < AHEAD_PAGES) this.#holdSender(false);
    if (this.unsentPages === 0) this.#replaced();
  }

  /** Nobody has this frame any more, or can read it, and it cannot be made again: pages that are in no later one are sent once more. */
  sendInstead(frame: Kept): void {
    const { id, base, pages, deltas } = frame;
    this.#void.push(frame);
    for (let i = 0; i < pages && !this.#isOver; i++) {
      const pfn = base + (deltas ? deltas[i]! : i);
      if (this.#newest[pfn] === id && !this.awaited.has(pfn)) this.todo.add(pfn);
    }
    if (this.unsentPages === 0) this.#replaced();
    else this.#options.onTodo();
  }

  /** Nothing more is sent. */
  end(): void {
    this.#isOver = true;
    this.todo.clear();
    this.awaited.clear();
    this.#wanted.clear();
    this.letGo();
    this.#replaced();
  }

  #go(going: 'on' | 'held' | 'quiet' | 'pressing'): void {
    this.#going = going;
    this.#options.onTodo();
  }

  #holdSender(isHeld: boolean): void {
    if (isHeld === this.#isSenderHeld) return;
    this.#isSenderHeld = isHeld;
    this.#sender?.hold(isHeld);
  }

  #replaced(): void {
    const frames = this.#void;
    this.#void = [];
    if (frames.length > 0) this.#options.scatter().void(frames);
  }
}
