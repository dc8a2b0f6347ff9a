// What has come of a guest's memory, by page: kept (shadow.ts), counted, and told to whoever listens.

import { PAGE_BYTES } from '../../../bindings/abi.js';
import { bitmapFor, clearBit, hasBit, setBit } from '../../guest/bits.js';
import type { RamBlock } from '../../qemu/format.js';
import type { PageHandler } from '../../qemu/ram.js';
import { eachPiece, imageError, layOut, type PageListener, type Region } from '../image.js';
import { Shadow } from './shadow.js';

export class Arrivals implements PageHandler {
  /** RAM blocks, in their order. */
  regions: readonly Region[] = [];
  pages = 0;
  listener: PageListener | null = null;
  shadow = new Shadow(0);
  /** Pages that have not come, of this migration. */
  missing = 0;
  #blocks: readonly RamBlock[] = [];
  #firstPfns: number[] = [];
  /** Pages that have. */
  #arrived = bitmapFor(0);
  /** Pages, of huge ones the first, that were asked for. */
  #requested = bitmapFor(0);

  /** A migration begins: the first says what there is, the others must have the same. @throws {AbdmError} IMAGE. */
  begin(blocks: readonly RamBlock[]): void {
    if (this.pages === 0) this.#lay(blocks);
    else if (JSON.stringify(blocks) !== JSON.stringify(this.#blocks)) {
      throw imageError('the memory of the guest has changed', 'begin anew');
    }
    this.#arrived.fill(0);
    this.#requested.fill(0);
    this.missing = this.pages;
    this.listener?.onAwaited(0, this.pages);
  }

  onPage(block: number, offset: number, bytes: Uint8Array, at: number): void {
    const pfn = this.#firstPfns[block]! + offset / PAGE_BYTES;
    this.shadow.write(pfn, bytes, at);
    this.#came(pfn);
  }

  onZero(block: number, offset: number): void {
    const pfn = this.#firstPfns[block]! + offset / PAGE_BYTES;
    this.shadow.zero(pfn);
    this.#came(pfn);
  }

  /** These bytes come once more; says so of pages that had come: the others are awaited anyway. */
  onDiscard(block: number, start: number, bytes: number): void {
    const first = this.#firstPfns[block]! + start / PAGE_BYTES;
    const end = first + bytes / PAGE_BYTES;
    for (let pfn = first; pfn < end; pfn++) {
      const from = pfn;
      while (pfn < end && hasBit(this.#arrived, pfn)) clearBit(this.#arrived, pfn++);
      if (pfn === from) continue;
      this.missing += pfn - from;
      this.listener?.onAwaited(from, pfn - from);
    }
  }

  /** All has come: what has not is zero, as QEMU leaves out what it knows that the guest does not use. */
  end(): void {
    for (let pfn = 0; pfn < this.pages; pfn++) {
      if (hasBit(this.#arrived, pfn)) continue;
      this.shadow.zero(pfn);
      this.#came(pfn);
    }
  }

  /** Tells what has come already. */
  replay(): void {
    for (let pfn = 0; pfn < this.pages; pfn++) if (hasBit(this.#arrived, pfn)) this.listener?.onPage(pfn);
  }

  /** Somebody waits for this page: calls `ask` with where it is, unless it has come, or its host's page was asked for. */
  want(pfn: number, ask: (block: number, offset: number) => void): void {
    if (hasBit(this.#arrived, pfn)) return;
    eachPiece(this.regions, pfn, 1, (region, page) => {
      const block = this.regions.indexOf(region);
      const hostPages = this.#blocks[block]!.hostPageBytes / PAGE_BYTES;
      const first = page - (page % hostPages);
      if (hasBit(this.#requested, region.firstPfn + first)) return;
      setBit(this.#requested, region.firstPfn + first);
      ask(block, first * PAGE_BYTES);
    });
  }

  #came(pfn: number): void {
    if (!hasBit(this.#arrived, pfn)) this.missing--;
    setBit(this.#arrived, pfn);
    this.listener?.onPage(pfn);
  }

  #lay(blocks: readonly RamBlock[]): void {
    for (const { name, bytes, hostPageBytes } of blocks) {
      if (bytes % hostPageBytes === 0) continue;
      const what = `RAM block ${name} has ${bytes} bytes in pages of ${hostPageBytes}`;
      throw imageError(what, 'give it whole pages: QEMU cannot take it in otherwise');
    }
    this.#blocks = blocks;
    this.regions = layOut(blocks.map(({ name, bytes }) => ({ name, address: 0, bytes })));
    this.pages = this.regions.reduce((sum, { pages }) => sum + pages, 0);
    this.#firstPfns = this.regions.map(({ firstPfn }) => firstPfn);
    this.shadow = new Shadow(this.pages);
    this.#arrived = bitmapFor(this.pages);
    this.#requested = bitmapFor(this.pages);
  }
}
