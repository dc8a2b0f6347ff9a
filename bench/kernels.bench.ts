// npm run bench -- [--quick] [--kernel NAME,...] [--pages CLASS,...]: a benny suite for each kernel and class of pages, to look at while working
// on a kernel. benny resolves differences of 20 % at best; figures that are quoted come from bench:ratio.
//
// A case's operation is one slice of the pool, with what prepares it (stamps, received frames; the same for all); the next operation takes the
// next slice, and all pages are larger than a cache.
import { hash } from 'node:crypto';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { PAGE_BYTES } from 'abdm';
import benny from 'benny';
import { type Plan, sliceAt } from './interleave.js';
import { KEY } from './kernels/divide.js';
import { KERNELS } from './kernels.js';
import { type Options, parseOptions } from './options.js';
import { createRecipe, PAGE_CLASSES } from './pages.js';
import { Pool } from './pool.js';
import { isLocal, type Kernel, type LocalSide, type Side } from './sides.js';

const options = parseOptions(process.argv.slice(2));
const { sizes } = options;
const plan: Plan = { ...sizes, slices: sizes.pages / sizes.slicePages };
const timing = options.quick ? { minSamples: 5, maxTime: 0.3 } : { minSamples: 20, maxTime: 3 };
let passes = 0;

/** The side as a function that does the next slice with each call. A pass may begin with what takes time: then the function is async. */
async function operation(side: LocalSide): Promise<() => unknown> {
  let index = 0;
  let pass = ++passes;
  const next = () => {
    const slice = sliceAt(plan, index++, pass);
    side.prepare?.(slice);
    return side.run(slice);
  };
  await side.begin?.();
  const wraps = () => {
    if (index < plan.slices) return false;
    index = 0;
    pass = ++passes;
    return true;
  };
  if (!side.begin) {
    return () => {
      wraps();
      return next();
    };
  }
  return async () => {
    if (wraps()) await side.begin!();
    return next();
  };
}

async function suite(kernel: Kernel, pool: Pool, { quick }: Options): Promise<void> {
  const sides: Side[] = [...(await kernel.sides({ pool, native: undefined })), ...zlibSides(kernel, pool)];
  const cases = await Promise.all(
    sides.filter(isLocal).map(async (side) => ({ name: side.name, run: await operation(side) })),
  );
  const speed = (ops: number) => `${((ops * plan.slicePages * PAGE_BYTES) / 1e9).toFixed(3)} GB/s`;
  await benny.suite(
    `${kernel.name}, ${pool.pageClass}${quick ? ' (quick)' : ''}`,
    ...cases.map(({ name, run }) => benny.add(name, run as () => void, timing)),
    benny.cycle(({ name, ops, margin }) => `  ${name.padEnd(36)}${speed(ops).padStart(14)}  ±${margin} %`),
    benny.complete(({ fastest }) => console.log(`  fastest: ${fastest.name}\n`)),
  );
}

/** What comes with Node, and would be taken by who wants no package at all. Slow: not worth a round of bench:ratio. */
function zlibSides(kernel: Kernel, { views }: Pool): LocalSide[] {
  const deflate = (page: Buffer) => deflateRawSync(page, { level: 1 });
  if (kernel.name === 'lz4.compress') {
    return [each('node:zlib', views, (page) => Math.min(deflate(page).length, PAGE_BYTES))];
  }
  if (kernel.name === 'lz4.decompress') {
    return [each('node:zlib', views.map(deflate), (block) => Number(inflateRawSync(block).length === PAGE_BYTES))];
  }
  if (kernel.name === 'xxh3') return [each('node:crypto (sha1)', views, (page) => hash('sha1', page, 'hex').length)];
  return [];
}

function each(name: string, items: readonly Buffer[], job: (item: Buffer) => number): LocalSide {
  return {
    name,
    run({ first, pages }) {
      let sum = 0;
      for (let i = first; i < first + pages; i++) sum += job(items[i]!);
      return sum;
    },
  };
}

const recipe = await createRecipe(sizes.pages, Math.min(sizes.slicePages, 1024));
for (const pages of PAGE_CLASSES.filter(options.wantsPages)) {
  const pool = await Pool.create(recipe, pages, sizes.pages, KEY);
  for (const kernel of KERNELS.filter(({ name }) => options.wantsKernel(name))) await suite(kernel, pool, options);
}
