// The memory of a guest that a waiting QEMU (-incoming defer) becomes: written into its migration stream. The guest stands still until `run`, also when it
// is loaded: QEMU was told so.
//
//   before load    pages are those of pre-copy: QEMU takes the last version of each
//   load           what is not there is discarded, and the device state follows: QEMU asks for the pages that it waits for
//   then           each page comes once: one that was asked for goes past all others (outlet.ts)
//   commit         the end: QEMU says that it has everything
//
// Blocks with huge pages differ: what comes of them is kept, and goes there only after the load (host-pages.ts).

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from '../../../bindings/abi.js';
import { AbdmError } from '../../../bindings/errors.js';
import { bitmapFor, clearBit, countBits, hasBit, setBit } from '../../guest/bits.js';
import { PACKAGE_PING } from '../../qemu/format.js';
import { runState } from '../../qemu/monitor.js';
import { StreamWriter } from '../../qemu/writer.js';
import { printable } from '../../wire/json.js';
import { checkRange, eachPiece, type GuestSink, type ImageShape, imageError, layOut, type Region } from '../image.js';
import { absentRanges } from './absent.js';
import { HostPages } from './host-pages.js';
import { Incoming } from './incoming.js';
import { decodeSetup, type Setup } from './setup.js';
import { decodeState } from './state.js';

/** Behind the list of RAM blocks. */
const SETUP_PING = 2;
/** Pages in a piece: so many are sent before one that somebody waits for, at most. */
const PIECE_PAGES = 8;
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
  const hint = link.hint;
  try {
    link.hint = `start it anew with what the guest has: ${inWords(needed)}`;
    const pong = link.pong(SETUP_PING);
    const sink = new IncomingQemu(qmpPath, link, layOut(regions), needed);
    await pong;
    link.hint = hint;
    return sink;
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
  readonly present: Uint8Array;
  onFree?: () => void;
  readonly #link: Incoming;
  readonly #regions: readonly Region[];
  readonly #version: string;
  readonly #pages: number;
  readonly #writer: StreamWriter;
  /** By block; null: its pages are those of the guest. */
  readonly #huge: readonly (HostPages | null)[];
  /** Complete host pages that were there before the load, and are to be sent: block, number. */
  #backlog: (readonly [number, number])[] = [];
  /** What the writer has handed on and nobody has got yet; all pages in it are some of [first, end). */
  #parts: Uint8Array[] = [];
  #first = Number.POSITIVE_INFINITY;
  #end = 0;
  /** Pages that QEMU waits for. */
  readonly #waited = new Set<number>();
  /** The page that was written last before the load, of those that are sent at once. */
  readonly #last = { pfn: -1, isZero: true, bytes: new Uint8Array(PAGE_BYTES) };
  #onFault: ((pfn: number) => void) | null = null;
  #isLoaded = false;
  #wasRunning = false;
  /** How far `cont` has come: nobody has sent it, QEMU has said no to it, or it may run. */
  #begun: 'no' | 'refused' | 'maybe' = 'no';
  #runs = false;
  #isWhole = false;
  #isClosed = false;

  constructor(qmpPath: string, link: Incoming, regions: readonly Region[], { configuration, version, blocks }: Setup) {
    this.description = `QEMU ${qmpPath}`;
    this.#link = link;
    this.#regions = regions;
    this.#version = version;
    this.#pages = regions.reduce((sum, { pages }) => sum + pages, 0);
    this.present = bitmapFor(this.#pages);
    this.#huge = blocks.map(({ hostPageBytes }) => (hostPageBytes > PAGE_BYTES ? new HostPages(hostPageBytes) : null));
    link.onRequest = (block, start, bytes) => this.#requested(block, start / PAGE_BYTES, bytes / PAGE_BYTES);
    link.outlet.onFree = () => this.onFree?.();
    link.outlet.onLow = () => this.#feed();
    const beginning = { configuration, blocks, returnPath: true, postCopy: true };
    this.#writer = new StreamWriter((bytes) => this.#parts.push(bytes), beginning);
    this.#writer.ping(SETUP_PING);
    this.#writer.flush();
    this.#hand(false);
  }

  get isBusy(): boolean {
    return this.#link.outlet.isBusy;
  }

  get onFault(): (pfn: number) => void {
    return this.#onFault ?? (() => {});
  }

  /** Pages that are waited for already are said at once. */
  set onFault(onFault: (pfn: number) => void) {
    this.#onFault = onFault;
    for (const pfn of this.#waited) onFault(pfn);
  }

  set onGone(onGone: (error: Error) => void) {
    this.#link.onGone = (error) => {
      if (!this.#isWhole) onGone(error);
    };
  }

  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    this.#put(pfn, Math.ceil(bytes / PAGE_BYTES), memory, offset);
  }

  zero(pfn: number, pages: number): void {
    this.#put(pfn, pages, null, 0);
  }

  read(): never {
    throw new AbdmError('INTERNAL', `${this.description} was to be read back, and cannot be`);
  }

  forget(pfn: number, pages: number): void {
    this.#check(pfn, pages);
    if (this.#isLoaded) throw this.#tooLate();
    eachPiece(this.#regions, pfn, pages, (region, page, count) => {
      const huge = this.#huge[this.#regions.indexOf(region)]!;
      for (let i = page; i < page + count; i++) {
        if (hasBit(this.present, region.firstPfn + i)) huge?.forget(i);
        clearBit(this.present, region.firstPfn + i);
      }
    });
  }

  async load(state: Uint8Array): Promise<void> {
    this.#check(0, 0);
    if (this.#isLoaded) throw this.#tooLate();
    const { wasRunning, sections } = decodeState(state);
    this.#wasRunning = wasRunning;
    this.#isLoaded = true;
    this.#link.hint = `start it anew with -incoming defer and the devices of the guest, by a QEMU that knows those of version ${this.#version}, and run the same command again`;
    const pong = this.#link.pong(PACKAGE_PING);
    const isWhole = !this.#discard();
    // Without any discard QEMU waits for ever: the page of which it is known what it holds comes again.
    if (isWhole)
      this.#locate(this.#last.pfn, (block, page) => this.#writer.discard(block, [page * PAGE_BYTES, PAGE_BYTES]));
    this.#link.bePatient();
    this.#writer.runNow({ sections, description: null });
    this.#hand(false);
    const { pfn, isZero, bytes } = this.#last;
    if (isWhole) this.#locate(pfn, (block, page) => this.#send(block, page, isZero ? null : bytes, 0));
    this.#hand(false);
    this.#backlog = this.#huge.flatMap((huge, block) => huge?.complete.map((number) => [block, number] as const) ?? []);
    this.#feed();
    await pong;
  }

  async run(): Promise<void> {
    this.#link.hint = 'its guest may have run, and has lost what had not come of its memory';
    if (this.#wasRunning) {
      this.#begun = 'maybe';
      try {
        await this.#link.qmp.execute('cont');
      } catch (error) {
        this.#begun = 'refused';
        throw error;
      }
    }
    for (const by = performance.now() + RUN_MS; !(await this.#isSettled()); await sleep(LOOK_MS)) {
      if (performance.now() > by)
        throw imageError(`${this.description} has its guest, which does not run`, 'see what it has printed');
    }
    this.#runs = true;
    this.#closeIfDone();
  }

  async mayHaveRun(): Promise<boolean> {
    if (this.#begun !== 'refused') return this.#begun === 'maybe';
    // Only if it can still be asked, `cont` was answered, and with a no.
    const state = await runState(this.#link.qmp).catch(() => null);
    return state?.status !== 'paused';
  }

  async commit(): Promise<void> {
    this.#check(0, 0);
    if (!this.#isLoaded || countBits(this.present) < this.#pages) {
      throw new AbdmError('INTERNAL', `${this.description} was to be complete, and is not`);
    }
    for (const [block, number] of this.#backlog.splice(0)) this.#sendWhole(block, number);
    const shut = this.#link.shut();
    this.#writer.end();
    this.#hand(false);
    await shut;
    this.#isWhole = true;
    this.#link.closeStream();
    this.#closeIfDone();
  }

  /** What cannot be gone on with must not wait half-loaded for somebody to start it. */
  async discard(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#begun !== 'maybe' && !this.#runs && !this.#isWhole) await this.#link.quit();
    this.#link.close();
  }

  leave(): Promise<void> {
    return this.discard();
  }

  /** Nobody needs to be there for a guest that runs and has all its memory. */
  #closeIfDone(): void {
    if (!this.#runs || !this.#isWhole) return;
    this.#isClosed = true;
    this.#link.close();
  }

  async #isSettled(): Promise<boolean> {
    const { status, running } = await runState(this.#link.qmp);
    // One that has run may have come to its end by now.
    return this.#wasRunning ? running || !['inmigrate', 'paused'].includes(status) : status !== 'inmigrate';
  }

  /** @param memory null: zeros. */
  #put(pfn: number, pages: number, memory: Uint8Array | null, offset: number): void {
    this.#checkFree(pfn, pages);
    const end = pfn + pages;
    for (let at = pfn; at < end && this.#waited.size > 0; at++) {
      if (!this.#waited.has(at)) continue;
      this.#locate(at, (block, page) => this.#take(block, page, at, memory, offset + (at - pfn) * PAGE_BYTES));
      this.#hand(true);
    }
    let sent = 0;
    eachPiece(this.#regions, pfn, pages, (region, page, count) => {
      const block = this.#regions.indexOf(region);
      for (let i = page; i < page + count; i++) {
        const at = region.firstPfn + i;
        // It went first.
        if (this.#isLoaded && hasBit(this.present, at)) continue;
        this.#take(block, i, at, memory, offset + (at - pfn) * PAGE_BYTES);
        if (++sent % PIECE_PAGES === 0) this.#hand(false);
      }
    });
    this.#hand(false);
    if (this.#isLoaded || pages === 0) return;
    this.#last.pfn = end - 1;
    this.#last.isZero = !memory;
    const at = offset + (pages - 1) * PAGE_BYTES;
    if (memory) this.#last.bytes.set(memory.subarray(at, at + PAGE_BYTES));
  }

  /** This page is there from now on. */
  #take(block: number, page: number, pfn: number, memory: Uint8Array | null, at: number): void {
    const isNew = !hasBit(this.present, pfn);
    setBit(this.present, pfn);
    this.#waited.delete(pfn);
    const huge = this.#huge[block];
    if (!huge) return this.#send(block, page, memory, at);
    huge.put(page, memory, at, isNew);
    if (this.#isLoaded) this.#sendWhole(block, Math.floor(page / huge.pages));
  }

  #send(block: number, page: number, memory: Uint8Array | null, at: number): void {
    const pfn = this.#regions[block]!.firstPfn + page;
    this.#first = Math.min(this.#first, pfn);
    this.#end = Math.max(this.#end, pfn + 1);
    if (memory) this.#writer.page(block, page * PAGE_BYTES, memory, at);
    else this.#writer.zero(block, page * PAGE_BYTES);
  }

  /** Sends a host page, if it is complete and was not sent. */
  #sendWhole(block: number, number: number): void {
    const huge = this.#huge[block]!;
    const bytes = huge.take(number);
    if (bytes === undefined) return;
    this.#hand(false);
    for (let i = 0; i < huge.pages; i++) this.#send(block, number * huge.pages + i, bytes, i * PAGE_BYTES);
    this.#hand(huge.wanted.delete(number));
  }

  /** More of what was complete before the load. */
  #feed(): void {
    while (this.#link.outlet.isLow && this.#backlog.length > 0) this.#sendWhole(...this.#backlog.pop()!);
  }

  /** What was written is sent; once the guest has its state, as a piece of its own. */
  #hand(isUrgent: boolean): void {
    if (this.#isLoaded) this.#writer.cut();
    if (this.#parts.length === 0) return;
    this.#link.outlet.put({ parts: this.#parts, first: this.#first, end: this.#end }, isUrgent);
    this.#parts = [];
    this.#first = Number.POSITIVE_INFINITY;
    this.#end = 0;
  }

  /** Discards all that is not there; false: everything is. */
  #discard(): boolean {
    let any = false;
    for (const [block, { firstPfn, pages, bytes }] of this.#regions.entries()) {
      const ranges = this.#huge[block] ? [0, bytes] : absentRanges(this.present, firstPfn, pages);
      this.#writer.discard(block, ranges);
      any ||= ranges.length > 0;
    }
    return any;
  }

  #requested(block: number, first: number, pages: number): void {
    const { firstPfn } = this.#regions[block]!;
    const huge = this.#huge[block];
    if (huge) {
      const number = Math.floor(first / huge.pages);
      huge.wanted.add(number);
      this.#sendWhole(block, number);
    }
    for (let pfn = firstPfn + first; pfn < firstPfn + first + pages; pfn++) {
      // One that is there was written before QEMU asked.
      if (hasBit(this.present, pfn)) this.#link.outlet.hurry(pfn);
      if (hasBit(this.present, pfn) || this.#waited.has(pfn)) continue;
      this.#waited.add(pfn);
      this.#onFault?.(pfn);
    }
  }

  #locate(pfn: number, visit: (block: number, page: number) => void): void {
    eachPiece(this.#regions, pfn, 1, (region, page) => visit(this.#regions.indexOf(region), page));
  }

  #check(pfn: number, pages: number): void {
    checkRange(this.description, pfn, pages, this.#pages);
    if (this.#link.gone) throw this.#link.gone;
  }

  #checkFree(pfn: number, pages: number): void {
    this.#check(pfn, pages);
    if (!this.#isLoaded) return;
    for (let page = pfn; page < pfn + pages; page++) {
      if (!hasBit(this.present, page)) continue;
      throw new AbdmError('INTERNAL', `page ${page} of ${this.description}, which has it, was to be written again`);
    }
  }

  #tooLate(): AbdmError {
    return imageError(
      `${this.description} has taken the state of a guest already`,
      'start it anew with -incoming defer',
    );
  }
}

function inWords({ configuration, version, blocks }: Setup): string {
  const memory = blocks.map(({ name, bytes }) => `${name} of ${bytes} bytes`).join(', ');
  return printable(`machine ${configuration.machine} (it comes from QEMU ${version}), memory ${memory}`);
}
