// npm run bench:cycles -- [--quick] [--kernel NAME,...] [--pages CLASS,...]: nanoseconds and cycles that a page takes each side that runs in this
// process: from memory, in the cache (64 pages in turn), and one page again and again, whose branches the CPU foresees in the end. What README.md says
// about bounds was measured with it.
//
// Cycles, though nobody lets a program in a virtual machine count them: before and after each turn a chain of dependent multiplications and
// additions is timed, of which every x86-64 core of the last fifteen years takes four cycles a link. So a clock that changes does not matter.
import { sliceAt } from './interleave.js';
import { KEY } from './kernels/divide.js';
import { KERNELS } from './kernels.js';
import { parseOptions } from './options.js';
import { createRecipe, PAGE_CLASSES } from './pages.js';
import { Pool } from './pool.js';
import { isLocal, type LocalSide } from './sides.js';
import { spread } from './statistics.js';

const LINKS = 400_000;
const CYCLES_PER_LINK = 4;
/** They fit a second-level cache with all that is made of them. */
const CACHED_PAGES = 64;

const { sizes, wantsKernel, wantsPages } = parseOptions(process.argv.slice(2));
const plan = { ...sizes, slices: sizes.pages / sizes.slicePages };
let chain = 1;

/** CPU time, user and system, in nanoseconds. */
function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1e3;
}

/** Cycles a nanosecond, now. */
function clock(): number {
  const start = cpuTime();
  let x = chain;
  for (let i = 0; i < LINKS; i++) x = (Math.imul(x, 0x2545f491) + 1) | 0;
  chain = x;
  return (LINKS * CYCLES_PER_LINK) / (cpuTime() - start);
}

/** Medians of nanoseconds and cycles a page. */
function measure(pages: number, turn: (round: number) => void): { nanoseconds: number; cycles: number } {
  const nanoseconds: number[] = [];
  const cycles: number[] = [];
  for (let round = 0; round < sizes.rounds; round++) {
    const before = clock();
    const start = cpuTime();
    turn(round);
    const taken = (cpuTime() - start) / pages;
    nanoseconds.push(taken);
    cycles.push((taken * (before + clock())) / 2);
  }
  return { nanoseconds: spread(nanoseconds).median, cycles: spread(cycles).median };
}

/** `pages` pages again and again; in each round others. */
function again(side: LocalSide, pages: number) {
  return measure(plan.slicePages, (round) => {
    for (let done = 0; done < plan.slicePages; done += pages) side.run({ first: round * CACHED_PAGES, pages, pass: 0 });
  });
}

function report(kernel: string, pages: string, side: LocalSide): void {
  const cold = () =>
    measure(plan.slicePages, (round) => {
      side.run(sliceAt(plan, round % plan.slices, 0));
    });
  cold(); // Until V8 has compiled what is hot.
  const columns = [cold(), again(side, CACHED_PAGES), again(side, 1)].map(
    ({ nanoseconds, cycles }) => `${nanoseconds.toFixed(0).padStart(7)} ns ${cycles.toFixed(0).padStart(6)} cycles`,
  );
  console.log(`${kernel.padEnd(15)}${pages.padEnd(8)}${side.name.padEnd(18)}${columns.join(' |')}`);
}

const recipe = await createRecipe(sizes.pages, Math.min(sizes.slicePages, 1024));
for (const pages of PAGE_CLASSES.filter(wantsPages)) {
  const pool = await Pool.create(recipe, pages, sizes.pages, KEY);
  for (const kernel of KERNELS.filter(({ name }) => wantsKernel(name) && name !== 'divide' && name !== 'merge')) {
    if (!kernel.pages.includes(pages)) continue;
    for (const side of await kernel.sides({ pool, native: undefined })) {
      if (isLocal(side)) report(kernel.name, pages, side);
    }
  }
}
