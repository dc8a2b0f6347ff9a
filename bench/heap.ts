// Pages of a real heap: the memory of a Node process that has just done real work.
//
// Of what there is (a heap snapshot is JSON text that tells of a heap; v8.serialize makes a compact stream) only the memory itself looks
// like what is migrated. The process is a compiler: it compiles this engine's sources, and then writes out the pages of its own private
// memory (heap-child.ts): V8's objects and code, and the C++ heap of binaryen. Addresses and timing make them differ a little from run to
// run. Where a process cannot read its own memory (no /proc), v8.serialize of the package lock's objects stands in, and the output says so.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { serialize } from 'node:v8';
import { ROOT } from './root.js';

export interface Heap {
  bytes: Buffer;
  /** What the pages are, for the output. */
  origin: string;
}

/** By pages: the compiler need not run twice for the same. */
const heaps = new Map<number, Promise<Heap>>();

/** About `pages` pages of heap; the supply goes round if there are fewer. */
export function readHeap(pages: number): Promise<Heap> {
  const heap = heaps.get(pages) ?? makeHeap(pages);
  heaps.set(pages, heap);
  return heap;
}

async function makeHeap(pages: number): Promise<Heap> {
  const folder = await mkdtemp(join(tmpdir(), 'abdm-heap-'));
  try {
    const file = join(folder, 'pages');
    const child = fileURLToPath(new URL('dist-bench/heap-child.js', ROOT));
    await promisify(execFile)(process.execPath, [child, file, String(pages)], {
      cwd: fileURLToPath(ROOT),
      timeout: 60_000,
    });
    return { bytes: await readFile(file), origin: 'memory of a Node process after it compiled the engine' };
  } catch (error) {
    if (process.platform === 'linux') throw error;
    return { bytes: await serialized(), origin: 'v8.serialize: this system shows no process its own memory' };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function serialized(): Promise<Buffer> {
  const lock: unknown = JSON.parse(await readFile(new URL('package-lock.json', ROOT), 'utf8'));
  const parts = [serialize(lock), serialize(Object.entries(lock as object))];
  for (let i = 0; i < 64; i++)
    parts.push(serialize({ i, lock, date: new Date(i * 1e9), numbers: Float64Array.from({ length: 999 }, Math.sin) }));
  return Buffer.concat(parts);
}
