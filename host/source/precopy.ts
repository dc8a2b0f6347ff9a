// Pre-copy: what of a guest is sent while it runs here, in rounds, until the rest fits the downtime that is allowed, or that comes no nearer.
//
//   one that can be read at any time         rounds are ours: what there is to send is sent, then it is asked what it has written to meanwhile
//   one that sends its memory itself         has rounds of its own, and says when one is over

import { type GuestSource, isSending, type TrackedGuest } from '../image/image.js';
import type { Kept } from '../mam/ledger.js';
import type { Mode, Notice } from '../summary.js';
import type { Gang } from './gang.js';
import type { Outgoing } from './outgoing.js';
import { type RoundLimits, Rounds, type Verdict } from './rounds.js';
import { Todo } from './todo.js';

export interface PreCopyOptions {
  readonly mode: Extract<Mode, 'pre-copy' | 'hybrid' | 'auto'>;
  readonly limits: RoundLimits;
  readonly outgoing: Outgoing;
  readonly gang: Gang;
  /** Adds what was written to since it was asked last. */
  askDirty(guest: TrackedGuest, todo?: Todo): Promise<unknown>;
  /** Waits until this is true. @throws {AbdmError} why this VM, or all of it, is over. */
  until(isTrue: () => boolean): Promise<unknown>;
  notice(code: Notice['code'], text: string): void;
  /** A guest that sends its memory itself has said that a round is over. */
  onItsRound(): void;
}

export class PreCopy {
  /** Rounds begun. */
  round = 0;
  readonly #options: PreCopyOptions;
  readonly #rounds: Rounds;
  /** What a guest that sends its memory itself has said at the end of each of its rounds. */
  readonly #itsDirtyPages: number[] = [];

  constructor(options: PreCopyOptions) {
    this.#options = options;
    this.#rounds = new Rounds(options.outgoing.todo.pages, options.limits);
  }

  /** Sends it round after round. How it leaves then: `pre-copy`, all of it is to be elsewhere before it runs there; or `hybrid`. */
  async run(guest: GuestSource): Promise<'pre-copy' | 'hybrid'> {
    const { mode, limits, outgoing, gang, askDirty, notice } = this.#options;
    // What was written before its page is read for the first time comes with it.
    if (!isSending(guest)) await askDirty(guest, new Todo(outgoing.todo.pages));
    outgoing.sendAll();
    if (isSending(guest)) await guest.begin();
    if (mode === 'hybrid') {
      while (this.#rounds.done < limits.rounds && this.#itsDirtyPages.at(-1) !== 0) await this.#round(guest);
      return 'hybrid';
    }
    let warned = false;
    for (let verdict: Verdict = 'again'; verdict === 'again'; ) {
      verdict = await this.#round(guest);
      if (verdict === 'fits' || (verdict === 'again' && this.#rounds.converges)) continue;
      if (!warned) notice('NOT_CONVERGING', this.#describe());
      warned = true;
      if (mode !== 'auto' || !gang.link) continue;
      notice('SWITCHING', 'goes on as post-copy: it runs at the destination, and its pages follow');
      return 'hybrid';
    }
    return 'pre-copy';
  }

  /** A guest that sends its memory itself says that a round is over. */
  itsRoundIsOver(dirtyPages: number): void {
    this.#itsDirtyPages.push(dirtyPages);
    this.#options.onItsRound();
  }

  #round(guest: GuestSource): Promise<Verdict> {
    this.round++;
    this.#options.outgoing.beginRound();
    return isSending(guest) ? this.#itsRound() : this.#ourRound(guest);
  }

  /** Sends what there is to send, and asks what was written to meanwhile. */
  async #ourRound(guest: TrackedGuest): Promise<Verdict> {
    const { outgoing, gang, limits, askDirty, until } = this.#options;
    const { maxDowntimeMs } = limits;
    const { pace, scatter } = gang;
    const restMs = () => pace.msFor(outgoing.bytesOf(outgoing.todo.count));
    await until(() => outgoing.todo.count === 0 && this.#msFor(outgoing.coming()) <= maxDowntimeMs / 2);
    await askDirty(guest);
    // The rest would fit, were it not for what is on its way, of others perhaps: that has to arrive first.
    if (restMs() <= maxDowntimeMs && restMs() + this.#msFor(scatter.underWay()) > maxDowntimeMs) {
      outgoing.hold(true);
      await until(() => this.#msFor(scatter.underWay()) <= maxDowntimeMs / 2);
      await askDirty(guest);
    }
    return this.#rounds.over(outgoing.todo.count, restMs() + this.#msFor(scatter.underWay()));
  }

  /** It sends as fast as that is sent on, but for what it may be ahead. */
  async #itsRound(): Promise<Verdict> {
    const { outgoing, gang, until } = this.#options;
    await until(() => this.#itsDirtyPages.length >= this.round);
    const dirtyPages = this.#itsDirtyPages.at(-1)!;
    // It stands still by itself: there are no others.
    if (dirtyPages === 0) return 'fits';
    const pages = dirtyPages + outgoing.todo.count;
    const restMs = gang.pace.msFor(outgoing.bytesOf(pages)) + this.#msFor(gang.scatter.underWay());
    return this.#rounds.over(pages, restMs);
  }

  /** How long these take that are on their way. */
  #msFor(frames: Iterable<Kept>): number {
    let bytes = 0;
    for (const frame of frames) bytes += frame.bytes;
    return this.#options.gang.pace.msFor(bytes);
  }

  #describe(): string {
    const { outgoing, limits } = this.#options;
    return `after ${this.#rounds.done} rounds ${outgoing.unsentPages} pages are dirty: the guest writes faster than they can be sent within ${limits.maxDowntimeMs} ms`;
  }
}
