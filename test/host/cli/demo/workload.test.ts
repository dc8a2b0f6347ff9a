import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { deflateRawSync } from 'node:zlib';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { HeapBuilder } from '#abdm/host/cli/demo/heap.js';
import { startWorkload, writeHeapFile } from '#abdm/host/cli/demo/workload.js';
import { statOf } from '#abdm/host/image/proc.js';
import { continueStopped, openProcess } from '#abdm/host/image/process.js';
import { child, tempDir } from '../../temp.js';

const PAGE = 4096;
const MIB = 1024 * 1024;
const dist = (path: string) => fileURLToPath(new URL(`../../../../dist/${path}`, import.meta.url));

/** Pages by kind, as the engine would see them; deflate stands in for LZ4. */
function kinds(image: Buffer) {
  const seen = new Set<string>();
  const count = { zero: 0, duplicate: 0, compressed: 0, normal: 0 };
  for (let at = 0; at + PAGE <= image.length; at += PAGE) {
    const page = image.subarray(at, at + PAGE);
    const key = page.toString('latin1');
    if (page.every((byte) => byte === 0)) count.zero++;
    else if (seen.has(key)) count.duplicate++;
    else if (deflateRawSync(page, { level: 1 }).length < PAGE * 0.95) count.compressed++;
    else count.normal++;
    seen.add(key);
  }
  return count;
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return statOf(pid).state !== 'Z';
  } catch {
    return false;
  }
}

async function goneWithin(pid: number, ms: number): Promise<boolean> {
  const deadline = performance.now() + ms;
  while (performance.now() < deadline) {
    if (!exists(pid)) return true;
    await setTimeout(20);
  }
  return false;
}

test('units are the same in every run, save what is random, and differ from one another', () => {
  const [one, two] = [new HeapBuilder(3), new HeapBuilder(3)];
  const units = [one.unit(0), one.unit(1), two.unit(0)];
  one.close();
  two.close();
  const same = (a: number, b: number) =>
    units[a]!.buffers.map((buffer, i) => Buffer.compare(buffer, units[b]!.buffers[i]!) === 0);
  // log, source, binary, compressed, random, zeros, unused, cached
  expect(same(0, 2)).toEqual([true, true, true, true, false, true, true, true]);
  expect(same(0, 1)).toEqual([false, false, false, false, false, true, true, false]);
  expect(units[0]!.objects[0]).toEqual(units[2]!.objects[0]);
});

test.each([0, 1, PAGE, 20 * MIB + 123])('a heap file of %i bytes', (bytes) => {
  const path = join(tempDir(), 'heap');
  writeHeapFile(path, bytes);
  expect(statSync(path).size).toBe(bytes);
  if (bytes < MIB) return;
  const { zero, duplicate, compressed, normal } = kinds(readFileSync(path));
  for (const pages of [zero, duplicate, compressed, normal]) expect(pages).toBeGreaterThan(0.03 * (bytes / PAGE));
});

describe.runIf(process.platform === 'linux')('the process', () => {
  afterEach(continueStopped);

  test('holds all kinds of pages, and ends when told, even while it is stopped', async () => {
    const workload = await startWorkload(32 * MIB);
    onTestFinished(() => workload.stop());
    const source = await openProcess(workload.pid);
    const heap = Buffer.concat(
      source.regions
        // What Node itself takes is not what this is about.
        .filter(({ name }) => name === '[heap]' || name.startsWith('[anon'))
        .map(({ firstPfn, pages }) => {
          const bytes = Buffer.alloc(pages * PAGE);
          source.read(firstPfn, pages, bytes, 0);
          return bytes;
        }),
    );
    const { zero, duplicate, compressed, normal } = kinds(heap);
    const filled = (duplicate + compressed + normal) * PAGE;
    expect(filled).toBeGreaterThan(20 * MIB);
    expect(filled).toBeLessThan(100 * MIB);
    expect(duplicate * PAGE).toBeGreaterThan(MIB);
    expect(normal * PAGE).toBeGreaterThan(4 * MIB);
    expect(compressed * PAGE).toBeGreaterThan(10 * MIB);
    expect(zero * PAGE).toBeGreaterThan(MIB);
    expect(heap.includes('"method":"DELETE"')).toBe(true);
    await workload.stop();
    expect(exists(workload.pid)).toBe(false);
  });

  test('ends with the one that started it', async () => {
    const script = `const { startWorkload } = await import(process.argv[1]); console.log((await startWorkload(1)).pid)`;
    const module = `file://${dist('host/cli/demo/workload.js')}`;
    const parent = await child(process.execPath, ['--input-type=module', '-e', script, module]);
    const pid = Number(parent.line);
    expect(exists(pid)).toBe(true);
    parent.process.kill('SIGKILL');
    expect(await goneWithin(pid, 5000)).toBe(true);
  });

  test('without a channel it prints `ready`, and still ends with its parent', async () => {
    const script = `const { spawn } = require('node:child_process');
      const started = spawn(process.execPath, [process.argv[1], '1'], { stdio: ['ignore', 'pipe', 'inherit'] });
      started.stdout.once('data', (text) => console.log(started.pid, String(text).trim()))`;
    const parent = await child(process.execPath, ['-e', script, dist('host/cli/demo/workload-child.js')]);
    const [pid, word] = parent.line.split(' ');
    expect(word).toBe('ready');
    parent.process.kill('SIGKILL');
    expect(await goneWithin(Number(pid), 5000)).toBe(true);
  });
});
