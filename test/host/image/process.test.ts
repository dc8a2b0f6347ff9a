import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { hashImage } from '#abdm/host/image/hash.js';
import type { ImageSource } from '#abdm/host/image/image.js';
import { isStopped, parseMaps, parseStat, statOf } from '#abdm/host/image/proc.js';
import { continueStopped, openProcess } from '#abdm/host/image/process.js';
import { child, nodeChild, tempDir, unprivileged } from '../temp.js';

const PAGE = 4096;

function readAll(source: ImageSource, stepPages: number): Buffer {
  const all = Buffer.alloc(source.pages * PAGE);
  for (let pfn = 0; pfn < source.pages; pfn += stepPages) {
    source.read(pfn, Math.min(stepPages, source.pages - pfn), all, pfn * PAGE);
  }
  return all;
}

/** A stopped process takes a moment to run again. */
async function runsAgain(pid: number): Promise<void> {
  while (isStopped(pid)) await setTimeout(1);
}

test('maps: what the process can read, and which of it is zero where it was not touched', () => {
  const text = [
    '00400000-00402000 r--p 00000000 fe:00 260689                             /usr/bin/node',
    '01000000-01001000 rw-p 00000000 00:00 0                                  [heap]',
    '7f0000000000-7f0000001000 ---p 00000000 00:00 0 ',
    '7f0000001000-7f0000003000 rw-p 00000000 00:00 0 ',
    '7f0000003000-7f0000004000 rw-s 00000000 00:01 1024                       /dev/zero (deleted)',
    '7f0000004000-7f0000005000 rw-p 00000000 00:00 0                          [anon:a name]',
    '7ffe9f85f000-7ffe9f880000 rw-p 00000000 00:00 0                          [stack]',
    '7fff00000000-7fff00004000 r--p 00000000 00:00 0                          [vvar]',
    '7fff00004000-7fff00006000 r--p 00000000 00:00 0                          [vvar_vclock]',
    '7fff00006000-7fff00008000 r-xp 00000000 00:00 0                          [vdso]',
    'ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]',
    'ffffffffff600000-ffffffffff601000 r-xp 00000000 00:00 0                  [vsyscall]',
    '',
  ].join('\n');
  expect(parseMaps(text)).toEqual([
    { name: '/usr/bin/node', address: 0x400000, bytes: 0x2000, anonymous: false },
    { name: '[heap]', address: 0x1000000, bytes: 0x1000, anonymous: true },
    { name: '[anon]', address: 0x7f0000001000, bytes: 0x2000, anonymous: true },
    { name: '/dev/zero (deleted)', address: 0x7f0000003000, bytes: 0x1000, anonymous: false },
    { name: '[anon:a name]', address: 0x7f0000004000, bytes: 0x1000, anonymous: true },
    { name: '[stack]', address: 0x7ffe9f85f000, bytes: 0x21000, anonymous: true },
    { name: '[vdso]', address: 0x7fff00006000, bytes: 0x2000, anonymous: false },
  ]);
});

test('stat: the name of a command may hold anything', () => {
  const rest = Array.from({ length: 17 }, (_, i) => i).join(' ');
  expect(parseStat(`12 (a) R (b c) T 1 ${rest} 987654 0\n`)).toEqual({ state: 'T', startTime: '987654' });
});

describe.runIf(process.platform === 'linux')('a process', () => {
  afterEach(continueStopped);

  test('is stopped while it is open, and its memory is all there', async () => {
    // The pattern is made from numbers, so that it is not also the text of the script.
    const script = `const keep = Buffer.alloc(8 << 20); for (let i = 0; i < keep.length; i += 4) keep.writeUInt32LE((i * 2654435761) >>> 0, i);
      globalThis.keep = keep; console.log('ready')`;
    const { pid } = await nodeChild(script);
    const source = await openProcess(pid);
    expect(isStopped(pid)).toBe(true);
    expect(statOf(pid).state).toBe('T');

    const maps = parseMaps(readFileSync(`/proc/${pid}/maps`, 'latin1'));
    expect(source.regions.map(({ name, address, bytes }) => ({ name, address, bytes }))).toEqual(
      maps.map(({ name, address, bytes }) => ({ name, address, bytes })),
    );
    expect(source.bytes).toBe(maps.reduce((sum, { bytes }) => sum + bytes, 0));
    expect(source.pages).toBe(source.bytes / PAGE);
    expect(source.regions.some(({ name }) => name === '[stack]')).toBe(true);
    let firstPfn = 0;
    for (const region of source.regions) {
      expect(region.firstPfn).toBe(firstPfn);
      firstPfn += region.pages;
    }

    const pattern = Buffer.alloc(8 << 20);
    for (let i = 0; i < pattern.length; i += 4) pattern.writeUInt32LE((i * 2654435761) >>> 0, i);
    const image = readAll(source, 256);
    expect(image.includes(pattern)).toBe(true);
    // Steps that begin and end anywhere, most of them across regions, give the same.
    expect(Buffer.compare(readAll(source, 77), image)).toBe(0);
    expect(source.untouchedPages).toBeGreaterThan(0);

    source.close();
    source.close();
    await runsAgain(pid);
    expect(statOf(pid).state).not.toBe('T');
    expect(() => source.read(0, 1, new Uint8Array(PAGE), 0)).toThrow();
  });

  test('equals what the kernel gives page by page, and hashes the same twice', async () => {
    const { pid } = await nodeChild(`console.log('ready')`);
    const source = await openProcess(pid);
    const plain = await openProcess(pid);
    // Without the page map each page is read from memory.
    (plain as unknown as { pagemap: number }).pagemap = -1;
    expect(Buffer.compare(readAll(source, 256), readAll(plain, 1))).toBe(0);
    expect(await hashImage(source)).toBe(await hashImage(plain));
    // It was stopped when the second opened it, so the second leaves it stopped.
    plain.close();
    await setTimeout(20);
    expect(isStopped(pid)).toBe(true);
    source.close();
    await runsAgain(pid);
  });

  test('reading memory that was never touched does not make the process grow', async () => {
    const { pid } = await nodeChild(`globalThis.keep = Buffer.alloc(128 << 20); console.log('ready')`);
    const growth = (name: string) =>
      Number(new RegExp(`${name}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]);
    const source = await openProcess(pid);
    const [rss, tables] = [growth('VmRSS'), growth('VmPTE')];
    const buffer = Buffer.alloc(256 * PAGE);
    for (let pfn = 0; pfn + 256 <= source.pages; pfn += 256) source.read(pfn, 256, buffer, 0);
    expect(source.untouchedPages * PAGE).toBeGreaterThan(100 << 20);
    // 128 MiB of pages would be 256 KiB of tables.
    expect(growth('VmPTE') - tables).toBeLessThan(128);
    // Pages of its files that it had not read yet may come in.
    expect(growth('VmRSS') - rss).toBeLessThan(100_000);
  });

  test('that was stopped before stays stopped', async () => {
    const { pid } = await nodeChild(`console.log('ready')`);
    process.kill(pid, 'SIGSTOP');
    while (!isStopped(pid)) await setTimeout(1);
    const source = await openProcess(pid);
    source.close();
    await setTimeout(50);
    expect(isStopped(pid)).toBe(true);
  });

  test('goes on after continueStopped, as a handler of signals calls it', async () => {
    const { pid } = await nodeChild(`console.log('ready')`);
    await openProcess(pid);
    expect(isStopped(pid)).toBe(true);
    continueStopped();
    await runsAgain(pid);
  });

  test('goes on when the one that reads it ends without closing it', async () => {
    const { pid } = await nodeChild(`console.log('ready')`);
    const module = new URL('../../../dist/host/image/process.js', import.meta.url);
    const script = `const { openProcess } = await import(process.argv[1]); await openProcess(${pid}); process.exit(7)`;
    expect(spawnSync(process.execPath, ['--input-type=module', '-e', script, module.href]).status).toBe(7);
    await runsAgain(pid);
  });

  test('pages that it could not read itself are zeros, and counted', async () => {
    const library = /\S+\/libm\.so\.\d+$|\S+\/libm-\S+\.so$/m.exec(readFileSync('/proc/self/maps', 'latin1'))?.[0];
    if (!library) return; // another libc; nothing to cut short
    const copy = join(tempDir(), 'libshort.so');
    copyFileSync(library, copy);
    const { pid } = await child('sleep', ['60'], { LD_PRELOAD: copy }, true);
    const mapped = () => readFileSync(`/proc/${pid}/maps`, 'latin1').includes(copy) && statOf(pid).state === 'S';
    while (!mapped()) await setTimeout(5);
    truncateSync(copy, PAGE);
    const source = await openProcess(pid);
    const image = readAll(source, 64);
    const text = source.regions.find(
      ({ name, address, bytes }) => name.startsWith(copy) && bytes > 4 * PAGE && address > 0,
    )!;
    expect(source.unreadablePages).toBeGreaterThan(4);
    const begin = text.firstPfn * PAGE;
    expect(image.subarray(begin + 2 * PAGE, begin + text.bytes).every((byte) => byte === 0)).toBe(true);
    // What lies behind the gap is read again.
    const stack = source.regions.find(({ name }) => name === '[stack]')!;
    expect(image.subarray(stack.firstPfn * PAGE).includes('LD_PRELOAD=')).toBe(true);
  });

  test('that ends while it is read says so', async () => {
    const started = await nodeChild(`console.log('ready')`);
    const source = await openProcess(started.pid);
    started.process.kill('SIGKILL');
    await started.ended;
    expect(() => readAll(source, 64)).toThrow(
      expect.objectContaining({ code: 'IMAGE', message: expect.stringMatching(/ended while/) }),
    );
    source.close();
  });

  test('is refused with its reason when it cannot be read', async () => {
    const refused = (message: RegExp) =>
      expect.objectContaining({ code: 'IMAGE', message: expect.stringMatching(message) });
    await expect(openProcess(process.pid)).rejects.toEqual(refused(/is this one/));
    const gone = spawnSync(process.execPath, ['-e', '']);
    await expect(openProcess(gone.pid)).rejects.toEqual(refused(/there is no process/));
    await expect(openProcess(1.5)).rejects.toMatchObject({ code: 'USAGE' });
    await unprivileged(() => expect(openProcess(1)).rejects.toEqual(refused(/CAP_SYS_PTRACE/)));
  });
});
