// What there is of a guest's memory, and how it goes to the QEMU that waits for it:
//
//   at first       pages are those of pre-copy: QEMU takes the last version of each
//   hand over      what is not there is discarded, and the device state follows: from then on QEMU asks for the pages that it waits for
//   then           each page goes once, in small pieces: one that was asked for past all others (outlet.ts)
//
// Blocks with huge pages differ: what comes of them is kept, and goes there when all the rest of it has (host-pages.ts).

import { PAGE_BYTES } from '../../../bindings/abi.js';
import { bitmapFor, clearBit, countBits, hasBit, setBit } from '../../guest/bits.js';
import { StreamWriter } from '../../qemu/writer.js';
import { eachPiece, type Region } from '../image.js';
import { absentRanges } from './absent.js';
import { HostPages } from './host-pages.js';
import type { Outlet } from './outlet.js';
import type { Setup } from './setup.js';

/** Pages in a piece: so many are sent before one that somebody waits for, at most. */
const PIECE_PAGES = 8;

export class Pages {
  readonly present: Uint8Array;
  readonly count: number;
  readonly #regions: readonly Region[];
  readonly #outlet: Outlet;
  readonly #writer: StreamWriter;
  /** By block; null: its pages are those of the guest. */
  readonly #huge: readonly (HostPages | null)[];
  /** Complete host pages that are to be sent: block, number. */
  #backlog: (readonly [number, number])[] = [];
  /** What the writer has handed on and nobody has got yet; all pages in it are some of [first, end). */
  #parts: Uint8Array[] = [];
  #first = Number.POSITIVE_INFINITY;
  #end = 0;
  /** Pages that QEMU waits for. */
  readonly #waited = new Set<number>();
  /** What was written last before the state. */
  readonly #last = { pfn: 0, isZero: true, bytes: new Uint8Array(PAGE_BYTES) };
  #onFault: ((pfn: number) => void) | null = null;
  #isHandedOver = false;

  /** Sends all that comes before pages. @param ping its answer says that QEMU has taken it. */
  constructor(outlet: Outlet, regions: readonly Region[], { configuration, blocks }: Setup, ping: number) {
    this.#outlet = outlet;
    this.#regions = regions;
    this.count = regions.reduce((sum, { pages }) => sum + pages, 0);
    this.present = bitmapFor(this.count);
    this.#huge = blocks.map(({ hostPageBytes }) => (hostPageBytes > PAGE_BYTES ? new HostPages(hostPageBytes) : null));
    outlet.onLow = () => this.#feed();
    const beginning = { configuration, blocks, returnPath: true, postCopy: true };
    this.#writer = new StreamWriter((bytes) => this.#parts.push(bytes), beginning);
    outlet.onSent = (bytes) => this.#writer.release(bytes);
    this.#writer.ping(ping);
    this.#writer.flush();
    this.#hand(false);
  }

  /** QEMU has the device state, or it is on its way: no page goes twice any more. */
  get isHandedOver(): boolean {
    return this.#isHandedOver;
  }

  get isWhole(): boolean {
    return countBits(this.present) === this.count;
  }

  get onFault(): (pfn: number) => void {
    return this.#onFault ?? (() => {});
  }

  /** Pages that are waited for already are said at once. */
  set onFault(onFault: (pfn: number) => void) {
    this.#onFault = onFault;
    for (const pfn of this.#waited) onFault(pfn);
  }

  /** These pages come. @param memory null: zeros. */
  put(pfn: number, pages: number, memory: Uint8Array | null, offset: number): void {
    const end = pfn + pages;
    for (let at = pfn; at < end && this.#waited.size > 0; at++) {
      if (!this.#waited.has(at)) continue;
      eachPiece(this.#regions, at, 1, (region, page) => {
        this.#take(this.#regions.indexOf(region), page, memory, offset + (at - pfn) * PAGE_BYTES);
      });
      this.#hand(true);
    }
    let sent = 0;
    eachPiece(this.#regions, pfn, pages, (region, first, count) => {
      const block = this.#regions.indexOf(region);
      for (let page = first; page < first + count; page++) {
        const at = region.firstPfn + page;
        // It went before all others.
        if (this.#isHandedOver && hasBit(this.present, at)) continue;
        this.#take(block, page, memory, offset + (at - pfn) * PAGE_BYTES);
        if (++sent % PIECE_PAGES === 0) this.#hand(false);
      }
    });
    this.#hand(false);
    if (!this.#isHandedOver && pages > 0) this.#note(end - 1, memory, offset + (pages - 1) * PAGE_BYTES);
  }

  /** These are not there any more. Before the state only. */
  forget(pfn: number, pages: number): void {
    eachPiece(this.#regions, pfn, pages, (region, first, count) => {
      const huge = this.#huge[this.#regions.indexOf(region)];
      for (let page = first; page < first + count; page++) {
        if (hasBit(this.present, region.firstPfn + page)) huge?.forget(page);
        clearBit(this.present, region.firstPfn + page);
      }
    });
  }

  /** Device state, which is not checked. */
  handOver(sections: Uint8Array): void {
    this.#isHandedOver = true;
    let isWhole = true;
    for (const [block, { firstPfn, pages, bytes }] of this.#regions.entries()) {
      const ranges = this.#huge[block] ? [0, bytes] : absentRanges(this.present, firstPfn, pages);
      this.#writer.discard(block, ranges);
      isWhole &&= ranges.length === 0;
    }
    // Without any discard QEMU waits for ever. So one page goes again: what the last one holds is known.
    const { pfn, isZero, bytes } = this.#last;
    const again = (what: (block: number, page: number) => void) =>
      eachPiece(this.#regions, pfn, isWhole ? 1 : 0, (region, page) => what(this.#regions.indexOf(region), page));
    again((block, page) => this.#writer.discard(block, [page * PAGE_BYTES, PAGE_BYTES]));
    this.#writer.runNow({ sections, description: null });
    this.#hand(false);
    again((block, page) => this.#send(block, page, isZero ? null : bytes, 0));
    this.#hand(false);
    this.#backlog = this.#huge.flatMap((huge, block) => huge?.complete.map((number) => [block, number] as const) ?? []);
    this.#feed();
  }

  /** QEMU waits for these bytes of a block. */
  request(block: number, start: number, bytes: number): void {
    const { firstPfn } = this.#regions[block]!;
    const huge = this.#huge[block];
    if (huge) {
      const number = Math.floor(start / PAGE_BYTES / huge.pages);
      huge.wanted.add(number);
      this.#sendWhole(block, number);
    }
    for (let at = start; at < start + bytes; at += PAGE_BYTES) {
      const pfn = firstPfn + at / PAGE_BYTES;
      if (hasBit(this.present, pfn)) {
        // It came before QEMU asked.
        this.#outlet.hurry(pfn);
      } else if (!this.#waited.has(pfn)) {
        this.#waited.add(pfn);
        this.#onFault?.(pfn);
      }
    }
  }

  /** Every page was put. */
  end(): void {
    for (const [block, number] of this.#backlog.splice(0)) this.#sendWhole(block, number);
    this.#writer.end();
    this.#hand(false);
  }

  #note(pfn: number, memory: Uint8Array | null, at: number): void {
    this.#last.pfn = pfn;
    this.#last.isZero = !memory;
    if (memory) this.#last.bytes.set(memory.subarray(at, at + PAGE_BYTES));
  }

  /** This page is there from now on. */
  #take(block: number, page: number, memory: Uint8Array | null, at: number): void {
    const pfn = this.#regions[block]!.firstPfn + page;
    const isNew = !hasBit(this.present, pfn);
    setBit(this.present, pfn);
    this.#waited.delete(pfn);
    const huge = this.#huge[block];
    if (!huge) return this.#send(block, page, memory, at);
    huge.put(page, memory, at, isNew);
    if (this.#isHandedOver) this.#sendWhole(block, Math.floor(page / huge.pages));
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

  /** More of what was complete before the state. */
  #feed(): void {
    while (this.#outlet.isLow && this.#backlog.length > 0) this.#sendWhole(...this.#backlog.pop()!);
  }

  #send(block: number, page: number, memory: Uint8Array | null, at: number): void {
    const pfn = this.#regions[block]!.firstPfn + page;
    this.#first = Math.min(this.#first, pfn);
    this.#end = Math.max(this.#end, pfn + 1);
    if (memory) this.#writer.page(block, page * PAGE_BYTES, memory, at);
    else this.#writer.zero(block, page * PAGE_BYTES);
  }

  /** What was written goes; once QEMU has the state, as a piece of its own. */
  #hand(isUrgent: boolean): void {
    if (this.#isHandedOver) this.#writer.cut();
    if (this.#parts.length === 0) return;
    this.#outlet.put({ parts: this.#parts, first: this.#first, end: this.#end }, isUrgent);
    this.#parts = [];
    this.#first = Number.POSITIVE_INFINITY;
    this.#end = 0;
  }
}
