// One VM's guest as it arrives: takes its execution state, and begins it when it may run. Whether it may is Taking's to say (ownership/taking.ts):
//
//   STATE            taken: LOADED is said. Before `run` a later one replaces it, unless the guest takes but one
//   grant            RUN has come, or the nodes have everything: from now on it is ours, and never the source's again, unless we say that it will not run
//   run              when it is loaded and granted; in mode stop only when every page is in place as well
//
// What is noted for the time after our death (state.ts) is noted before the guest is begun: a guest that has run is known as ours by whoever comes next. Of a guest
// that was told to run, and is gone, that is taken back if it has surely not run.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { GuestSink } from '../image/image.js';
import type { Report } from '../ownership/giving.js';
import { Taking } from '../ownership/taking.js';
import { StateCollector } from './execution-state.js';

export interface ArrivalOptions {
  readonly sink: GuestSink;
  /** Another guest was to run it, and is not there any more. */
  readonly isLost: boolean;
  /** It runs only when every page is in place. */
  readonly waitsForAll: boolean;
  /** Makes sure that nobody else may run it; false: it cannot be made sure, and is not run. */
  permit(): Promise<boolean>;
  /** Before it takes its state, or is begun, whichever comes first that may wait for pages. */
  onStart(): void;
  /** Before it is begun: whoever comes after us must know. */
  onBegin(): void;
  /** It has not run after all, and never will. */
  onNotBegun(): void;
  /** It runs. */
  onRunning(): void;
  /** It cannot be begun, or is gone. */
  onFailed(error: AbdmError): void;
}

export class Arrival {
  readonly taking: Taking;
  readonly sink: GuestSink;
  /** The guest is not there any more. */
  isGone = false;
  readonly #options: ArrivalOptions;
  readonly #parts = new StateCollector();
  /** Work on the guest, one thing after the other. */
  #work: Promise<void> = Promise.resolve();
  #granted: boolean;
  #whole = false;
  #closed = false;
  readonly #ran: Promise<void>;
  #markRan!: () => void;
  /** It runs, or never will. */
  readonly settled: Promise<void>;
  #markSettled!: () => void;

  constructor(options: ArrivalOptions) {
    const { sink } = options;
    this.#options = options;
    this.sink = sink;
    this.taking = new Taking(sink.hasRun, options.isLost);
    this.#granted = sink.hasRun;
    this.#ran = new Promise((resolve) => {
      this.#markRan = resolve;
    });
    this.settled = new Promise((resolve) => {
      this.#markSettled = resolve;
    });
    if (sink.hasRun) this.#hasBegun();
    sink.onGone = (cause) => {
      this.isGone = true;
      // Not before whoever made this knows of it: it may be gone already.
      void this.#next(async () => {
        throw cause instanceof AbdmError ? cause : new AbdmError('IMAGE', cause.message, { cause });
      });
    };
  }

  /** What a source is told that comes, or comes back. */
  get report(): Report {
    return { state: this.taking.report, guest: this.sink.guestId };
  }

  /** The source may not run it any more, as far as it knows; so we must see to it. */
  get isOurs(): boolean {
    return this.#granted && this.taking.state !== 'refused';
  }

  /** It was begun: nobody can take that back. */
  get hasRun(): boolean {
    return this.taking.state === 'running';
  }

  /** A STATE body. Null if it is not the last part; else resolves when the guest has the state: to false if it has not, and needs none. @throws {AbdmError} PROTOCOL. */
  take(body: Uint8Array): Promise<boolean> | null {
    const state = this.#parts.take(body);
    return state && this.load(state);
  }

  /** Gives the guest its execution state. Resolves to false if it did not take it. */
  async load(state: Uint8Array): Promise<boolean> {
    await this.#next(async () => {
      if (!this.#isOpen) return;
      if (this.sink.loadsOnce) this.#options.onStart();
      await this.sink.load(state);
      if (this.#isOpen) this.taking.loaded();
      this.#begin();
    });
    return this.#isOpen && this.taking.state === 'loaded';
  }

  /** It may run, as far as the source is concerned. Resolves when it does; never, if it does not. @throws {AbdmError} PROTOCOL if it was never LOADED. */
  run(): Promise<void> {
    if (this.taking.state === 'waiting') throw new AbdmError('PROTOCOL', 'RUN came before the guest was LOADED');
    return this.grant();
  }

  /** It may run as soon as it is loaded: everything is where we can reach it. Resolves when it runs. */
  grant(): Promise<void> {
    this.#granted = true;
    this.#begin();
    return this.#ran;
  }

  /** Every page is in place. */
  whole(): void {
    this.#whole = true;
    this.#begin();
  }

  /** It will never run here; false if it has, or may have, and so cannot be refused. */
  refuse(): boolean {
    if (this.taking.state === 'running') return false;
    this.taking.refuse();
    return true;
  }

  /** It cannot go on. */
  fail(error: AbdmError): void {
    this.#options.onFailed(error);
    this.#markSettled();
  }

  /** Nothing more is done with the guest. Resolves when what was being done is over. */
  close(): Promise<void> {
    this.#closed = true;
    return this.#work;
  }

  get #isOpen(): boolean {
    return !this.#closed && (this.taking.state === 'waiting' || this.taking.state === 'loaded');
  }

  get #isTurn(): boolean {
    const isThere = !this.#closed && !this.isGone && this.taking.state === 'loaded';
    return isThere && this.#granted && (this.#whole || !this.#options.waitsForAll);
  }

  #begin(): void {
    void this.#next(async () => {
      const { sink, permit, onStart, onBegin, onNotBegun, onRunning } = this.#options;
      if (!this.#isTurn || !(await permit()) || !this.#isTurn) return;
      onBegin();
      onStart();
      this.taking.run();
      try {
        await sink.run();
      } catch (error) {
        if (!(await sink.mayHaveRun())) {
          this.taking.notRun();
          onNotBegun();
        }
        throw error;
      }
      this.taking.ran();
      onRunning();
      this.#hasBegun();
    });
  }

  /** One thing after the other; what fails is the VM's end, and not ours. */
  #next(run: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(run).catch((cause) => this.fail(asAbdmError(cause)));
    return this.#work;
  }

  #hasBegun(): void {
    this.#markRan();
    this.#markSettled();
  }
}
