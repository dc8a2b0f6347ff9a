// The slow plain twin of the merger's page map: what is wanted of each page, what is in place, and which duplicates wait for what.
import type { ReadSlot } from './frames.js';

/** A frame, and the content of each slot. */
export interface ModelFrame {
  id: number;
  vm: number;
  slots: readonly ReadSlot[];
  contents: readonly number[];
}

interface ModelPage {
  vm: number;
  pfn: number;
  /** A frame's id; a floor stands half below it. */
  wanted: number;
  inPlace: boolean;
  /** What the image has there. */
  content: number;
}

interface Waiting {
  page: ModelPage;
  by: number;
  content: number;
}

export interface Outcome {
  /** `vm:pfn=content` */
  writes: string[];
  superseded: number[];
  waitsFor: number[];
}

export class ModelMap {
  readonly vms: ModelPage[][];
  readonly merged = new Map<number, ModelFrame>();
  readonly #waiting = new Map<number, Waiting[]>();
  readonly #frozen = new Set<number>();

  constructor(pages: readonly number[], contents: (vm: number, pfn: number) => number) {
    this.vms = pages.map((count, vm) =>
      Array.from({ length: count }, (_, pfn) => ({
        vm,
        pfn,
        wanted: 0,
        inPlace: false,
        content: contents(vm, pfn),
      })),
    );
  }

  merge(frame: ModelFrame, sinkReads: boolean): Outcome {
    const out: Outcome = { writes: [], superseded: [], waitsFor: [] };
    const known = this.merged.has(frame.id);
    // As they were before: duplicates are resolved after all else of the frame is in place.
    const waits: { page: ModelPage; slot: ReadSlot; content: number }[] = [];
    for (const [i, slot] of frame.slots.entries()) {
      const page = this.vms[frame.vm]![slot.pfn]!;
      if (!this.#want(page, frame.id, out.superseded)) continue;
      if (slot.at && slot.at.frame !== frame.id) waits.push({ page, slot, content: frame.contents[i]! });
      else this.#put(page, frame.contents[i]!, out);
    }
    for (const { page, slot, content } of waits) {
      const { frame: from, slot: at } = slot.at!;
      const origin = this.merged.get(from);
      const holder = origin && this.vms[origin.vm]![origin.slots[at]!.pfn]!;
      if (!known && holder && sinkReads && holder.content === content) {
        this.#put(page, content, out);
        continue;
      }
      if (!known) this.#waiting.set(from, [...(this.#waiting.get(from) ?? []), { page, by: frame.id, content }]);
      if (!out.waitsFor.includes(from)) out.waitsFor.push(from);
    }
    this.merged.set(frame.id, frame);
    for (const one of this.#waitingFor(frame.id)) this.#put(one.page, one.content, out);
    this.#waiting.delete(frame.id);
    return out;
  }

  expect(frame: ModelFrame): { own: number; superseded: number[] } {
    const superseded: number[] = [];
    const own = frame.slots.filter(({ pfn }) => this.#want(this.vms[frame.vm]![pfn]!, frame.id, superseded));
    return { own: own.length, superseded };
  }

  discard(vm: number, pfns: readonly number[], floor: number): number[] {
    const superseded: number[] = [];
    for (const pfn of pfns) this.#want(this.vms[vm]![pfn]!, floor - 0.5, superseded);
    return superseded;
  }

  freeze(vm: number): void {
    this.#frozen.add(vm);
  }

  adopt(vm: number, pfns: readonly number[]): void {
    for (const pfn of pfns) this.vms[vm]![pfn]!.inPlace = true;
  }

  isAwaited(frame: number): boolean {
    return this.#waitingFor(frame).length > 0;
  }

  newest(vm: number, pfn: number): number {
    const { wanted } = this.vms[vm]![pfn]!;
    return Number.isInteger(wanted) ? wanted : 0;
  }

  #waitingFor(frame: number): Waiting[] {
    return (this.#waiting.get(frame) ?? []).filter(({ page, by }) => page.wanted === by && !page.inPlace);
  }

  #want(page: ModelPage, version: number, superseded: number[]): boolean {
    if (this.#frozen.has(page.vm) && page.inPlace) return false;
    if (page.wanted > version) return false;
    if (page.wanted === version) return !page.inPlace;
    if (!page.inPlace && page.wanted > 0 && Number.isInteger(page.wanted)) superseded.push(page.wanted);
    page.wanted = version;
    page.inPlace = false;
    return true;
  }

  #put(page: ModelPage, content: number, { writes }: Outcome): void {
    page.content = content;
    page.inPlace = true;
    writes.push(`${page.vm}:${page.pfn}=${content}`);
  }
}
