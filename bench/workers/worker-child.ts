// A worker with a Divider of its own (workers.ts). Its pages lie in its engine's memory; they are stamped before each turn, so that none is a
// duplicate of a page of an earlier turn.
import { parentPort, workerData } from 'node:worker_threads';
import { type Batch, Divider, FRAME_PAGES, PAGE_BYTES } from 'abdm';

export interface WorkerSetup {
  shared: SharedArrayBuffer;
  /** 1: go. */
  gate: Int32Array;
  first: number;
  pages: number;
  key: Uint8Array;
}

export interface WorkerTurn {
  startNs: number;
  endNs: number;
}

const { shared, gate, first, pages, key } = workerData as WorkerSetup;
const ZERO = Buffer.alloc(PAGE_BYTES);
const all = new Uint8Array(shared);
const batches: Batch[] = [];
const divider = await Divider.create({ key, batches: pages / FRAME_PAGES });
for (let page = first; page < first + pages; page += FRAME_PAGES) {
  const batch = divider.acquire();
  batch.bytes.set(all.subarray(page * PAGE_BYTES, (page + FRAME_PAGES) * PAGE_BYTES));
  batches.push(batch);
}
/** In each batch, where the pages that are not zero begin. */
const used = batches.map(({ bytes }) =>
  Array.from({ length: FRAME_PAGES }, (_, i) => i * PAGE_BYTES).filter(
    (at) => Buffer.compare(bytes.subarray(at, at + PAGE_BYTES), ZERO) !== 0,
  ),
);
let pass = 0;

function prepare(): void {
  pass++;
  batches.forEach(({ bytes }, i) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (const at of used[i]!) view.setUint32(at + PAGE_BYTES - 8, pass, true);
  });
}

function divide(): WorkerTurn {
  Atomics.wait(gate, 0, 0);
  const startNs = Number(process.hrtime.bigint());
  batches.forEach((batch, i) => {
    const frames = divider.divide(batch, { vm: 0, base: first + i * FRAME_PAGES, pages: FRAME_PAGES });
    for (const frame of frames) frame.release();
  });
  return { startNs, endNs: Number(process.hrtime.bigint()) };
}

parentPort!.on('message', (message: string) => {
  if (message === 'divide') return parentPort!.postMessage(divide());
  prepare();
  parentPort!.postMessage('prepared');
});
parentPort!.postMessage('ready');
