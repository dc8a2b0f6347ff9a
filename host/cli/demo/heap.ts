// What the memory of a Node server is made of, made to order: sources, logs as text and parsed, indexes, machine code, keys, compressed
// bodies, caches that hold the same thing twice, buffers not used yet. The demo moves it, so it must look like the real thing and be
// there on every machine: it is taken from this package, from what is installed beside it, and from Node itself.
import { randomFillSync } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { builtinModules, createRequire } from 'node:module';
import { basename, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serialize } from 'node:v8';
import { gzipSync } from 'node:zlib';
import { indexRecords, parseLog, requestLog } from './requests.js';

const KIB = 1024;
/** What one unit takes in the memory of a process, about: what is below, parsed logs at several times their text, and garbage. */
export const UNIT_BYTES = 18 * 1024 * KIB;
/** As much source text is enough; a unit takes a slice of it. */
const MAX_SOURCE_BYTES = 12 * 1024 * KIB;

/** The recipe of a unit. With LZ4, duplicates and zeros found, such a process takes about half on a wire, as those of servers do. */
const PARSED_TEXT_BYTES = 320 * KIB;
const LOG_BYTES = 640 * KIB;
const SOURCE_BYTES = 768 * KIB;
const BINARY_BYTES = 1536 * KIB;
const TO_COMPRESS_BYTES = 6144 * KIB;
const RANDOM_BYTES = 4096 * KIB;
const CACHED_BYTES = 768 * KIB;
const ZERO_BYTES = 768 * KIB;

export interface Unit {
  /** Raw bytes. */
  buffers: Uint8Array[];
  /** What V8 lays out: objects, Maps, strings. */
  objects: unknown[];
}

/** Makes units, each different from the last one; all but random bytes and Node's report is the same in every run. */
export class HeapBuilder {
  private readonly sources: Buffer;
  private readonly executable: number;
  private readonly executableBytes: number;
  /** Wasm memory, unlike a Buffer, begins at a page's border in every process. One for all: each sets aside gigabytes of addresses. */
  private readonly cache: Uint8Array;

  /** Units made with numbers that are equal modulo `units` share some memory: all that are kept must fit. */
  constructor(private readonly units: number) {
    const pages = Math.ceil((units * CACHED_BYTES * 2) / (64 * KIB));
    this.cache = new Uint8Array(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
    this.sources = Buffer.concat([...installedSources(), builtinSources()]);
    this.executable = openSync(process.execPath, 'r');
    this.executableBytes = fstatSync(this.executable).size;
  }

  unit(index: number): Unit {
    const log = requestLog(index, LOG_BYTES);
    const source = this.slice(index, SOURCE_BYTES);
    const records = parseLog(log.subarray(0, log.indexOf(10, PARSED_TEXT_BYTES)));
    const zeros = Buffer.allocUnsafeSlow(ZERO_BYTES).fill(0);
    const unused = Buffer.alloc(ZERO_BYTES);
    return {
      buffers: [
        log,
        source,
        this.binary(index, BINARY_BYTES),
        gzipSync(this.binary(index + 7, TO_COMPRESS_BYTES), { level: 1 }),
        randomFillSync(Buffer.allocUnsafeSlow(RANDOM_BYTES)),
        zeros,
        unused,
        this.cached(index, this.binary(index + 3, CACHED_BYTES)),
      ],
      objects: [records, indexRecords(records), source.toString('latin1').split('\n'), report()],
    };
  }

  close(): void {
    closeSync(this.executable);
  }

  /** The same contents in two places, as a cache and what it was filled from hold them: equal pages. */
  private cached(index: number, content: Uint8Array): Uint8Array {
    const begin = (index % this.units) * CACHED_BYTES * 2;
    this.cache.set(content, begin);
    this.cache.set(content, begin + CACHED_BYTES);
    return this.cache.subarray(begin, begin + CACHED_BYTES * 2);
  }

  /** A slice of the sources; they go round, at other places every time. */
  private slice(index: number, bytes: number): Buffer {
    const out = Buffer.allocUnsafeSlow(bytes);
    for (let done = 0; done < bytes; ) {
      const from = (index * 5_000_011 + done) % this.sources.length;
      done += this.sources.copy(out, done, from, from + bytes - done);
    }
    return out;
  }

  /** A piece of Node's own executable: machine code and tables. */
  private binary(index: number, bytes: number): Buffer {
    const out = Buffer.allocUnsafeSlow(bytes);
    const from = (index * 7_000_003) % Math.max(1, this.executableBytes - bytes);
    readSync(this.executable, out, 0, bytes, from);
    return out;
  }
}

/** The text files of this package and of those beside it, until there is enough. */
function installedSources(): Buffer[] {
  let root = dirname(fileURLToPath(import.meta.url));
  while (root !== dirname(root) && !existsSync(join(root, 'package.json'))) root = dirname(root);
  const beside = basename(dirname(root)) === 'node_modules' ? dirname(root) : join(root, 'node_modules');
  const found: Buffer[] = [];
  let bytes = 0;
  for (const path of [join(root, 'dist'), beside]) {
    for (const file of textFiles(path)) {
      const text = readFileSync(file);
      found.push(text);
      bytes += text.length;
      if (bytes >= MAX_SOURCE_BYTES) return found;
    }
  }
  return found;
}

function* textFiles(path: string, depth = 0): Generator<string> {
  let entries: import('node:fs').Dirent[] = [];
  try {
    entries = readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch {
    // Not there, or not for us.
  }
  for (const entry of entries) {
    const inner = join(path, entry.name);
    if (entry.isDirectory() && depth < 8) yield* textFiles(inner, depth + 1);
    else if (entry.isFile() && ['.js', '.mjs', '.cjs', '.ts', '.json'].includes(extname(inner))) yield inner;
  }
}

/** The text of Node's own library, as far as its functions show it. */
function builtinSources(): Buffer {
  const require = createRequire(import.meta.url);
  const texts: string[] = [];
  for (const name of builtinModules) {
    // Internal, experimental and old ones warn when they are loaded.
    if (/^_|punycode|wasi|sys$|trace_events|inspector|sqlite/.test(name)) continue;
    const module: Record<string, unknown> = require(name);
    // Descriptors, so that no getter runs: some warn.
    for (const key of Object.keys(module)) {
      const value = Object.getOwnPropertyDescriptor(module, key)?.value;
      if (typeof value === 'function') texts.push(Function.prototype.toString.call(value));
    }
  }
  return Buffer.from(texts.join('\n'));
}

/** What Node says of its own process. Without the environment, which is nobody's business. */
function report(): unknown {
  const { environmentVariables: _, ...rest } = process.report.getReport() as unknown as Record<string, unknown>;
  return rest;
}

/**
 * Writes an image of `bytes` bytes such as a heap would be to `path`: for systems that do not show one process the memory of another.
 * @throws the system's error if the file cannot be written.
 */
export function writeHeapFile(path: string, bytes: number): void {
  const builder = new HeapBuilder(1);
  const fd = openSync(path, 'w', 0o600);
  let written = 0;
  try {
    for (let index = 0; written < bytes; index++) {
      const { buffers, objects } = builder.unit(index);
      for (const buffer of [...buffers, serialize(objects)]) {
        // Each on a page of its own, as an allocator would place what is large.
        const aligned = Math.min(Math.ceil(written / 4096) * 4096, bytes);
        const end = Math.min(aligned + buffer.length, bytes);
        writeFully(fd, buffer.subarray(0, end - aligned), aligned);
        written = end;
      }
    }
  } finally {
    closeSync(fd);
    builder.close();
  }
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}
