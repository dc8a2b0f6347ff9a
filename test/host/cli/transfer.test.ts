// What leaves is what arrives: abdm eject and abdm merge over hand-started intermediates, and directly.
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { seededPages } from '../../pages.js';
import { Abdm, cleanUp, directory, intermediates } from './processes.js';

afterEach(cleanUp);

/** Moves files, by name, and gives both outcomes. */
async function move(files: Record<string, string>, out: string, how: string[], mergeArgs: string[] = []) {
  const names = Object.keys(files);
  const targets = names.map((name) => `${name}=file:${join(out, name)}`);
  const destination = new Abdm(['merge', ...targets, '--listen', '127.0.0.1:0', ...mergeArgs]);
  const images = names.map((name) => `${name}=file:${files[name]}`);
  const source = new Abdm(['eject', ...images, '--to', await destination.address(), ...how]);
  return Promise.all([source.done, destination.done]);
}

/** `cmp`, which stops at the first difference and holds neither file in memory. */
function same(a: string, b: string): boolean {
  try {
    execFileSync('cmp', ['-s', a, b]);
    return true;
  } catch {
    return false;
  }
}

/** So many MiB of mixed content: seeded pages, zeros, repeats of earlier pieces, and this Node's own code. */
function writeMixed(path: string, mebibytes: number): void {
  const code = readFileSync(process.execPath);
  const seeded = seededPages(77, 4096);
  const file = openSync(path, 'w');
  for (let i = 0; i < mebibytes; i++) {
    if (i % 4 === 3) continue;
    const piece = i % 4 === 1 ? code : seeded;
    const at = ((i * 0x9e3779b1) >>> 0) % (piece.length - 2 ** 20);
    // Every other piece begins off a page boundary: its pages are new ones.
    writeSync(file, piece, i % 8 < 4 ? at - (at % 4096) : at, 2 ** 20, i * 2 ** 20);
  }
  closeSync(file);
  truncateSync(path, mebibytes * 2 ** 20);
}

describe('an image that went through intermediates is the same', () => {
  const images: Record<string, (path: string) => void> = {
    'an empty file': (path) => writeFileSync(path, ''),
    'one byte': (path) => writeFileSync(path, 'x'),
    'a size that is no multiple of 4096': (path) => writeFileSync(path, seededPages(31, 100).subarray(0, 300_001)),
    'all zeros': (path) => writeFileSync(path, new Uint8Array(9_000_000)),
    random: (path) => writeFileSync(path, seededPages(32, 2000, ['random'])),
    'mixed, 64 MiB': (path) => writeMixed(path, 64),
    'mixed, 512 MiB': (path) => writeMixed(path, 512),
  };
  for (const [name, write] of Object.entries(images)) {
    test(name, { timeout: 180_000 }, async () => {
      const dir = directory();
      write(join(dir, 'in'));
      const { nodes, list } = await intermediates(3, '1G');
      const [source, destination] = await move({ a: join(dir, 'in') }, dir, ['--intermediates', list]);
      expect(source.stderr + destination.stderr).toBe('');
      expect([source.code, destination.code]).toEqual([0, 0]);
      expect(same(join(dir, 'in'), join(dir, 'a'))).toBe(true);
      expect(destination.summary.vms[0]).toMatchObject({ name: 'a', verified: true });
      const { zeroPages, duplicatePages, compressedPages, normalPages, pages } = source.summary.vms[0];
      expect(zeroPages + duplicatePages + compressedPages + normalPages).toBe(pages);
      expect(destination.summary.vms[0]).toMatchObject({ zeroPages, duplicatePages, compressedPages, normalPages });
      expect(readdirSync(dir).sort()).toEqual(['a', 'in']);
      // Memory stays bounded, whatever the image's size: the largest would not fit.
      expect(source.summary.peakRssBytes).toBeLessThan(300e6);
      for (const node of nodes) expect((await node.stop()).code).toBe(0);
    });
  }
});

describe('several images leave together', () => {
  test('and share their content', async () => {
    const dir = directory();
    writeFileSync(join(dir, 'in1'), seededPages(33, 500, ['text', 'random', 'zero']));
    writeFileSync(join(dir, 'in2'), seededPages(33, 400, ['text', 'random', 'zero']));
    writeFileSync(join(dir, 'in3'), '');
    const { list } = await intermediates(2);
    const files = { vm1: join(dir, 'in1'), vm2: join(dir, 'in2'), vm3: join(dir, 'in3') };
    const [source, destination] = await move(files, dir, ['--intermediates', list]);
    expect([source.code, destination.code]).toEqual([0, 0]);
    for (const i of [1, 2, 3]) expect(same(join(dir, `in${i}`), join(dir, `vm${i}`))).toBe(true);
    // They are divided in turns: of two pages that are the same, either may be the first.
    const [first, second] = source.summary.vms;
    expect(first.duplicatePages + second.duplicatePages + second.zeroPages).toBe(400);
    // Two nodes, and the destination itself.
    expect(source.summary.nodes).toHaveLength(3);
  });
});

test('a destination that takes next to nothing does not hold up the source, however small the frames are', async () => {
  const dir = directory();
  // Duplicates: a frame of them has 2 KB, so that hundreds fit into the least of windows.
  const page = seededPages(34, 64, ['random']);
  const file = openSync(join(dir, 'in'), 'w');
  for (let i = 0; i < 1000; i++) writeSync(file, page);
  closeSync(file);
  const { list } = await intermediates(2);
  const destination = new Abdm(['merge', `a=file:${join(dir, 'a')}`, '--listen', '127.0.0.1:0', '--rate', '20K']);
  const how = ['--to', await destination.address(), '--intermediates', list];
  const source = await new Abdm(['eject', `a=file:${join(dir, 'in')}`, ...how]).done;
  expect(source.code).toBe(0);
  // It takes a second; at the pace of the destination it would be a minute.
  expect(source.summary.exitTimeMs).toBeLessThan(10_000);
  expect((await new Abdm(['rate', 'a', 'off']).done).code).toBe(0);
  expect((await destination.done).code).toBe(0);
  expect(same(join(dir, 'in'), join(dir, 'a'))).toBe(true);
});

describe('an image that went straight to the destination', () => {
  test('is the same, also where the destination is slow and pages travel uncompressed', async () => {
    const dir = directory();
    writeMixed(join(dir, 'in'), 16);
    for (const compress of ['lz4', 'none', 'high']) {
      const how = ['--direct', '--compress', compress];
      const [source, destination] = await move({ a: join(dir, 'in') }, dir, how, ['--rate', '20MB']);
      expect([source.code, destination.code]).toEqual([0, 0]);
      expect(same(join(dir, 'in'), join(dir, 'a'))).toBe(true);
      expect(source.summary).toMatchObject({ direct: true, outcome: 'completed' });
      const leastMs = (source.summary.wireBytes.source / 20e6) * 1000 * 0.9;
      expect(source.summary.exitTimeMs).toBeGreaterThan(leastMs);
      if (compress === 'none') expect(source.summary.vms[0].compressedPages).toBe(0);
    }
  });
});

describe('a process', () => {
  test.skipIf(process.platform !== 'linux')('leaves with all its regions, and goes on afterwards', async () => {
    const dir = directory();
    const script = `const b = Buffer.alloc(20e6); for (let i = 0; i < b.length; i += 8) b.writeDoubleLE(i * 7, i);
      globalThis.b = b; console.log('ready'); setInterval(() => console.log('alive'), 50)`;
    const { spawn } = await import('node:child_process');
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
      const { list } = await intermediates(2);
      const destination = new Abdm(['merge', `p=file:${join(dir, 'out')}`, '--listen', '127.0.0.1:0']);
      const to = await destination.address();
      const source = new Abdm(['eject', `p=process:${child.pid}`, '--to', to, '--intermediates', list]);
      const [left, arrived] = await Promise.all([source.done, destination.done]);
      expect([left.code, arrived.code]).toEqual([0, 0]);
      const { regions } = arrived.events.find(({ type }) => type === 'images').vms[0];
      const bytes = regions.reduce((sum: number, region: { bytes: number }) => sum + region.bytes, 0);
      const out = readFileSync(join(dir, 'out'));
      expect(out.length).toBe(bytes);
      const pattern = Buffer.alloc(4096);
      for (let i = 0; i < 4096; i += 8) pattern.writeDoubleLE((8_192_000 + i) * 7, i);
      expect(out.indexOf(pattern)).toBeGreaterThan(0);
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
    } finally {
      child.kill('SIGKILL');
    }
    expect(existsSync(join(dir, 'out.partial'))).toBe(false);
  });
});
