// One VM on its way: when it is read, when it stops, when it may run elsewhere. What of it has to be sent is in `outgoing`; what is said of it to the
// destination, and who it belongs to, in `handing`.
//
//   an image that nobody writes to      all pages, and that was it
//
//   a guest, by mode                     rounds, while it runs here     it stops     before it runs there, there are
//     stop                               none                           at once      all its pages
//     pre-copy                           until the rest fits            then         all its pages, or the nodes have them
//     hybrid, post-copy                  so many, or none               then         its execution state alone: pages follow, those first that it waits for
//     auto                               as pre-copy, as long as that converges; otherwise as hybrid
//
// What happens to the link meanwhile: it is told everything again when it is back. A guest that only waits for that goes on here until then, unless the
// nodes can hand it on without a link: they have its execution state where they have all its pages.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { type GuestSource, type ImageSource, isGuestSource, isSending, type TrackedGuest } from '../image/image.js';
import { MAX_STATE_BYTES } from '../mam/catalog.js';
import type { Kept } from '../mam/ledger.js';
import type { Giving } from '../ownership/giving.js';
import { type Mode, reasonOf, type VmStatus, type VmSummary } from '../summary.js';
import { Changes } from './changes.js';
import type { Gang } from './gang.js';
import { Handing } from './handing.js';
import { Outgoing } from './outgoing.js';
import { PreCopy, type PreCopyOptions } from './precopy.js';
import type { RoundLimits } from './rounds.js';
import type { Contender } from './schedule.js';
import type { Todo } from './todo.js';

export interface DepartureOptions {
  readonly vm: number;
  readonly name: string;
  readonly image: ImageSource;
  readonly weight: number;
  readonly mode: Mode;
  /** Null: there are the usual ones. */
  readonly rounds: number | null;
  readonly maxDowntimeMs: number;
}

/** Rounds, at most. */
const PRE_COPY_ROUNDS = 30;
const HYBRID_ROUNDS = 1;
/** A destination that does not take a VM over within this is not waited for, where the nodes can hand it on. */
const CONFIRM_MS = 3_000;

export class Departure implements Contender {
  readonly vm: number;
  readonly image: ImageSource;
  readonly guest: GuestSource | null;
  readonly weight: number;
  readonly outgoing: Outgoing;
  readonly handing: Handing;
  readonly summary: VmSummary;
  /** Why this VM is over. */
  error: AbdmError | null = null;
  readonly #name: string;
  readonly #mode: Mode;
  /** Null: nothing is sent while it runs. */
  readonly #preCopy: PreCopy | null;
  readonly #gang: Gang;
  readonly #changes = new Changes();
  #stopping: Promise<void> | null = null;
  #comingBack: Promise<void> | null = null;
  /** What went wrong besides. */
  #mishap = '';
  #stoppedAt = 0;
  /** It has run elsewhere, or will not yet. */
  #endTurn: () => void = () => {};
  /** How long it stood still before it went on here again. */
  #stoodMs = 0;

  constructor({ vm, name, image, weight, mode, rounds, maxDowntimeMs }: DepartureOptions, gang: Gang) {
    this.vm = vm;
    this.image = image;
    this.guest = isGuestSource(image) ? image : null;
    this.weight = weight;
    this.outgoing = new Outgoing({
      vm,
      image,
      isStill: this.guest === null,
      scatter: () => gang.scatter,
      onTodo: () => gang.onTodo(),
    });
    this.handing = new Handing({
      vm,
      name,
      outgoing: this.outgoing,
      link: () => gang.link,
      nextFrame: () => this.#nextFrame,
      isOver: () => this.error !== null || gang.signal.aborted,
      onFailed: (error) => this.fail(error),
      onRan: () => this.#onRan(),
      onChange: () => this.wake(),
    });
    this.#name = name;
    this.#mode = this.guest ? mode : 'stop';
    this.#gang = gang;
    const limits = { rounds: rounds ?? (mode === 'hybrid' ? HYBRID_ROUNDS : PRE_COPY_ROUNDS), maxDowntimeMs };
    this.#preCopy = this.#mode === 'stop' || this.#mode === 'post-copy' ? null : this.#rounds(this.#mode, limits);
    if (this.guest && isSending(this.guest)) {
      this.guest.listen({
        onPage: (pfn) => this.outgoing.came(pfn),
        onAwaited: (pfn, pages) => this.outgoing.awaits(pfn, pages),
        onRound: (dirtyPages) => this.#preCopy?.itsRoundIsOver(dirtyPages),
        onGone: (cause) => this.fail(asAbdmError(cause)),
      });
    }
    this.summary = {
      name,
      imageBytes: image.bytes,
      pages: image.pages,
      zeroPages: 0,
      duplicatePages: 0,
      compressedPages: 0,
      normalPages: 0,
      exitTimeMs: null,
      totalMigrationTimeMs: null,
      downtimeMs: null,
      verified: null,
      mode: this.guest ? null : 'stop',
      dirtySyncCount: 0,
      postcopyRequests: 0,
      faults: null,
      outcome: 'aborted',
      reason: null,
    };
  }

  get giving(): Giving {
    return this.handing.giving;
  }

  get isReady(): boolean {
    return this.outgoing.isReady;
  }

  get isPressing(): boolean {
    return this.outgoing.isPressing;
  }

  get needsQuiet(): boolean {
    return this.outgoing.needsQuiet;
  }

  /** Until all of it was sent, and it runs elsewhere, or the nodes can hand it on; or it is over. */
  async run(): Promise<void> {
    try {
      // The destination may have refused it before anything was sent.
      this.#check();
      if (this.guest === null) {
        this.outgoing.sendAll();
        if (this.image.pages === 0) this.summary.exitTimeMs = this.#gang.elapsedMs();
        await this.#until(() => this.outgoing.unsentPages === 0);
      } else if ((await this.#sendRunning(this.guest)) === 'whole') await this.#leaveWhole(this.guest);
      else await this.#leaveEarly(this.guest);
    } catch (error) {
      // If all of it is over, this VM is not over alone.
      if (!this.#gang.signal.aborted) this.fail(asAbdmError(error));
    } finally {
      this.#endTurn();
    }
  }

  status(): VmStatus {
    const { name, mode } = this.summary;
    // It goes on only when it says so.
    const state = this.#comingBack ? 'stopped' : this.giving.state;
    return { name, mode, state, round: this.#preCopy?.round ?? 0, dirtyPages: this.outgoing.unsentPages };
  }

  /** A frame is where it should be. */
  onStored({ vm }: Kept): void {
    if (vm === this.vm) this.summary.exitTimeMs = this.#gang.elapsedMs();
    this.#changes.wake();
  }

  /** Something has changed that it may wait for. */
  wake(): void {
    this.#changes.wake();
  }

  /** This VM is over. */
  fail(error: AbdmError): void {
    if (this.error) return;
    this.error = error;
    this.outgoing.end();
    this.#changes.wake();
    this.#gang.onOver(this);
  }

  /** It goes on here, where nobody else can run it. */
  comeBack(): Promise<void> {
    this.#comingBack ??= this.#comeBack().finally(() => {
      this.#comingBack = null;
    });
    return this.#comingBack;
  }

  async #comeBack(): Promise<void> {
    try {
      await this.#stopping;
    } catch {
      // Why is reported by who stopped it.
      this.#mishap = '; it may stand still, though nobody else runs it';
      return;
    }
    if (!this.guest || !this.giving.isOurs || this.giving.state === 'running') return;
    // First, so that what the destination says meanwhile leads nowhere.
    this.giving.resumed();
    this.outgoing.moves();
    this.#stoodMs += performance.now() - this.#stoppedAt;
    try {
      await this.guest.resume();
    } catch (error) {
      this.#mishap = `; and it does not go on here: ${asAbdmError(error).message}`;
      this.fail(asAbdmError(error));
    }
  }

  /** The nodes are about to be told that everything is with them. */
  giveToNodes(): void {
    if (this.guest && !this.error && this.giving.state !== 'left') this.giving.giveToNodes();
  }

  /** How it ended. `error`: why all of it is over; `isInDoubt`: somebody may take everything from the nodes. */
  conclude(error: AbdmError | null, isInDoubt: boolean): VmSummary {
    // Where there are no nodes, nothing is missing to one that has all its pages and runs.
    const isThere = this.#gang.direct && this.giving.state === 'left' && this.outgoing.isSettled;
    const reason = isThere ? null : reasonOf(this.error ?? error);
    if (reason === null) this.summary.outcome = 'completed';
    // One that was over before is not with the nodes.
    else if ((isInDoubt && !this.error) || !this.giving.isOurs) this.summary.outcome = 'paused-recoverable';
    else this.summary.outcome = 'aborted';
    this.summary.reason = reason && { ...reason, message: reason.message + this.#mishap };
    return this.summary;
  }

  /** After `conclude`: lets go of a guest that runs elsewhere. */
  async end(): Promise<void> {
    // Whether it hears that or not: it is not needed any more.
    if (this.guest && this.summary.outcome === 'completed') await this.guest.release().catch(() => {});
  }

  #rounds(mode: PreCopyOptions['mode'], limits: RoundLimits): PreCopy {
    return new PreCopy({
      mode,
      limits,
      outgoing: this.outgoing,
      gang: this.#gang,
      askDirty: (guest, todo) => this.#askDirty(guest, todo),
      until: (isTrue) => this.#until(isTrue),
      notice: (code, text) => this.#gang.notice({ vm: this.#name, code, message: `${this.#name}: ${text}` }),
      onItsRound: () => {
        this.summary.dirtySyncCount++;
        this.wake();
      },
    });
  }

  /** Sends what has to be sent while it runs here. Whether all of it is to be elsewhere before it runs there. */
  async #sendRunning(guest: GuestSource): Promise<'whole' | 'early'> {
    if (this.#preCopy === null) {
      this.summary.mode = this.#mode === 'stop' ? 'stop' : 'post-copy';
      this.outgoing.hold();
      this.outgoing.sendAll();
      return this.#mode === 'stop' ? 'whole' : 'early';
    }
    this.summary.mode = await this.#preCopy.run(guest);
    return this.summary.mode === 'pre-copy' ? 'whole' : 'early';
  }

  /** It stops, and runs elsewhere when all of it is where it should be. */
  async #leaveWhole(guest: GuestSource): Promise<void> {
    const { link, direct, scatter } = this.#gang;
    await this.#stop(guest);
    const atNodes = direct ? null : scatter.putState(this.vm, this.handing.state!);
    // Waited for below, unless this VM is over before.
    atNodes?.catch(() => {});
    this.outgoing.press();
    this.handing.offer();
    await this.#until(() => this.outgoing.unsentPages === 0);
    scatter.hurry(true);
    await this.#until(() => this.outgoing.isSettled);
    scatter.hurry(false);
    this.handing.mayRun();
    if (direct) await this.#isTaken();
    // A destination that merges all of it first, as in mode stop, is not waited for.
    const isEnough = () =>
      !link?.linked || (this.#mode === 'stop' ? !this.giving.isOurs : this.giving.state === 'left');
    await this.#until(isEnough, CONFIRM_MS);
    this.outgoing.letGo();
    await atNodes;
  }

  /** It stops, and runs elsewhere as soon as its execution state is there; then its pages follow. */
  async #leaveEarly(guest: GuestSource): Promise<void> {
    this.outgoing.hold();
    this.handing.mayRun();
    while (this.giving.isOurs) {
      await this.#linked();
      const { turns, answerMs } = this.#gang;
      this.#endTurn = await turns.take();
      await this.#stop(guest);
      this.handing.offer();
      // Stopped again: the link was lost.
      if (!(await this.#until(() => this.giving.state !== 'offered', answerMs))) {
        throw new AbdmError(
          'PEER_UNREACHABLE',
          `the destination did not take ${this.#name} over within ${answerMs} ms`,
        );
      }
      await this.comeBack();
      if (this.giving.isOurs) this.#endTurn();
    }
    this.outgoing.letGo();
    await this.#until(() => this.outgoing.unsentPages === 0);
    await this.#isTaken();
  }

  /** From here on it stands still. */
  async #stop(guest: GuestSource): Promise<void> {
    this.#check();
    if (this.#gang.link && this.#mode !== 'stop') this.#gang.ahead.bound();
    this.#stoppedAt = performance.now();
    this.#stopping = guest.stop().then((state) => {
      this.handing.state = state;
      this.giving.stopped();
    });
    await this.#stopping;
    this.#check();
    const { byteLength } = this.handing.state!;
    if (byteLength < 1 || byteLength > MAX_STATE_BYTES) {
      const text = `the execution state of ${this.#name} has ${byteLength} bytes: it may have 1 to ${MAX_STATE_BYTES}`;
      throw new AbdmError('IMAGE', text);
    }
    // Nothing was sent yet, or nothing has to be asked because all is sent anyway.
    const { todo } = this.outgoing;
    if (!isSending(guest) && todo.count < todo.pages) await this.#askDirty(guest);
    this.outgoing.standsStill(this.#nextFrame);
  }

  #onRan(): void {
    this.#endTurn();
    // It may be said more than once.
    if (this.summary.downtimeMs !== null) return;
    this.summary.downtimeMs = this.#stoodMs + performance.now() - this.#stoppedAt;
    this.summary.exitTimeMs = this.#gang.elapsedMs();
  }

  /** It runs there; or nobody says so. */
  async #isTaken(): Promise<void> {
    const { answerMs } = this.#gang;
    if (await this.#until(() => this.giving.state === 'left', answerMs)) return;
    throw new AbdmError('PEER_UNREACHABLE', `nobody said within ${answerMs} ms that ${this.#name} runs elsewhere`);
  }

  async #linked(): Promise<void> {
    const { link, answerMs } = this.#gang;
    if (await this.#until(() => link!.linked, answerMs)) return;
    throw link!.trouble ?? new AbdmError('PEER_UNREACHABLE', 'the destination is not connected');
  }

  /** Adds what was written to since it was asked last. */
  async #askDirty(guest: TrackedGuest, todo?: Todo): Promise<number> {
    const pages = await this.outgoing.askDirty(guest, todo);
    this.#check();
    this.summary.dirtySyncCount++;
    return pages;
  }

  /** The id that the frame gets that is made next. */
  get #nextFrame(): number {
    return this.#gang.framer.counts.frames + 1;
  }

  #check(): void {
    if (this.error) throw this.error;
    this.#gang.signal.throwIfAborted();
  }

  /** Waits until this is true; with `limitMs` false if it is not by then. @throws {AbdmError} why this VM, or all of it, is over. */
  async #until(isTrue: () => boolean, limitMs = Number.POSITIVE_INFINITY): Promise<boolean> {
    let isLate = false;
    const giveUp = () => {
      isLate = true;
      this.#changes.wake();
    };
    const timer = Number.isFinite(limitMs) ? setTimeout(giveUp, limitMs) : undefined;
    try {
      for (;;) {
        this.#check();
        if (isTrue()) return true;
        if (isLate) return false;
        await this.#changes.next();
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
