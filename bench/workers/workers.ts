// Two workers, each with a Divider of its own on half of the pages, against one on all of them: what a second core brings, in wall-clock time.
//
// Three threads wait: the one, and the two. In each round the one and then the two (or the other way round) get their turn; a thread does nothing
// while it is not its turn. Each says when it began and ended by the machine's one clock.
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { PAGE_BYTES } from 'abdm';
import type { Recipe } from '../pages.js';
import { ROOT } from '../root.js';
import { type Row, round } from '../rows.js';
import { spread } from '../statistics.js';
import type { WorkerSetup, WorkerTurn } from './worker-child.js';

const WARM_UP_ROUNDS = 3;

export async function measureWorkers(recipe: Recipe, pages: number, rounds: number, key: Uint8Array): Promise<Row> {
  const shared = new SharedArrayBuffer(pages * PAGE_BYTES);
  recipe.fill(new Uint8Array(shared), 'mix');
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const start = async (first: number, count: number) => {
    const workerData: WorkerSetup = { shared, gate, first, pages: count, key };
    const worker = new Worker(new URL('dist-bench/workers/worker-child.js', ROOT), { workerData });
    await once(worker, 'message');
    return worker;
  };
  const one = await Promise.all([start(0, pages)]);
  const two = await Promise.all([start(0, pages / 2), start(pages / 2, pages / 2)]);
  const ratios: number[] = [];
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let turn = -WARM_UP_ROUNDS; turn < rounds; turn++) {
    const order = turn % 2 === 0 ? [one, two] : [two, one];
    const seconds = new Map<Worker[], number>();
    for (const workers of order) seconds.set(workers, await takeTurn(workers, gate));
    if (turn < 0) continue;
    theirs.push(seconds.get(one)!);
    ours.push(seconds.get(two)!);
    ratios.push(seconds.get(one)! / seconds.get(two)!);
  }
  await Promise.all([...one, ...two].map((worker) => worker.terminate()));
  const { median, low, high } = spread(ratios);
  const speed = (seconds: number[]) => round((pages * PAGE_BYTES) / spread(seconds).median / 1e9);
  return {
    type: 'ratio',
    kernel: 'workers',
    pages: 'mix',
    against: 'one-worker',
    ratio: round(median),
    low: round(low),
    high: round(high),
    gbPerS: speed(ours),
    againstGbPerS: speed(theirs),
    rounds,
  };
}

/** From when the first of the workers began to when the last had ended, in seconds. */
async function takeTurn(workers: readonly Worker[], gate: Int32Array): Promise<number> {
  Atomics.store(gate, 0, 0);
  await answers(workers, 'prepare');
  const done = answers(workers, 'divide');
  // They have seen the message and wait at the gate soon; then all begin at once.
  await new Promise((resolve) => setTimeout(resolve, 2));
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  const turns = (await done) as WorkerTurn[];
  return (Math.max(...turns.map(({ endNs }) => endNs)) - Math.min(...turns.map(({ startNs }) => startNs))) / 1e9;
}

async function answers(workers: readonly Worker[], message: string): Promise<unknown[]> {
  return Promise.all(
    workers.map(async (worker) => {
      const answer = once(worker, 'message');
      worker.postMessage(message);
      return (await answer)[0];
    }),
  );
}
