import { createHash, randomBytes } from 'node:crypto';
import fs, {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import { FileSource } from '#abdm/host/image/file.js';
import { FileSink } from '#abdm/host/image/filesink.js';
import { hashImage } from '#abdm/host/image/hash.js';
import { seeded } from '../../engine.js';
import { tempDir, unprivileged } from '../temp.js';

const PAGE = 4096;
const onLinux = process.platform === 'linux';

/** The message of the IMAGE error that `work` must throw. */
function imageErrorOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(AbdmError);
    expect((error as AbdmError).code).toBe('IMAGE');
    return (error as AbdmError).message;
  }
  throw new Error('nothing was thrown');
}

function sourceOf(content: Uint8Array): FileSource {
  const path = join(tempDir(), 'image');
  writeFileSync(path, content);
  const source = new FileSource(path);
  onTestFinished(() => source.close());
  return source;
}

/** Cuts every read and write of this process to 1000 bytes: what a full disk, a signal or a file server may do at any time. */
function shortCalls(): void {
  const { readSync, writeSync } = fs;
  const cut = (call: unknown) => (fd: number, bytes: Uint8Array, offset: number, length: number, position: number) =>
    (call as (...args: unknown[]) => number)(fd, bytes, offset, Math.min(length, 1000), position);
  Object.assign(fs, { readSync: cut(readSync), writeSync: cut(writeSync) });
  syncBuiltinESMExports();
  onTestFinished(() => {
    Object.assign(fs, { readSync, writeSync });
    syncBuiltinESMExports();
  });
}

describe('source', () => {
  test.each([0, 1, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE + 77])('a file of %i bytes', async (bytes) => {
    const content = randomBytes(bytes);
    const source = sourceOf(content);
    const pages = Math.ceil(bytes / PAGE);
    expect([source.bytes, source.pages]).toEqual([bytes, pages]);
    expect(source.regions).toEqual(bytes ? [{ name: 'file', address: 0, bytes, firstPfn: 0, pages }] : []);
    const memory = new Uint8Array(pages * PAGE + 64).fill(0xaa);
    source.read(0, pages, memory, 32);
    const padded = Buffer.concat([content, Buffer.alloc(pages * PAGE - bytes)]);
    expect(Buffer.compare(memory.subarray(32, 32 + pages * PAGE), padded)).toBe(0);
    expect([...memory.subarray(0, 32), ...memory.subarray(32 + pages * PAGE)].every((byte) => byte === 0xaa)).toBe(
      true,
    );
    expect(await hashImage(source)).toBe(createHash('sha256').update(content).digest('hex'));
  });

  test('any run of pages, into wasm memory, also when reads come short', () => {
    const content = randomBytes(20 * PAGE + 5);
    const source = sourceOf(content);
    shortCalls();
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: 2, maximum: 2 }).buffer);
    fc.assert(
      fc.property(fc.nat(20), fc.nat(21), (pfn, count) => {
        const pages = Math.min(count, 21 - pfn);
        memory.fill(1);
        source.read(pfn, pages, memory, PAGE);
        const expected = Buffer.alloc(pages * PAGE);
        content.copy(expected, 0, pfn * PAGE);
        expect(Buffer.compare(memory.subarray(PAGE, PAGE + pages * PAGE), expected)).toBe(0);
      }),
    );
  });

  test('pages that it does not have are refused', () => {
    const source = sourceOf(Buffer.alloc(3 * PAGE));
    const memory = new Uint8Array(8 * PAGE);
    for (const [pfn, pages] of [
      [0, 4],
      [3, 1],
      [-1, 1],
      [1.5, 1],
      [Number.NaN, 1],
    ] as const) {
      expect(() => source.read(pfn, pages, memory, 0)).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
    }
  });

  test('a file that became shorter says so, and where', () => {
    const source = sourceOf(randomBytes(10 * PAGE));
    truncateSync(source.path, 5 * PAGE + 10);
    const memory = new Uint8Array(10 * PAGE);
    source.read(0, 5, memory, 0);
    expect(imageErrorOf(() => source.read(0, 10, memory, 0))).toMatch(/shorter: it had 40960 bytes .* ends at 20490/);
    expect(imageErrorOf(() => source.read(8, 1, memory, 0))).toMatch(/shorter/);
  });

  test('what cannot be an image is refused with its reason', async () => {
    const dir = tempDir();
    expect(imageErrorOf(() => new FileSource(join(dir, 'none')))).toMatch(/ENOENT.*check the path/);
    expect(imageErrorOf(() => new FileSource(dir))).toMatch(/is a directory/);
    if (onLinux) expect(imageErrorOf(() => new FileSource('/dev/zero'))).toMatch(/neither a file nor a block device/);
    const secret = join(dir, 'secret');
    writeFileSync(secret, 'x');
    chmodSync(dir, 0o755);
    chmodSync(secret, 0o000);
    if (onLinux) {
      await unprivileged(() => expect(imageErrorOf(() => new FileSource(secret))).toMatch(/EACCES.*readable/));
    }
  });

  test('close may be called twice', () => {
    const source = sourceOf(Buffer.alloc(1));
    source.close();
    source.close();
  });
});

describe('sink', () => {
  function sinkFor(bytes: number, name = 'out'): { sink: FileSink; path: string; dir: string } {
    const dir = tempDir();
    const path = join(dir, name);
    const sink = new FileSink(path, bytes);
    onTestFinished(() => sink.discard());
    return { sink, path, dir };
  }

  test.each([0, 1, PAGE, 5 * PAGE + 3])(
    'an image of %i bytes appears whole, at commit and not before',
    async (bytes) => {
      const { sink, path, dir } = sinkFor(bytes);
      const content = randomBytes(Math.ceil(bytes / PAGE) * PAGE);
      for (let at = 0; at < bytes; at += PAGE) sink.write(at / PAGE, content, at, PAGE);
      expect(existsSync(path)).toBe(false);
      await sink.commit();
      expect(Buffer.compare(readFileSync(path), content.subarray(0, bytes))).toBe(0);
      expect(readdirSync(dir)).toEqual(['out']);
      await sink.discard();
      expect(existsSync(path)).toBe(true);
    },
  );

  test('writes, zeros and read-backs in any order equal a plain array, also when calls come short', async () => {
    shortCalls();
    for (const seed of [1, 2, 3, 4]) {
      const next = seeded(seed);
      const pages = 60;
      const bytes = pages * PAGE - (next() % PAGE);
      const { sink, path } = sinkFor(bytes, `out${seed}`);
      const model = Buffer.alloc(pages * PAGE);
      const memory = randomBytes(8 * PAGE);
      const page = new Uint8Array(PAGE + 8);
      for (let step = 0; step < 300; step++) {
        const pfn = next() % pages;
        const count = Math.min(next() % 6, pages - pfn);
        if (next() % 2) {
          sink.write(pfn, memory, 100, count * PAGE);
          memory.copy(model, pfn * PAGE, 100, 100 + count * PAGE);
        } else {
          sink.zero(pfn, count);
          model.fill(0, pfn * PAGE, (pfn + count) * PAGE);
        }
        const back = next() % pages;
        sink.read(back, page, 8);
        expect(Buffer.compare(page.subarray(8), model.subarray(back * PAGE, back * PAGE + PAGE))).toBe(0);
      }
      await sink.commit();
      expect(Buffer.compare(readFileSync(path), model.subarray(0, bytes))).toBe(0);
    }
  });

  test.runIf(onLinux)('pages that were only ever zero take no room', async () => {
    const { sink, path } = sinkFor(64 * 1024 * PAGE);
    sink.zero(0, 64 * 1024);
    sink.write(1000, randomBytes(PAGE), 0, PAGE);
    sink.zero(0, 1000);
    await sink.commit();
    expect(statSync(path).size).toBe(64 * 1024 * PAGE);
    expect(statSync(path).blocks * 512).toBeLessThan(64 * PAGE);
  });

  test('what had the name before stays until the commit, and after a discard', async () => {
    const { sink, path, dir } = sinkFor(PAGE);
    writeFileSync(path, 'before');
    sink.write(0, randomBytes(PAGE), 0, PAGE);
    await sink.discard();
    await sink.discard();
    expect(readFileSync(path, 'utf8')).toBe('before');
    expect(readdirSync(dir)).toEqual(['out']);
    const again = new FileSink(path, 1);
    again.write(0, Buffer.from('after'), 0, 5);
    expect(readFileSync(path, 'utf8')).toBe('before');
    await again.commit();
    expect(readFileSync(path, 'utf8')).toBe('a');
    // A third one under way is not what the second may remove.
    const third = new FileSink(path, 1);
    await again.discard();
    expect(readdirSync(dir).sort()).toEqual(['out', 'out.partial']);
    await third.discard();
  });

  test.runIf(onLinux)('a symbolic link stays one; the file is for its owner only', async () => {
    const dir = tempDir();
    mkdirSync(join(dir, 'far'));
    writeFileSync(join(dir, 'far', 'real'), 'before');
    symlinkSync(join('far', 'real'), join(dir, 'link'));
    const sink = new FileSink(join(dir, 'link'), 2);
    sink.write(0, Buffer.from('ok'), 0, 2);
    await sink.commit();
    expect(lstatSync(join(dir, 'link')).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(dir, 'far', 'real'), 'utf8')).toBe('ok');
    expect(statSync(join(dir, 'far', 'real')).mode & 0o777).toBe(0o600);
  });

  test('two cannot make the same file; what a killed one left is named', () => {
    const { path } = sinkFor(PAGE);
    expect(imageErrorOf(() => new FileSink(path, PAGE))).toMatch(/out\.partial exists already.*remove it/);
  });

  test('what a killed one left is made anew, or gone on with, when its maker is known to be dead', async () => {
    const { sink, path, dir } = sinkFor(3 * PAGE);
    const content = randomBytes(3 * PAGE);
    sink.write(0, content, 0, 3 * PAGE);
    await sink.leave();
    expect(readdirSync(dir)).toEqual(['out.partial']);
    const kept = new FileSink(path, 3 * PAGE, 'keep');
    const page = new Uint8Array(PAGE);
    kept.read(1, page, 0);
    expect(Buffer.compare(page, content.subarray(PAGE, 2 * PAGE))).toBe(0);
    // What it holds is not known to be zero.
    kept.zero(1, 1);
    kept.read(1, page, 0);
    expect(page.every((byte) => byte === 0)).toBe(true);
    await kept.leave();
    const anew = new FileSink(path, 3 * PAGE, 'replace');
    anew.read(0, page, 0);
    expect(page.every((byte) => byte === 0)).toBe(true);
    await anew.discard();
    const none = new FileSink(path, PAGE, 'keep');
    await none.discard();
    expect(readdirSync(dir)).toEqual([]);
  });

  test('places where no file can be made are refused with their reason', async () => {
    const dir = tempDir();
    expect(imageErrorOf(() => new FileSink(join(dir, 'none', 'out'), 1))).toMatch(/ENOENT.*directory must exist/);
    expect(imageErrorOf(() => new FileSink(dir, 1))).toMatch(/no regular file/);
    expect(imageErrorOf(() => new FileSink(join(dir, 'huge'), 2 ** 62))).toMatch(/at most 17592186044416/);
    expect(readdirSync(dir)).toEqual([]);
    if (!onLinux) return;
    expect(imageErrorOf(() => new FileSink('/dev/null', 1))).toMatch(/no regular file/);
    chmodSync(dir, 0o555);
    await unprivileged(() => expect(imageErrorOf(() => new FileSink(join(dir, 'out'), 1))).toMatch(/EACCES.*writable/));
  });

  test.runIf(onLinux)('a full disk is told with the offset and what to do', () => {
    const { sink } = sinkFor(10 * PAGE);
    const inner = sink as unknown as { fd: number };
    const real = inner.fd;
    inner.fd = openSync('/dev/full', 'w');
    try {
      expect(imageErrorOf(() => sink.write(3, randomBytes(PAGE), 0, PAGE))).toMatch(
        /at offset 12288: ENOSPC.*free some room/,
      );
    } finally {
      closeSync(inner.fd);
      inner.fd = real;
    }
  });

  test('pages behind the end are refused', () => {
    const { sink } = sinkFor(PAGE + 1);
    const memory = new Uint8Array(4 * PAGE);
    const refused = expect.objectContaining({ code: 'OUT_OF_RANGE' });
    expect(() => sink.write(1, memory, 0, PAGE + 1)).toThrow(refused);
    expect(() => sink.zero(2, 1)).toThrow(refused);
    expect(() => sink.read(2, memory, 0)).toThrow(refused);
    sink.write(1, memory, 0, PAGE);
  });
});
