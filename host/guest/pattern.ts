// Which page an operation touches. The pages of the working set are numbered from 0; where they lie is spread over the whole memory, in extents of
// 16 pages, so that a working set is not one range.

import { PAGE_BYTES } from '../../bindings/abi.js';
import type { Random } from './random.js';
import type { Workload } from './workload.js';

const EXTENT_PAGES = 16;
/** How unequal pages of `zipf` are: the k-th most popular is touched in proportion to 1 / k^s. */
const SKEW = 0.99;

/** The number of a page in the working set; `position` counts the operations of the stream that asks. */
export type Draw = (random: Random, position: number) => number;

export function drawOf({ pattern, workingSetBytes, vcpus }: Workload): (stream: number) => Draw {
  const pages = workingSetBytes / PAGE_BYTES;
  switch (pattern) {
    case 'uniform':
      return () => (random) => Math.floor(random.share() * pages);
    case 'zipf': {
      const rank = zipf(pages);
      const scattered = scatter(pages);
      return () => (random) => scattered(rank(random) - 1);
    }
    case 'streaming':
      // Each stream begins elsewhere, and comes round to all pages.
      return (stream) => {
        const first = Math.floor((stream * pages) / vcpus);
        return (_random, position) => (first + position) % pages;
      };
  }
}

/** Where a page of the working set lies in memory. */
export function placeOf({ memoryBytes }: Workload): (index: number) => number {
  // What is left at the end is no whole extent, and stays where it is.
  const extents = Math.floor(memoryBytes / PAGE_BYTES / EXTENT_PAGES);
  const scattered = scatter(extents);
  return (index) => {
    const extent = Math.floor(index / EXTENT_PAGES);
    return extent < extents ? scattered(extent) * EXTENT_PAGES + (index % EXTENT_PAGES) : index;
  };
}

/** A permutation of [0, count) that puts neighbours far from one another: steps of about 0.618 times the whole, prime to it. */
export function scatter(count: number): (index: number) => number {
  let step = Math.max(1, Math.round(count * 0.6180339887));
  while (gcd(step, count) !== 1) step++;
  return (index) => (index * step) % count;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/** Ranks in [1, count] by Zipf's law, exactly, in constant time: rejection-inversion (Hoermann and Derflinger, 1996). */
export function zipf(count: number): (random: Random) => number {
  /** The integral of x^-s from 1 to x, and its inverse. */
  const integral = (x: number) => (x ** (1 - SKEW) - 1) / (1 - SKEW);
  const inverse = (y: number) => (1 + y * (1 - SKEW)) ** (1 / (1 - SKEW));
  const weight = (x: number) => x ** -SKEW;
  const low = integral(1.5) - 1;
  const high = integral(count + 0.5);
  // So close below a draw its rank is surely not to be rejected.
  const sure = 2 - inverse(integral(2.5) - weight(2));
  return (random) => {
    for (;;) {
      const y = high + random.fraction() * (low - high);
      const x = inverse(y);
      const rank = Math.min(count, Math.max(1, Math.round(x)));
      if (rank - x <= sure || y >= integral(rank + 0.5) - weight(rank)) return rank;
    }
  };
}
