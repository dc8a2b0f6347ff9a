// A guest in an unmodified QEMU, as an image: QEMU migrates it to us, while it runs or when it was stopped, and what comes is kept here, for as long as it is
// the guest's memory (shadow.ts). Regions are RAM blocks.
//
// The migration begins when this is opened, so that all that cannot be moved is found then, but pages come after `begin`, or `stop`: QEMU's own limit of
// its bandwidth holds them back. It always is one that can become post-copy; `stop` stops the guest and lets it become that, unless QEMU has stopped it by itself.
//
//            begin: rounds                  stop                     all has come
//   open ------------------------> moving --------> standing still ----------------> release: QEMU quits
//     ^                               |                   |
//     +------- resume: it is given up, the guest goes on -+          close: the same, but a guest that was stopped stays so

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from '../../../bindings/abi.js';
import { type AbdmError, asAbdmError } from '../../../bindings/errors.js';
import type { DeviceState } from '../../qemu/format.js';
import { continueGuest, progress, runState, stopGuest, version } from '../../qemu/monitor.js';
import { QmpClient } from '../../qemu/qmp.js';
import { within } from '../../wire/within.js';
import { checkRange, imageError, type PageListener, type Region, type SendingGuest } from '../image.js';
import { Arrivals } from './arrivals.js';
import { examine } from './examine.js';
import { Migration, type MigrationHandler } from './migration.js';
import { Settings } from './settings.js';
import { encodeSetup } from './setup.js';
import { encodeState } from './state.js';

const STOP_MS = 15_000;
const QUIT_MS = 15_000;
const LOOK_MS = 50;

/** Opens the guest of the QEMU whose monitor is at `qmpPath`; it runs on. @throws {AbdmError} IMAGE, and all is as it was. */
export async function openQemu(qmpPath: string): Promise<SendingGuest> {
  const qmp = await QmpClient.open(qmpPath);
  try {
    const guest = new RunningQemu(qmp, qmpPath, await version(qmp), await Settings.of(qmp));
    await guest.start();
    return guest;
  } catch (error) {
    qmp.close();
    throw error;
  }
}

class RunningQemu implements SendingGuest {
  readonly description: string;
  readonly guestId = randomBytes(16).toString('hex');
  setup = '';
  readonly #qmp: QmpClient;
  readonly #path: string;
  readonly #version: string;
  readonly #settings: Settings;
  readonly #arrivals = new Arrivals();
  /** Null: it was given up. */
  #migration: Migration | null = null;
  /** Whether the guest ran, when it was looked at last before it stood still for this. */
  #ran = false;
  #isStopping = false;
  #state: DeviceState | null = null;
  #isPostCopy = false;
  /** Waits for the state. */
  #waiting: { resolve(): void; reject(error: AbdmError): void } | null = null;
  #isQmpGone = false;
  /** Why no more can come. */
  #gone: AbdmError | null = null;
  #isClosed = false;

  /** For openQemu. */
  constructor(qmp: QmpClient, path: string, version: string, settings: Settings) {
    this.description = `QEMU ${path}`;
    this.#qmp = qmp;
    this.#path = path;
    this.#version = version;
    this.#settings = settings;
    qmp.onGone = (error) => {
      this.#isQmpGone = true;
      this.#lose(error);
    };
  }

  get regions(): readonly Region[] {
    return this.#arrivals.regions;
  }

  get pages(): number {
    return this.#arrivals.pages;
  }

  get bytes(): number {
    return this.pages * PAGE_BYTES;
  }

  /** It stands still, and all of its memory is here. */
  get #allHere(): boolean {
    return this.#state !== null && this.#arrivals.missing === 0;
  }

  /** Begins a migration, of which no page comes yet. @throws {AbdmError} IMAGE, and all is as it was. */
  async start(): Promise<Migration> {
    await examine(this.#qmp, this.description);
    try {
      await this.#settings.apply();
      const migration = await Migration.start(this.#qmp, this.#path, this.#handler());
      this.#migration = migration;
      const { configuration, blocks } = migration;
      this.setup = encodeSetup({ configuration: configuration!, blocks, version: this.#version });
      return migration;
    } catch (error) {
      // Why it has failed matters more.
      await this.#giveUp().catch(() => {});
      throw this.#imageError(error);
    }
  }

  listen(listener: PageListener): void {
    this.#arrivals.listener = listener;
    this.#arrivals.replay();
    if (this.#gone) listener.onGone(this.#gone);
  }

  async begin(): Promise<void> {
    this.#check();
    const migration = this.#migration ?? (await this.start());
    const { dirtySyncs } = await progress(this.#qmp);
    this.#ran = (await runState(this.#qmp)).running;
    await migration.open();
    void this.#watch(migration, dirtySyncs);
  }

  hold(isHeld: boolean): void {
    if (!this.#isStopping) this.#migration?.hold(isHeld);
  }

  async stop(): Promise<Uint8Array> {
    this.#check();
    try {
      return await this.#stop(this.#migration ?? (await this.start()));
    } catch (error) {
      // Whatever it is: the guest is kept.
      await this.resume().catch(() => {});
      throw this.#imageError(error);
    }
  }

  want(pfn: number): void {
    if (!this.#isStopping || this.#allHere) return;
    this.#arrivals.want(pfn, (block, offset) => this.#migration?.request(block, offset));
  }

  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    checkRange(this.description, pfn, pages, this.pages);
    if (this.#gone) throw this.#gone;
    this.#arrivals.shadow.read(pfn, pages, memory, offset);
  }

  async resume(): Promise<void> {
    const stoodStill = this.#isStopping || this.#state !== null;
    await this.#giveUp(async () => {
      // It may go on by itself: that depends on how far it had come, and on the version.
      if (stoodStill && this.#ran && !(await runState(this.#qmp)).running) await continueGuest(this.#qmp);
    });
  }

  async release(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // It quits in any case.
    if (this.#allHere && this.#isPostCopy) await this.#migration?.complete().catch(() => {});
    this.#migration?.close();
    if (!this.#isQmpGone) await this.#quit();
    this.#qmp.close();
  }

  /** A guest that was stopped for this stays so when this is closed too. If not all has come, that takes a while: cut off, its QEMU would wait for ever. */
  abandon(): void {
    void this.close();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // If that fails it is gone.
    await this.#giveUp().catch(() => {});
    this.#qmp.close();
  }

  #handler(): MigrationHandler {
    const arrivals = this.#arrivals;
    return {
      onBlocks: (blocks) => arrivals.begin(blocks),
      onPage: (block, offset, bytes, at) => arrivals.onPage(block, offset, bytes, at),
      onZero: (block, offset) => arrivals.onZero(block, offset),
      onDiscard: (block, start, bytes) => arrivals.onDiscard(block, start, bytes),
      onState: (state, isPostCopy) => {
        this.#state = state;
        this.#isPostCopy = isPostCopy;
        this.#waiting?.resolve();
      },
      onEnd: () => {
        arrivals.end();
        if (!this.#isStopping) arrivals.listener?.onRound(0);
      },
      onFailed: (error) => this.#lose(error),
    };
  }

  /** Tells of rounds while it runs. */
  async #watch(migration: Migration, syncsBefore: number): Promise<void> {
    const isOver = () => migration !== this.#migration || this.#isStopping || this.#state !== null || this.#isClosed;
    try {
      for (let syncs = syncsBefore; ; ) {
        await sleep(LOOK_MS);
        if (isOver()) return;
        const { status, running } = await runState(this.#qmp);
        const { dirtySyncs, remainingBytes } = await progress(this.#qmp);
        if (isOver() || status === 'finish-migrate') continue;
        this.#ran = running;
        if (dirtySyncs > syncs) this.#arrivals.listener?.onRound(Math.max(1, Math.ceil(remainingBytes / PAGE_BYTES)));
        syncs = dirtySyncs;
      }
    } catch {
      // It is gone, which its monitor tells by itself.
    }
  }

  async #stop(migration: Migration): Promise<Uint8Array> {
    this.#isStopping = true;
    migration.hold(false);
    const state = this.#stateComes();
    const { status, running } = await runState(this.#qmp);
    // Else QEMU has stopped it by itself, or is about to.
    if (status !== 'finish-migrate') this.#ran = running;
    if (!this.#state) {
      await stopGuest(this.#qmp);
      await migration.open();
      await migration.postCopy();
    }
    await within(STOP_MS, state, () => {
      return imageError(`${this.description} did not send its state within ${STOP_MS / 1000} s`, 'try again');
    });
    // All has come, and QEMU would let the guest go on if it lost us: that must not be from here on.
    if (!this.#isPostCopy) await migration.complete();
    return encodeState({ wasRunning: this.#ran, sections: this.#state!.sections });
  }

  #stateComes(): Promise<void> {
    const state = new Promise<void>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      if (this.#gone) reject(this.#gone);
      else if (this.#state) resolve();
    });
    // Awaited later, or not at all if what comes before fails.
    state.catch(() => {});
    return state;
  }

  /** Ends the migration before its end, and puts back what was set for it; the guest is let go on, by `then`, as soon as it can. */
  async #giveUp(then: () => Promise<void> = async () => {}): Promise<void> {
    const migration = this.#migration;
    this.#migration = null;
    this.#waiting?.reject(imageError(`${this.description} goes on here`, 'begin anew'));
    this.#waiting = null;
    try {
      await migration?.giveUp();
      this.#isStopping = false;
      this.#state = null;
      await then();
      await this.#settings.restore();
    } catch (error) {
      throw this.#imageError(error);
    }
  }

  async #quit(): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      this.#qmp.onGone = () => resolve();
    });
    this.#qmp.execute('quit').catch(() => {});
    await within(QUIT_MS, gone, () => {
      return imageError(`${this.description} does not quit`, 'end it: its guest runs elsewhere');
    });
  }

  /** No more comes of it. */
  #lose(error: AbdmError): void {
    if (this.#gone || this.#allHere || this.#isClosed) return;
    this.#gone = this.#imageError(error);
    this.#waiting?.reject(this.#gone);
    this.#arrivals.listener?.onGone(this.#gone);
  }

  #check(): void {
    if (this.#gone) throw this.#gone;
    if (this.#isClosed) throw imageError(`${this.description} was let go of`, 'open it again');
  }

  #imageError(cause: unknown): AbdmError {
    const error = asAbdmError(cause);
    return error.code === 'IMAGE'
      ? error
      : imageError(`${this.description}: ${error.message}`, 'the guest is kept', error);
  }
}
