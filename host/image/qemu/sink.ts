// The guest that a waiting QEMU (-incoming defer) becomes: its memory goes there as it comes (pages.ts), in the migration stream, and it stands still until
// `run`, also when it is loaded: QEMU was told so.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from '../../../bindings/abi.js';
import { AbdmError } from '../../../bindings/errors.js';
import { hasBit } from '../../guest/bits.js';
import { PACKAGE_PING } from '../../qemu/format.js';
import { continueGuest, runState } from '../../qemu/monitor.js';
import { printable } from '../../wire/json.js';
import { checkRange, type GuestSink, type ImageShape, imageError, layOut } from '../image.js';
import { Incoming } from './incoming.js';
import { Pages } from './pages.js';
import { decodeSetup, type Setup } from './setup.js';
import { decodeState } from './state.js';

/** Behind the list of RAM blocks. */
const SETUP_PING = 2;
const LOOK_MS = 10;
/** For a guest that has its state to run, or stand still. */
const RUN_MS = 120_000;

/**
 * Begins the guest that `shape` describes in the QEMU whose monitor is at `qmpPath`.
 * @throws {AbdmError} IMAGE, PROTOCOL.
 */
export async function openIncomingQemu(qmpPath: string, { regions, setup }: ImageShape): Promise<GuestSink> {
  const needed = decodeSetup(setup, regions);
  const link = await Incoming.open(qmpPath, needed.blocks);
  const { hint } = link;
  try {
    link.hint = `start it anew with what the guest has: ${inWords(needed)}`;
    const pong = link.pong(SETUP_PING);
    const pages = new Pages(link.outlet, layOut(regions), needed, SETUP_PING);
    await pong;
    link.hint = hint;
    return new IncomingQemu(qmpPath, link, pages, needed.version);
  } catch (error) {
    link.close();
    throw error;
  }
}

class IncomingQemu implements GuestSink {
  readonly description: string;
  readonly isWriteOnly = true;
  readonly loadsOnce = true;
  readonly guestId = randomBytes(16).toString('hex');
  readonly hasRun = false;
  onFree?: () => void;
  readonly #link: Incoming;
  readonly #pages: Pages;
  readonly #version: string;
  #wasRunning = false;
  /** It was told to run, and has not surely said no. */
  #isBegun = false;
  #isRefused = false;
  #runs = false;
  #isCommitted = false;
  #isClosed = false;
  /** What it was given, and when it has that. */
  #loading: { readonly state: Uint8Array; readonly done: Promise<void> } | null = null;

  /** @param version of the QEMU that the guest comes from. */
  constructor(qmpPath: string, link: Incoming, pages: Pages, version: string) {
    this.description = `QEMU ${qmpPath}`;
    this.#link = link;
    this.#pages = pages;
    this.#version = version;
    link.onRequest = (block, start, bytes) => pages.request(block, start, bytes);
    link.outlet.onFree = () => this.onFree?.();
  }

  get present(): Uint8Array {
    return this.#pages.present;
  }

  get isBusy(): boolean {
    return this.#link.outlet.isBusy;
  }

  get onFault(): (pfn: number) => void {
    return this.#pages.onFault;
  }

  set onFault(onFault: (pfn: number) => void) {
    this.#pages.onFault = onFault;
  }

  set onGone(onGone: (error: Error) => void) {
    this.#link.onGone = (error) => {
      if (!this.#isCommitted) onGone(error);
    };
  }

  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    const pages = Math.ceil(bytes / PAGE_BYTES);
    this.#checkFree(pfn, pages);
    this.#pages.put(pfn, pages, memory, offset);
  }

  zero(pfn: number, pages: number): void {
    this.#checkFree(pfn, pages);
    this.#pages.put(pfn, pages, null, 0);
  }

  read(): never {
    throw new AbdmError('INTERNAL', `${this.description} was to be read back, and cannot be`);
  }

  forget(pfn: number, pages: number): void {
    this.#check(pfn, pages);
    this.#checkEmpty();
    this.#pages.forget(pfn, pages);
  }

  /** The same state once more is that of a guest which stood still since: it is loaded. */
  load(state: Uint8Array): Promise<void> {
    if (this.#loading && Buffer.compare(this.#loading.state, state) === 0) return this.#loading.done;
    const isFirst = !this.#pages.isHandedOver;
    const done = this.#load(state);
    if (isFirst && this.#pages.isHandedOver) this.#loading = { state, done };
    return done;
  }

  async #load(state: Uint8Array): Promise<void> {
    this.#check(0, 0);
    this.#checkEmpty();
    const { wasRunning, sections } = decodeState(state);
    this.#wasRunning = wasRunning;
    this.#link.hint = `start it anew with -incoming defer and the devices of the guest, by a QEMU that knows those of version ${this.#version}, and run the same command again`;
    this.#link.bePatient();
    const pong = this.#link.pong(PACKAGE_PING);
    this.#pages.handOver(sections);
    await pong;
  }

  async run(): Promise<void> {
    this.#check(0, 0);
    if (this.#wasRunning) {
      this.#isBegun = true;
      this.#link.hint = 'its guest may have run, and has lost what had not come of its memory';
      try {
        await continueGuest(this.#link.qmp);
      } catch (error) {
        this.#isRefused = true;
        throw error;
      }
    }
    for (const by = performance.now() + RUN_MS; !(await this.#isSettled()); await sleep(LOOK_MS)) {
      if (performance.now() < by) continue;
      throw imageError(`${this.description} has its guest, which does not run`, 'see what it has printed');
    }
    this.#runs = true;
    this.#closeIfDone();
  }

  async mayHaveRun(): Promise<boolean> {
    // One that can still be asked has answered `cont`, and so with a no.
    const state = this.#isRefused ? await runState(this.#link.qmp).catch(() => null) : null;
    if (state?.status === 'paused') this.#isBegun = false;
    return this.#isBegun;
  }

  async commit(): Promise<void> {
    this.#check(0, 0);
    if (!this.#pages.isHandedOver || !this.#pages.isWhole) {
      throw new AbdmError('INTERNAL', `${this.description} was to be complete, and is not`);
    }
    const shut = this.#link.shut();
    this.#pages.end();
    await shut;
    this.#isCommitted = true;
    this.#link.closeStream();
    this.#closeIfDone();
  }

  /** What cannot be gone on with must not wait half-loaded for somebody to start it. */
  async discard(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.#isBegun && !this.#runs && !this.#isCommitted) await this.#link.quit();
    this.#link.close();
  }

  leave(): Promise<void> {
    return this.discard();
  }

  /** Nobody needs to be there for a guest that runs and has all its memory. */
  #closeIfDone(): void {
    if (!this.#runs || !this.#isCommitted) return;
    this.#isClosed = true;
    this.#link.close();
  }

  async #isSettled(): Promise<boolean> {
    const { status } = await runState(this.#link.qmp);
    // One that has run may have come to its end by now.
    return status !== 'inmigrate' && !(this.#wasRunning && status === 'paused');
  }

  #check(pfn: number, pages: number): void {
    checkRange(this.description, pfn, pages, this.#pages.count);
    if (this.#link.gone) throw this.#link.gone;
  }

  #checkEmpty(): void {
    if (!this.#pages.isHandedOver) return;
    throw imageError(
      `${this.description} has taken the state of a guest already`,
      'start it anew with -incoming defer',
    );
  }

  /** Nobody could undo a write to a page that the guest may have written to itself. */
  #checkFree(pfn: number, pages: number): void {
    this.#check(pfn, pages);
    if (!this.#pages.isHandedOver) return;
    for (let page = pfn; page < pfn + pages; page++) {
      if (!hasBit(this.present, page)) continue;
      throw new AbdmError('INTERNAL', `page ${page} of ${this.description}, which has it, was to be written again`);
    }
  }
}

function inWords({ configuration, version, blocks }: Setup): string {
  const memory = blocks.map(({ name, bytes }) => `${name} of ${bytes} bytes`).join(', ');
  return printable(`machine ${configuration.machine} (it comes from QEMU ${version}), memory ${memory}`);
}
