// A run of ratios: every kernel on every class of pages that it is measured with, row by row. One class at a time, so that memory holds the pages
// of one only.
import { randomBytes } from 'node:crypto';
import { availableParallelism, loadavg } from 'node:os';
import { PAGE_BYTES } from 'abdm';
import { interleave, type Plan } from './interleave.js';
import { KERNELS } from './kernels.js';
import { describeMachine, judgeNoise } from './machine.js';
import { COMPILER, Native } from './native/native.js';
import type { Options } from './options.js';
import { createRecipe, PAGE_CLASSES } from './pages.js';
import { Pool } from './pool.js';
import { type Line, type Row, round, rowsOf } from './rows.js';
import type { Context } from './sides.js';
import { spread } from './statistics.js';
import { measureWorkers } from './workers/workers.js';

/** Measures, and hands out lines as they come. `withNative` false leaves out the native column. */
export async function measureRatios(options: Options, emit: (line: Line) => void, withNative = true): Promise<void> {
  const { sizes, quick } = options;
  const load = loadavg()[0]!;
  const key = new Uint8Array(randomBytes(32));
  const started = withNative ? await Native.start(key) : 'missing: not asked for';
  const native = typeof started === 'string' ? undefined : started;
  try {
    const recipe = await createRecipe(sizes.pages, Math.min(sizes.slicePages, 1024));
    const column = typeof started === 'string' ? started : `${COMPILER}, liblz4, libxxhash`;
    emit(describeMachine(sizes.pages * PAGE_BYTES, recipe.heapOrigin, column));
    const plan: Plan = { ...sizes, slices: sizes.pages / sizes.slicePages };
    const rows: Row[] = [];
    const add = (row: Row) => {
      rows.push(row);
      emit(row);
    };
    for (const pages of PAGE_CLASSES.filter(options.wantsPages)) {
      const kernels = KERNELS.filter((kernel) => {
        return options.wantsKernel(kernel.name) && (quick ? kernel.quickPages : kernel.pages).includes(pages);
      });
      if (kernels.length === 0) continue;
      const pool = await Pool.create(recipe, pages, sizes.pages, key);
      await native?.loadPages(pool.bytes);
      if (native && pages === 'mix') await bandwidth({ pool, native }, plan, emit);
      for (const kernel of kernels) {
        const measured = await interleave(await kernel.sides({ pool, native }), plan);
        for (const row of rowsOf(kernel.name, pages, measured, plan, kernel.compresses)) add(row);
      }
    }
    if (options.wantsKernel('workers') && options.wantsPages('mix') && availableParallelism() > 1) {
      add(await measureWorkers(recipe, sizes.workerPages, sizes.rounds, key));
    }
    emit(judgeNoise(rows, load));
  } finally {
    await native?.close();
  }
}

/** How fast this machine reads and copies memory, to judge the rest by. */
async function bandwidth({ native }: Context, plan: Plan, emit: (line: Line) => void): Promise<void> {
  for (const what of ['read', 'memcpy']) {
    const [measured] = await interleave([native!.side(what, what)], { ...plan, warmUpMs: 0 });
    const { median } = spread(measured!.seconds);
    emit({ type: 'native', what, gbPerS: round((plan.slicePages * PAGE_BYTES) / median / 1e9) });
  }
}
