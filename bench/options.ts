// Options of both benchmarks. A quick run has a quarter of the pages, half the rounds, and only the mix for divide and merge.
import { parseArgs } from 'node:util';
import type { PageClass } from './pages.js';

export interface Sizes {
  /** Of each class. */
  pages: number;
  slicePages: number;
  rounds: number;
  warmUpMs: number;
  /** Of the two workers' mix. */
  workerPages: number;
}

export const FULL: Sizes = { pages: 65_536, slicePages: 2048, rounds: 32, warmUpMs: 500, workerPages: 16_384 };
export const QUICK: Sizes = { pages: 16_384, slicePages: 1024, rounds: 16, warmUpMs: 180, workerPages: 4096 };

export interface Options {
  sizes: Sizes;
  quick: boolean;
  json: boolean;
  wantsKernel(name: string): boolean;
  wantsPages(pages: PageClass): boolean;
}

export const USAGE = 'usage: [--quick] [--json] [--kernel NAME,...] [--pages CLASS,...]';

/** @throws if there is an argument that we do not know. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      kernel: { type: 'string' },
      pages: { type: 'string' },
    },
  });
  const kernels = values.kernel?.split(',');
  const classes = values.pages?.split(',');
  return {
    quick: values.quick,
    json: values.json,
    sizes: values.quick ? QUICK : FULL,
    wantsKernel: (name) => !kernels || kernels.includes(name),
    wantsPages: (pages) => !classes || classes.includes(pages),
  };
}
