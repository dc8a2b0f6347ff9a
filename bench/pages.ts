// The recipe of the pages that everything is measured with. Fixed: figures of two machines, or of two versions, are about the same pages.
//
//   text    sources of the installed packages        zero     nothing but zeros
//   bin     node's own binary                        random   random bytes from a seed
//   heap    memory of a Node process (heap.ts)       mix      25 % zero, 15 % duplicate, 30 % heap, 15 % bin, 10 % text, 5 % random
//
// Pages come shuffled (seeded), so that every part of a class is like every other. The mix is made in windows that each have exactly its
// shares, and whose duplicates are of pages of the same window: any window can be divided and merged without the others.
//
// text, bin, random, zero and the order of the mix are the same in every run with the same Node and the same packages; heap is not.
import { PAGE_BYTES } from 'abdm';
import { binaries, randomSupply, type Supply, sources, supply } from './corpus.js';
import { readHeap } from './heap.js';

export const PAGE_CLASSES = ['mix', 'text', 'bin', 'heap', 'random', 'zero'] as const;
export type PageClass = (typeof PAGE_CLASSES)[number];

const MIX = { zero: 25, duplicate: 15, heap: 30, bin: 15, text: 10, random: 5 } as const;
type Kind = keyof typeof MIX;
const SEED = 20_260_401;

export interface Recipe {
  /** Fills `target`, whole windows of pages, with pages of a class. The same bytes every time. */
  fill(target: Uint8Array, pages: PageClass): void;
  /** So many windows of the mix one after the other, for what is too large to be filled at once. The view is good until the next one. */
  windows(count: number): Generator<Uint8Array>;
  /** What stands for a heap. */
  readonly heapOrigin: string;
}

/** Reads what pages are made of: enough for `pages` pages a class. `windowPages` is the mix's window. */
export async function createRecipe(pages: number, windowPages: number): Promise<Recipe> {
  const heap = await readHeap(pages);
  const bytes = { heap: heap.bytes, bin: binaries(), text: sources() };
  // A fresh supply for each fill, so that the bytes do not depend on what was filled before.
  const supplies = (): Supplies => ({
    heap: supply(bytes.heap),
    bin: supply(bytes.bin),
    text: supply(bytes.text),
    random: randomSupply(SEED),
  });
  return {
    heapOrigin: heap.origin,
    fill(target, pages) {
      const from = supplies();
      const count = target.length / PAGE_BYTES;
      if (pages === 'zero') target.fill(0);
      else if (pages === 'mix') {
        const windowBytes = windowPages * PAGE_BYTES;
        for (let at = 0; at < target.length; at += windowBytes) {
          fillWindow(target.subarray(at, at + windowBytes), at / PAGE_BYTES, from);
        }
      } else for (const slot of shuffled(count, SEED)) target.set(from[pages](), slot * PAGE_BYTES);
    },
    *windows(count) {
      const from = supplies();
      const window = new Uint8Array(windowPages * PAGE_BYTES);
      for (let i = 0; i < count; i++) {
        fillWindow(window, i * windowPages, from);
        yield window;
      }
    },
  };
}

/** How many pages of each kind a window has; what rounding leaves over or lacks is heap's. */
export function shares(windowPages: number): Record<Kind, number> {
  const made = Object.fromEntries(
    Object.entries(MIX).map(([kind, percent]) => [kind, Math.round((windowPages * percent) / 100)]),
  );
  const counts = made as Record<Kind, number>;
  counts.heap += windowPages - Object.values(counts).reduce((a, b) => a + b);
  return counts;
}

type Supplies = Record<Exclude<Kind, 'zero' | 'duplicate'>, Supply>;

/** A window of the mix whose first page is number `first` of the whole. */
function fillWindow(target: Uint8Array, first: number, from: Supplies): void {
  const windowPages = target.length / PAGE_BYTES;
  const counts = Object.entries(shares(windowPages)) as [Kind, number][];
  const kinds = counts.flatMap(([kind, count]) => Array<Kind>(count).fill(kind));
  const order = shuffled(windowPages, SEED + first);
  const duplicates: number[] = [];
  const originals: number[] = [];
  order.forEach((slot, i) => {
    const at = slot * PAGE_BYTES;
    const kind = kinds[i]!;
    if (kind === 'zero') target.fill(0, at, at + PAGE_BYTES);
    else if (kind === 'duplicate') duplicates.push(at);
    else {
      target.set(from[kind](), at);
      originals.push(at);
    }
  });
  // Each of another page, and evenly of all kinds: `originals` is in the order of the kinds, its stride runs through all of them.
  duplicates.forEach((at, i) => {
    const original = originals[Math.floor((i * originals.length) / duplicates.length)]!;
    target.copyWithin(at, original, original + PAGE_BYTES);
  });
}

/** 0 to `count` - 1 in an order that only the seed decides: Fisher and Yates, with xorshift32. */
function shuffled(count: number, seed: number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  let x = seed >>> 0 || 1;
  for (let i = count - 1; i > 0; i--) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    const j = (x >>> 0) % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
