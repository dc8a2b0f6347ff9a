// The source's link to the destination, over one connection after the other. It is the fast path, and no more: what it says also lies at the nodes. So
// where there are nodes, a connection that breaks ends nothing: the next one, tried twice a second, is told everything again. Without nodes it ends everything, unless a
// guest was given away: its pages are nowhere else, so that the destination is waited for, as long as that waits for us.
//
//               it breaks, or nobody is there                 the destination says ERROR
//    linked  ---------------------------------->  broken      ---------------------------->  over: the migration is aborted
//      ^                                            |
//      +---- connected, READY, all records again ---+

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Kept } from '../mam/ledger.js';
import type { Report } from '../ownership/giving.js';
import type { Security } from '../wire/security.js';
import { type Announcement, type DestinationEvents, type Handover, SourceControl } from './control.js';

const RETRY_MS = 500;
/** A destination may be away for so long before what only it has is counted as lost. */
const AWAY_MS = 2_000;

export interface LinkOptions {
  readonly to: string;
  readonly migration: string;
  readonly security?: Security | undefined;
  /** What IMAGES says at this moment. */
  readonly announcement: () => Announcement;
  /** What there is to tell a destination that knows nothing yet. */
  readonly kept: () => Iterable<Kept>;
  readonly voided: () => Iterable<Kept>;
  /** How long the destination may be away before it is over; null: for ever, for nodes have what it needs. */
  readonly patienceMs: () => number | null;
  readonly events: DestinationEvents;
  /** It takes frames from now on; and how each VM stands there. */
  readonly onReady: (reports: readonly (Report | null)[]) => void;
  /** Nobody is linked any more. */
  readonly onBroken: () => void;
  /** What it had merged is gone: it was started again, or is away for too long. */
  readonly onForgotten: () => void;
  /** It has ended the migration, or is away for too long. */
  readonly onOver: (error: AbdmError) => void;
  /** Aborted, nobody is waited for any more. */
  readonly signal: AbortSignal;
}

export class DestinationLink {
  /** What the destination last said it had merged. */
  mergedBytes: number | null = null;
  /** Why nobody is linked; null while somebody is. */
  trouble: AbdmError | null = null;
  readonly #options: LinkOptions;
  #control: SourceControl | null = null;
  #linked = false;
  #id: string | null = null;
  #away: NodeJS.Timeout | undefined;
  /** Runs while it is away, and not for ever. */
  #patience: NodeJS.Timeout | undefined;
  /** How long a destination may be away. */
  #awayMs = AWAY_MS;
  #bytesOut = 0;
  readonly #end = new AbortController();

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  get linked(): boolean {
    return this.#linked;
  }

  get bytesOut(): number {
    return this.#bytesOut + (this.#control?.bytesOut ?? 0);
  }

  /** Tells where a frame is, if somebody listens. */
  record(frame: Kept): void {
    if (this.#linked) this.#control!.record(frame);
  }

  /** Tells that a frame never comes, if somebody listens. */
  voided(frame: Kept): void {
    if (this.#linked) this.#control!.voided(frame);
  }

  /** Tells what a guest needs to run there. Only while linked. */
  handOver(handover: Handover): void {
    this.#control!.handOver(handover);
  }

  /** RUN. Only while linked. */
  run(vm: number): void {
    this.#control!.run(vm);
  }

  /** This VM never comes, if somebody listens. */
  vmOver(vm: number, error: AbdmError): void {
    if (this.#linked) this.#control!.vmOver(vm, error);
  }

  /** The exit is near: what only a destination has that is away, or goes away from now on, is counted as lost at once. */
  waitNoLonger(): void {
    this.#awayMs = 0;
    if (!this.#linked) this.#options.onForgotten();
  }

  /** That was all. @throws {AbdmError} if the destination cannot be told, or ends it. */
  async divided(frames: number): Promise<void> {
    for (;;) {
      try {
        if (this.#linked) return await this.#control!.divided(frames);
        throw this.trouble ?? new AbdmError('PEER_GONE', `${this.#options.to} is not connected`);
      } catch (error) {
        // Where nobody else can tell it, it is told when it is back.
        if (this.#patience === undefined || this.#ended) throw error;
        await sleep(RETRY_MS);
      }
    }
  }

  /** Tells the destination why the migration is over, if it can be told. */
  async fail(error: AbdmError): Promise<void> {
    this.#stop();
    await this.#control?.fail(error);
  }

  end(): void {
    this.#stop();
    this.#control?.end();
  }

  /** Connects; for the first time, from outside. @throws {AbdmError} if nobody is there. */
  async connect(): Promise<void> {
    const { to, migration, security, signal, events } = this.#options;
    let control: SourceControl | undefined;
    control = await SourceControl.connect({
      address: to,
      migration,
      security,
      signal: AbortSignal.any([signal, this.#end.signal]),
      onMerged: (bytes) => {
        this.mergedBytes = bytes;
      },
      events,
      onLost: (error) => {
        if (control && this.#control === control) this.#onLost(error);
      },
    });
    this.#control = control;
    this.#id = control.id;
  }

  /** Tells what is coming. Resolves when the destination is ready. @throws {AbdmError} what it says is wrong. */
  async announce(): Promise<void> {
    const control = this.#control!;
    const reports = await control.announce(this.#options.announcement());
    this.trouble = null;
    this.#linked = true;
    clearTimeout(this.#away);
    clearTimeout(this.#patience);
    this.#patience = undefined;
    for (const frame of this.#options.kept()) control.record(frame);
    for (const frame of this.#options.voided()) control.voided(frame);
    this.#options.onReady(reports);
  }

  #onLost(error: AbdmError): void {
    this.#bytesOut += this.#control!.bytesOut;
    const opened = this.#linked;
    this.#control = null;
    this.#linked = false;
    this.trouble = error;
    if (this.#ended) return;
    if (opened) this.#options.onBroken();
    const patienceMs = this.#options.patienceMs();
    if (isFinal(error) || patienceMs === 0) return this.#over(error);
    if (!opened) return;
    if (patienceMs !== null) this.#patience = setTimeout(() => this.#over(error), patienceMs);
    this.#away = setTimeout(() => this.#options.onForgotten(), this.#awayMs);
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    const before = this.#id;
    while (!this.#ended && !this.#linked) {
      try {
        await this.connect();
        if (before === null || before !== this.#id) this.#options.onForgotten();
        await this.announce();
      } catch (cause) {
        const error = asAbdmError(cause);
        if (isFinal(error)) return this.#over(error);
        this.trouble = error;
        await sleep(RETRY_MS);
      }
    }
  }

  get #ended(): boolean {
    return this.#end.signal.aborted;
  }

  #over(error: AbdmError): void {
    if (this.#ended) return;
    this.#stop();
    this.#options.onOver(error);
  }

  #stop(): void {
    this.#end.abort(new AbdmError('CANCELLED', 'the migration is over'));
    clearTimeout(this.#away);
    clearTimeout(this.#patience);
  }
}

/** The destination has said that it ends it, or what nobody can understand. */
function isFinal({ code }: AbdmError): boolean {
  return code === 'PEER_ABORTED' || code === 'PROTOCOL';
}
