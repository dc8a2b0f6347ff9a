// For tests of the sink: a guest as it was recorded from a real QEMU, which is brought to another one page by page.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { hasBit } from '#abdm/host/guest/bits.js';
import { eachPiece, type GuestSink, type ImageShape, layOut, type Region } from '#abdm/host/image/image.js';
import { encodeSetup } from '#abdm/host/image/qemu/setup.js';
import { openIncomingQemu } from '#abdm/host/image/qemu/sink.js';
import { encodeState } from '#abdm/host/image/qemu/state.js';
import { seeded } from '../../../engine.js';
import { Drained, parse } from '../../qemu/events.js';
import { type Qemu, record, startQemu } from '../../qemu/qemu.js';
import { tempDir } from '../../temp.js';

/** As many as a frame has. */
const SOME = 64;

/** A guest that stands still, with all of its memory. */
export class Standing {
  readonly regions: readonly Region[];
  readonly shape: ImageShape;
  readonly pages: number;
  readonly state: Uint8Array;

  constructor(
    readonly drained: Drained,
    wasRunning = true,
  ) {
    const { configuration, blocks, state } = drained;
    this.regions = layOut(blocks.map(({ name, bytes }) => ({ name, address: 0, bytes })));
    this.pages = this.regions.reduce((sum, { pages }) => sum + pages, 0);
    const setup = encodeSetup({ configuration: configuration!, version: '7.2.0', blocks });
    this.shape = { bytes: this.pages * 4096, regions: this.regions, setup };
    this.state = encodeState({ wasRunning, sections: state!.sections });
  }

  /** null: it is zero. */
  page(pfn: number): Uint8Array | null {
    let bytes: Uint8Array | null = null;
    eachPiece(this.regions, pfn, 1, (region, page) => {
      bytes = this.drained.pages[this.regions.indexOf(region)]!.get(page * 4096) ?? null;
    });
    return bytes;
  }

  copy(sink: GuestSink, pfn: number): void {
    const bytes = this.page(pfn);
    if (bytes) sink.write(pfn, bytes, 0, 4096);
    else sink.zero(pfn, 1);
  }

  /** All pages in an order of their own. */
  shuffled(seed: number): number[] {
    const random = seeded(seed);
    const pfns = Array.from({ length: this.pages }, (_, pfn) => pfn);
    for (let i = pfns.length - 1; i > 0; i--) {
      const other = random() % (i + 1);
      [pfns[i], pfns[other]] = [pfns[other]!, pfns[i]!];
    }
    return pfns;
  }

  /** Brings what is not there, while others ask for pages: those come a little later. Returns how many were asked for. */
  async rest(sink: GuestSink, order: readonly number[], pauseMs = 0): Promise<number> {
    const asked = new Set<number>();
    const late: number[] = [];
    sink.onFault = (pfn) => {
      if (asked.has(pfn)) throw new Error(`page ${pfn} was asked for twice`);
      asked.add(pfn);
      late.push(pfn);
    };
    const bring = (pfn: number) => {
      if (!hasBit(sink.present, pfn)) this.copy(sink, pfn);
    };
    for (let at = 0; at < order.length || late.length > 0; at += SOME) {
      await sleep(pauseMs);
      for (const pfn of late.splice(0)) bring(pfn);
      for (const pfn of order.slice(at, at + SOME)) bring(pfn);
    }
    return asked.size;
  }
}

let recorded: Promise<Drained> | null = null;

/** One without a kernel, recorded once. */
export async function small(wasRunning = true): Promise<Standing> {
  recorded ??= record(false).then((stream) => parse(stream, new Drained()));
  return new Standing(await recorded, wasRunning);
}

export interface Waiting extends Qemu {
  /** Of a monitor that nobody else uses. */
  readonly path: string;
}

/** A QEMU that waits for a guest. */
export async function waiting(machine?: string[], how = ['-incoming', 'defer']): Promise<Waiting> {
  const path = join(tempDir(), 'qmp');
  const qemu = await startQemu([...how, '-qmp', `unix:${path},server=on,wait=off`], machine);
  return { ...qemu, path };
}

/** The sink of a QEMU; let go of with the test. */
export async function opened(path: string, shape: ImageShape): Promise<GuestSink> {
  const sink = await openIncomingQemu(path, shape);
  onTestFinished(() => sink.discard());
  return sink;
}

/** Resolves when it is gone, to why. */
export function gone(sink: GuestSink): Promise<Error> {
  return new Promise((resolve) => {
    sink.onGone = resolve;
  });
}
