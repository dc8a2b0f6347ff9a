// The native column: peer.c, built here and now if the machine has what that takes, and spoken to line by line.
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ROOT } from '../root.js';
import type { RemoteSide, Turn } from '../sides.js';

const FLAGS = ['-O3', '-march=x86-64-v3', '-std=c11', '-Wall'];
const LIBRARIES = ['-llz4'];
export const COMPILER = `gcc ${FLAGS.slice(0, 2).join(' ')}`;

export class Native {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  private constructor(readonly folder: string) {
    this.#child = spawn(join(folder, 'peer'), { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin.on('error', () => {}); // It has ended: the next answer says so.
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Builds and starts the co-process, or says why there is none. */
  static async start(key: Uint8Array): Promise<Native | string> {
    if (process.arch !== 'x64') return `missing: it is for x86-64, this is ${process.arch}`;
    const folder = await mkdtemp(join(tmpdir(), 'abdm-native-'));
    const source = fileURLToPath(new URL('bench/native/peer.c', ROOT));
    try {
      await promisify(execFile)('gcc', [...FLAGS, source, '-o', join(folder, 'peer'), ...LIBRARIES]);
      const native = new Native(folder);
      await native.#ask(`key ${Buffer.from(key).toString('hex')}`);
      return native;
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      const { code, stderr, message } = error as { code?: unknown; stderr?: string; message: string };
      if (code === 'ENOENT') return 'missing: there is no gcc';
      const reason = /fatal error: (.*)|cannot find (.*)/.exec(stderr ?? '')?.[0] ?? message.split('\n')[0];
      return `missing: ${reason} (Debian: liblz4-dev libxxhash-dev; the CPU must have AVX2)`;
    }
  }

  async #ask(request: string): Promise<Turn> {
    this.#child.stdin.write(`${request}\n`);
    const { value, done } = await this.#lines.next();
    const [nanoseconds, outcome] = String(value).split(' ').map(Number);
    if (done || !Number.isFinite(outcome)) throw new Error(`the native co-process answered "${value}" to "${request}"`);
    return { seconds: nanoseconds! / 1e9, outcome: outcome! };
  }

  /** Gives it the pages that all later turns are about, by way of a file; it copies them into memory of its own. */
  loadPages(pages: Uint8Array): Promise<void> {
    return this.#load('pages', pages);
  }

  /** Gives it the blocks of those pages: each with its length, u32, before it. */
  loadBlocks(blocks: Uint8Array): Promise<void> {
    return this.#load('blocks', blocks);
  }

  async #load(what: string, bytes: Uint8Array): Promise<void> {
    const file = join(this.folder, what);
    await writeFile(file, bytes);
    await this.#ask(`${what} ${file}`);
    await rm(file);
  }

  side(name: string, command: string): RemoteSide {
    return { name, turn: ({ first, pages, pass }) => this.#ask(`${command} ${first} ${pages} ${pass}`) };
  }

  async close(): Promise<void> {
    this.#child.stdin.end();
    await rm(this.folder, { recursive: true, force: true });
  }
}
