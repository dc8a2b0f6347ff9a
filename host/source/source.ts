// The source: reads images straight into the engine's memory, divides them, and scatters the frames over the nodes (host/mam/scatter.ts). The exit is when
// the last frame and the index of all of them are where they should be, and every guest runs elsewhere or can be run from the nodes; then the source may
// go, whether there is a destination or not.
//
//   departure.ts     one VM: its rounds (precopy.ts), when it stops, when it may run elsewhere
//   division.ts      pages become frames: whose turn it is (schedule.ts), what somebody waits for (requests.ts), what was lost
//   link.ts          what the destination is told, and says
//
// What may go wrong before the exit, and what becomes of it:
//   a node refuses a frame, is silent, or is gone      the frame goes to others
//   all nodes that had a frame are gone                it is divided again; if its guest has written to it since, its pages are sent in other frames
//   the destination is gone                            scattering goes on, and it is told everything when it comes back; if not, the VM waits at the nodes
//   one VM fails: its guest is gone, say               it alone is over, and the others go on
//   the destination gives up, or the operator          aborted; what was given away before goes on, if it is the operator
//   no node has room, for 10 s                         aborted: NO_ROOM
//   the image cannot be read                           aborted: IMAGE, that VM
//   any of these when the nodes know already,          paused-recoverable: the destination may go on without us, so nothing is taken away
//     or a guest was given away
// Aborted means: the destination is told why, the nodes are told to forget the frames, and the VM stays here, as it was, and runs if it ran.
//
// With no nodes (direct) everything goes straight to the destination, and whatever happens to it aborts the migration; but for guests that were given away, whose pages
// nobody else has: for their sake it is waited for.

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Framer } from '../mam/framer.js';
import type { NodeIndex } from '../mam/index.js';
import type { Kept } from '../mam/ledger.js';
import type { Scatter } from '../mam/scatter.js';
import { type Mode, type Notice, reasonOf, type Status, type Summary, usage, type VmSummary } from '../summary.js';
import { RateLimit } from '../wire/rate.js';
import { OPEN } from '../wire/security.js';
import { Ahead } from './ahead.js';
import { Departure } from './departure.js';
import { Division } from './division.js';
import type { Gang } from './gang.js';
import { DestinationLink } from './link.js';
import { open } from './opening.js';
import { checkOptions, type EjectOptions, isDirect, isLive, modeOf, takesStraight } from './options.js';
import { Pace } from './pace.js';
import { Turns } from './turns.js';

export type { EjectOptions } from './options.js';

const ANSWER_MS = 30_000;
const MAX_DOWNTIME_MS = 300;
/** Without nodes, a destination that was given a guest may be away for so long; it waits as long for us. */
const RETURN_MS = 10_000;
/** A destination that does not confirm the exit within this is not waited for, where there are nodes. */
const CONFIRM_MS = 3_000;
/** How long a destination is given to hear why the migration is over, before the nodes forget the frames. */
const FAIL_MS = 500;
/** As bad as the worst of its VMs. */
const WORST_FIRST = ['paused-recoverable', 'aborted', 'completed'] as const;

/** A migration as its source sees it. Create, then `run` once. The images stay open; they are the caller's. */
export class Ejection {
  readonly #options: EjectOptions;
  readonly #mode: Mode;
  readonly #direct: boolean;
  readonly #answerMs: number;
  readonly #started = performance.now();
  readonly #departures: readonly Departure[];
  readonly #limit: RateLimit;
  readonly #pace = new Pace();
  readonly #turns = new Turns();
  #ahead: Ahead | null = null;
  /** Aborts the run: by `cancel`, a destination that gives up, or a frame that no node takes. */
  readonly #abort = new AbortController();
  readonly #notices: Notice[] = [];
  #phase: Status['phase'] = 'preparing';
  #frameBytes = 0;
  #exitTimeMs: number | null = null;
  /** The nodes were told that all of it is there. */
  #committed = false;
  /** The destination has said that it will not run it. */
  #givenUp = false;
  #index: NodeIndex | null = null;
  #scatter: Scatter | null = null;
  #framer: Framer | null = null;
  #division: Division | null = null;
  #link: DestinationLink | null = null;

  /** @throws {AbdmError} USAGE if the options do not fit each other. */
  constructor(options: EjectOptions) {
    checkOptions(options);
    this.#options = options;
    this.#mode = modeOf(options);
    this.#direct = isDirect(options);
    this.#answerMs = options.answerMs ?? ANSWER_MS;
    this.#limit = new RateLimit(options.rateBytesPerS);
    const { vms, rounds = null, maxDowntimeMs = MAX_DOWNTIME_MS } = options;
    const gang = this.#gang();
    this.#departures = vms.map(({ name, image, priority = 1 }, vm) => {
      return new Departure({ vm, name, image, weight: priority, mode: this.#mode, rounds, maxDowntimeMs }, gang);
    });
  }

  /** How far it has come. */
  status(): Status {
    const trouble = this.#link?.trouble;
    const sum = (of: (departure: Departure) => number) => this.#departures.reduce((all, one) => all + of(one), 0);
    return {
      phase: this.#phase,
      doneBytes: sum(({ outgoing }) => outgoing.doneBytes),
      totalBytes: sum(({ image }) => image.bytes),
      wireBytes: this.#frameBytes,
      mergedBytes: this.#link?.mergedBytes ?? null,
      rateBytesPerS: this.#limit.bytesPerS,
      nodes: this.#scatter?.mam.shares ?? [],
      vms: this.#departures.map((departure) => departure.status()),
      warnings: [
        ...(trouble ? [trouble.message] : []),
        ...(this.#scatter?.mam.warnings ?? []),
        ...this.#notices.map(({ message }) => message),
      ],
      reason: reasonOf((this.#abort.signal.reason as AbdmError | undefined) ?? null),
    };
  }

  /** Bytes of frames a second from now on; null: no limit. */
  setRate(bytesPerS: number | null): void {
    this.#limit.set(bytesPerS);
    this.#division?.wake();
  }

  /**
   * Ends it as aborted, as soon as the batch at hand is done: nothing stays at the nodes, the images are as they were, guests go on. VMs that others may have
   * taken over by then go on leaving, and the others stay. Returns which stay; none, and nothing happens, if it is too late for all of them.
   */
  cancel(reason = 'cancelled'): string[] {
    const error = new AbdmError('CANCELLED', reason);
    const ours = this.#committed ? [] : this.#departures.filter(({ giving }) => giving.isOurs);
    if (ours.length === this.#departures.length) this.#fail(error);
    else for (const departure of ours) departure.fail(error);
    return ours.map(({ summary }) => summary.name);
  }

  /** Others may have taken over, one VM at least: there is no way back by ourselves. */
  get committed(): boolean {
    return this.#committed || this.#departures.some(({ giving }) => !giving.isOurs);
  }

  /** Others may have taken over this VM: what was stopped for its image must not go on while the end is not known. */
  isInDoubt(vm: number): boolean {
    const { giving, summary } = this.#departures[vm]!;
    if (this.#phase === 'done') return summary.outcome === 'paused-recoverable';
    return this.#committed || !giving.isOurs;
  }

  /** Migrates. Never throws for what may happen to a migration: the summary says what did. */
  async run(): Promise<Summary> {
    let error: AbdmError | null = null;
    try {
      await this.#migrate();
    } catch (cause) {
      // What broke first is the reason; what follows from it is not.
      error = this.#abort.signal.aborted ? (this.#abort.signal.reason as AbdmError) : asAbdmError(cause);
      this.#fail(error);
    }
    // Nobody else can run these: RUN was not said, and the nodes were not told.
    await Promise.all(this.#departures.map((departure) => departure.comeBack()));
    if (error) await this.#goBack(error);
    const vms = this.#departures.map((departure) => departure.conclude(error, this.#isInDoubt));
    await Promise.all(this.#departures.map((departure) => departure.end()));
    this.#phase = 'done';
    this.#division?.end();
    this.#link?.end();
    this.#scatter?.end();
    this.#index?.close();
    return this.#summary(vms, error);
  }

  async #migrate(): Promise<void> {
    const { to, security = OPEN } = this.#options;
    const live = isLive(this.#options);
    const opened = await open(this.#options, {
      onGiven: ({ id }, straight) => {
        if (straight && live) this.#framer!.setUnfetchable(id);
      },
      onStored: (frame) => this.#onStored(frame),
      onVoid: (frame) => this.#link?.voided(frame),
      onLost: (frames) => this.#division!.lost(frames),
      onError: (error) => this.#fail(error),
      onFree: () => this.#division?.wake(),
      // Asked from the first moment, when there is no framer yet.
      leftBytes: () => {
        const pages = this.#departures.reduce((sum, { outgoing }) => sum + outgoing.unsentPages, 0);
        return this.#framer?.bytesFor(pages) ?? 0;
      },
    });
    const { index, scatter, framer, migration, announcement } = opened;
    this.#index = index;
    this.#scatter = scatter;
    this.#ahead = new Ahead(scatter);
    this.#framer = framer;
    this.#division = new Division({
      departures: this.#departures,
      framer,
      scatter,
      limit: this.#limit,
      pace: this.#pace,
      ahead: this.#ahead,
      fetchable: live && !this.#direct,
      signal: this.#abort.signal,
    });
    if (to !== undefined) {
      this.#link = new DestinationLink({
        to,
        migration,
        security,
        patienceMs: () => (!this.#direct ? null : this.committed ? Math.min(RETURN_MS, this.#answerMs) : 0),
        signal: this.#abort.signal,
        announcement: () => ({
          ...announcement,
          nodes: scatter.mam.members.map(({ address, id }) => ({ address, id })),
          elapsedMs: this.#elapsedMs(),
        }),
        kept: () => (this.#direct ? [] : scatter.ledger.kept()),
        voided: () => scatter.ledger.voided(),
        events: {
          onLoaded: (vm, guest) => this.#departures[vm]!.handing.onLoaded(guest),
          onRunning: (vm) => this.#departures[vm]!.handing.onRunning(),
          onFault: (vm, pfns) => this.#onFault(this.#departures[vm]!, pfns),
          onVmOver: (vm, error) => this.#departures[vm]!.handing.onOver(error),
        },
        onReady: (reports) => {
          if (takesStraight(this.#options)) scatter.addDestination(to);
          for (const departure of this.#departures) {
            if (departure.error) this.#link!.vmOver(departure.vm, departure.error);
            else if (departure.guest) departure.handing.onLinked(reports[departure.vm] ?? null);
          }
        },
        onBroken: () => {
          for (const departure of this.#departures) departure.handing.onLinkLost();
        },
        onForgotten: () => scatter.loseDestination(),
        onOver: (error) => {
          this.#givenUp = true;
          this.#fail(error);
        },
      });
    }
    const ready = this.#direct ? null : this.#unlessOver(scatter.ready(this.#abort.signal));
    await Promise.all([this.#link?.connect(), ready]);
    // While the nodes hear what is coming the destination makes itself ready for it: each takes some milliseconds.
    const announced = this.#link && this.#answered(this.#link.announce(), 'say that it is ready');
    await Promise.all([this.#unlessOver(scatter.begin()), announced]);

    this.#phase = 'dividing';
    this.#division.run().catch((error) => this.#fail(asAbdmError(error)));
    await Promise.all(this.#departures.map((departure) => departure.run()));
    this.#abort.signal.throwIfAborted();
    if (!this.#direct) this.#link?.waitNoLonger();
    await this.#finish();
    await this.#confirm();
  }

  /** Until everything is where it should be: the exit. */
  async #finish(): Promise<void> {
    await this.#scatter!.finish(this.#abort.signal, () => {
      this.#committed = true;
      for (const departure of this.#departures) departure.giveToNodes();
    });
    this.#exitTimeMs = this.#elapsedMs();
  }

  /**
   * The destination is told that this was all. Where there are nodes it need not be there to hear it, for it will find everything there; but then what only
   * it has goes there too.
   */
  async #confirm(): Promise<void> {
    if (!this.#link) return;
    const told = this.#link.divided(this.#scatter!.ledger.size);
    const what = 'confirm that it knows where the frames are';
    if (this.#direct) return this.#answered(told, what);
    try {
      await this.#answered(told, what, CONFIRM_MS);
    } catch {
      this.#abort.signal.throwIfAborted();
      if (this.#scatter!.loseDestination()) await this.#finish();
    }
  }

  /** It is over: nothing stays elsewhere of what is ours. */
  async #goBack(error: AbdmError): Promise<void> {
    if (this.committed && !(this.#givenUp && this.#departures.every(({ giving }) => giving.isOurs))) {
      // Somebody else may be about to run one: nothing is taken away from him.
      if (!this.#committed)
        for (const { vm, giving } of this.#departures) if (giving.isOurs) this.#link?.vmOver(vm, error);
      return;
    }
    // The destination first: it would find frames missing otherwise, and take that for the reason.
    await Promise.race([this.#link?.fail(error), sleep(FAIL_MS)]);
    await this.#scatter?.drop();
  }

  /** What the VMs share; most of it comes only when the migration runs. */
  #gang(): Gang {
    const ejection = this;
    return {
      get link() {
        return ejection.#link;
      },
      get scatter() {
        return ejection.#scatter!;
      },
      get framer() {
        return ejection.#framer!;
      },
      get ahead() {
        return ejection.#ahead!;
      },
      pace: this.#pace,
      turns: this.#turns,
      direct: this.#direct,
      answerMs: this.#answerMs,
      signal: this.#abort.signal,
      onTodo: () => this.#division?.wake(),
      onOver: (departure) => this.#onOver(departure),
      notice: (notice) => {
        this.#notices.push(notice);
        this.#options.onNotice?.(notice);
      },
      elapsedMs: () => this.#elapsedMs(),
    };
  }

  /** One VM is over; when it was the last, all of it is. */
  #onOver(departure: Departure): void {
    const error = departure.error!;
    if (this.#departures.every(({ error }) => error)) return this.#fail(error);
    this.#division?.over(departure);
    this.#scatter?.leaveOut(departure.vm);
    this.#link?.vmOver(departure.vm, error);
    void departure.comeBack();
  }

  #onStored(frame: Kept): void {
    this.#frameBytes += frame.bytes;
    this.#link?.record(frame);
    const isLast = this.#scatter!.ledger.isIdle && !this.#departures.some(({ isReady }) => isReady);
    this.#pace.acknowledged(frame.bytes, isLast);
    for (const departure of this.#departures) departure.onStored(frame);
  }

  #onFault(departure: Departure, pfns: readonly number[]): void {
    if (departure.error) return;
    departure.summary.postcopyRequests += pfns.length;
    this.#ahead!.fault(this.#division!.hasTime);
    this.#division!.requests.ask(departure, pfns);
    this.#division!.wake();
  }

  /** The destination's answer; or why it is not waited for any longer. */
  async #answered(answer: Promise<void>, what: string, answerMs = this.#answerMs): Promise<void> {
    const { to } = this.#options;
    const { signal } = this.#abort;
    // Nobody may be left to hear of it.
    answer.catch(() => {});
    signal.throwIfAborted();
    const given = new AbortController();
    try {
      await Promise.race([
        answer,
        sleep(answerMs, undefined, { signal: AbortSignal.any([signal, given.signal]) }).then(() => {
          throw new AbdmError('PEER_UNREACHABLE', `${to} did not ${what} within ${answerMs} ms`);
        }),
      ]);
    } finally {
      given.abort();
    }
  }

  /** Waits for `work` unless the migration is over first. @throws {AbdmError} what it throws, or why it is over. */
  #unlessOver(work: Promise<void>): Promise<void> {
    const { signal } = this.#abort;
    const over = new Promise<void>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    return Promise.race([work, over]);
  }

  /** The nodes were told that all of it is there, and then it broke. */
  get #isInDoubt(): boolean {
    return this.#committed && !this.#givenUp;
  }

  #fail(error: AbdmError): void {
    if (!this.#abort.signal.aborted) this.#abort.abort(error);
    this.#division?.wake();
    for (const departure of this.#departures) departure.wake();
  }

  #elapsedMs(): number {
    return performance.now() - this.#started;
  }

  #summary(vms: VmSummary[], error: AbdmError | null): Summary {
    const { park, replicas = 1 } = this.#options;
    const outcomes = vms.map(({ outcome }) => outcome);
    return {
      type: 'summary',
      role: 'source',
      outcome: WORST_FIRST.find((outcome) => outcomes.includes(outcome))!,
      reason: reasonOf(error) ?? vms.find(({ reason }) => reason)?.reason ?? null,
      mode: this.#mode,
      direct: this.#direct,
      vms,
      exitTimeMs: error ? null : this.#exitTimeMs,
      totalMigrationTimeMs: null,
      wireBytes: { source: (this.#scatter?.mam.bytesOut ?? 0) + (this.#link?.bytesOut ?? 0), destination: null },
      nodes: this.#scatter?.mam.shares ?? [],
      replicas: this.#direct ? 0 : replicas,
      parked: park !== undefined,
      resent: this.#scatter?.resent ?? 0,
      ...usage(),
    };
  }
}
