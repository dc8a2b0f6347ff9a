// The examples do what they say, on real data: the bytes that come out are the bytes that went in.
import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, connect as dial } from 'node:net';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startIntermediate } from 'abdm/host';
import { describe, expect, test } from 'vitest';
import { tempDir } from '../host/temp.js';
import { seededPages } from '../pages.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const example = (name: string) => join(root, 'examples', name);
const key = randomBytes(32);

// In variables: the examples are plain JavaScript and have no typings.
const { send } = await import(example('send.mjs'));
const { receive } = await import(example('receive.mjs'));

/** A file of pages of every kind with duplicates far apart, and a tail that is no whole page. */
function makeImage(dir: string, pages: number, tail: number): { path: string; bytes: Buffer } {
  const bytes = Buffer.concat([
    seededPages(31, pages),
    seededPages(31, Math.ceil(pages / 3)),
    Buffer.alloc(tail, 'tail'),
  ]);
  const path = join(dir, 'image');
  writeFileSync(path, bytes);
  return { path, bytes };
}

describe('send and receive', () => {
  test.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [3000, 1234],
  ])('move a file of %i pages and %i bytes over a socket', async (pages, tail) => {
    const dir = tempDir();
    const image = makeImage(dir, pages, tail);
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepted = once(server, 'connection');
    const sent = send(image.path, dial((server.address() as { port: number }).port, '127.0.0.1'), key);
    const [socket] = await accepted;
    server.close();
    const counts = await receive(socket, join(dir, 'copy'), key);
    const { frames, frameBytes, ...kinds } = await sent;
    expect(counts).toEqual(kinds);
    expect(frameBytes).toBeLessThanOrEqual(image.bytes.length + frames * 4096 + 8192);
    expect(readFileSync(join(dir, 'copy')).equals(image.bytes)).toBe(true);
  });

  test('refuse a stream that was cut, damaged, or made with another key', async () => {
    const dir = tempDir();
    const { path } = makeImage(dir, 300, 0);
    const chunks: Buffer[] = [];
    const stream = new Writable({
      write(chunk, _encoding, done) {
        chunks.push(Buffer.from(chunk));
        done();
      },
    });
    await send(path, stream, key);
    const whole = Buffer.concat(chunks);
    const merge = (bytes: Buffer, by = key) => receive(new PassThrough().end(bytes), join(dir, 'copy'), by);
    await merge(whole);
    await expect(merge(whole.subarray(0, -1000))).rejects.toThrow(/\d+ pages are missing/);
    await expect(merge(whole, randomBytes(32))).rejects.toThrow(expect.objectContaining({ code: 'FRAME_TAG' }));
    const damaged = Buffer.from(whole);
    damaged[whole.length - 5000]! ^= 1;
    await expect(merge(damaged)).rejects.toThrow(expect.objectContaining({ code: 'FRAME_CHECKSUM' }));
  });

  test('end with an error when the other end is gone', async () => {
    const { path } = makeImage(tempDir(), 3000, 0);
    const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await expect(send(path, dial((server.address() as { port: number }).port, '127.0.0.1'), key)).rejects.toThrow();
    server.close();
  });
});

describe('pack', () => {
  test('deduplicates and compresses a file and brings it back', () => {
    const dir = tempDir();
    const { path, bytes } = makeImage(dir, 3000, 77);
    const run = (...args: string[]) =>
      execFileSync(process.execPath, [example('pack.mjs'), ...args], { encoding: 'utf8' });
    const packed = join(dir, 'packed');
    expect(run('pack', path, packed)).toMatch(/duplicatePages: 1\d{3}/);
    expect(readFileSync(packed).length).toBeLessThan(bytes.length / 2);
    run('unpack', packed, join(dir, 'copy'));
    expect(readFileSync(join(dir, 'copy')).equals(bytes)).toBe(true);
    truncateSync(packed, readFileSync(packed).length - 100);
    expect(() => run('unpack', packed, join(dir, 'copy'))).toThrow();
  });
});

describe('device', () => {
  test('writes a file to a device at running intermediates, and reads it from there', async () => {
    const nodes = await Promise.all(
      [1, 2].map(() => startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64 * 2 ** 20 })),
    );
    const addresses = nodes.map(({ address }) => address).join(',');
    const run = async (...args: string[]) => {
      const env = { ...process.env, KEY: key.toString('hex') };
      return (await promisify(execFile)(process.execPath, [example('device.mjs'), ...args, addresses], { env })).stdout;
    };
    try {
      const dir = tempDir();
      const { path, bytes } = makeImage(dir, 2000, 77);
      expect(await run('write', 'web', path)).toContain(`${bytes.length} bytes`);
      expect(nodes.every((node) => node.status().frames > 0)).toBe(true);
      await run('read', 'web', join(dir, 'copy'));
      expect(readFileSync(join(dir, 'copy')).equals(bytes)).toBe(true);
      expect(nodes.map((node) => node.status().keptBytes)).toEqual([0, 0]);
      await expect(run('read', 'web', join(dir, 'copy'))).rejects.toThrow(/web/);
    } finally {
      await Promise.all(nodes.map((node) => node.close()));
    }
  });
});

describe('the library in ten lines', () => {
  /** The first block of JavaScript under a heading that names the library. */
  const blockOf = (file: string) =>
    /^#+ [^\n]*library[^\n]*\n(?:(?!^#+ )[^\n]*\n)*?```js\n(.*?)^```/ims.exec(
      readFileSync(join(root, file), 'utf8'),
    )?.[1];

  test.each(['docs/library.md', 'README.md'])('in %s runs', (file) => {
    const block = blockOf(file);
    expect(block, `${file} has a block of JavaScript`).toBeDefined();
    const dir = tempDir();
    mkdirSync(join(dir, 'node_modules'));
    symlinkSync(root, join(dir, 'node_modules/abdm'));
    const check = '\nif (Buffer.compare(image, copy) !== 0) throw new Error("the copy differs");\n';
    writeFileSync(join(dir, 'block.mjs'), block + check);
    const output = execFileSync(process.execPath, [join(dir, 'block.mjs')], { encoding: 'utf8' });
    expect(output).toMatch(/^262144 bytes traveled in \d+; 64 pages arrived\n$/);
    const statements = block!
      .split('\n')
      .filter((line) => line !== '' && !/^import|^const (image|copy|key)|^console/.test(line));
    expect(statements.length).toBeLessThanOrEqual(10);
  });

  test('in docs/library.md are examples/ten-lines.mjs', () => {
    expect(blockOf('docs/library.md')).toBe(readFileSync(example('ten-lines.mjs'), 'utf8'));
  });
});
