// The process whose memory serves as heap pages (heap.ts): compiles the engine until its private memory holds enough pages that are neither
// zero nor equal, and writes them to a file. usage: heap-child.js FILE PAGES
import { hash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { main } from 'assemblyscript/asc';

const PAGE_BYTES = 4096;
const CHUNK_BYTES = 1 << 20;
const MAX_COMPILATIONS = 4;
const ARGUMENTS =
  '--runtime stub --enable simd --importMemory --optimizeLevel 1 --disableWarning 201 --outFile none.wasm';

const [, , path, wanted] = process.argv;
const zero = Buffer.alloc(PAGE_BYTES);
const chunk = Buffer.alloc(CHUNK_BYTES);
/** What each compilation made stays reachable, as in a program that goes on. */
const kept: unknown[] = [];

/** Private memory without a file behind it, that the process can write: start and end of each mapping. */
function* mappings(): Generator<[number, number]> {
  for (const line of readFileSync('/proc/self/maps', 'latin1').split('\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ 0 *(\[heap\]|\[anon:.*\])?$/.exec(line);
    if (match) yield [Number.parseInt(match[1]!, 16), Number.parseInt(match[2]!, 16)];
  }
}

/** Writes up to `most` pages to `out`, each content once. Returns how many. */
function dump(out: number, most: number): number {
  const memory = openSync('/proc/self/mem', 'r');
  const seen = new Set<string>();
  let pages = 0;
  for (const [start, end] of mappings()) {
    for (let at = start; at < end && pages < most; at += CHUNK_BYTES) {
      let bytes = 0;
      try {
        bytes = readSync(memory, chunk, 0, Math.min(CHUNK_BYTES, end - at), at);
      } catch {
        break; // Unmapped since.
      }
      for (let page = 0; page + PAGE_BYTES <= bytes && pages < most; page += PAGE_BYTES) {
        const view = chunk.subarray(page, page + PAGE_BYTES);
        if (view.equals(zero)) continue;
        const name = hash('sha1', view, 'base64');
        if (seen.has(name)) continue;
        seen.add(name);
        writeSync(out, view, 0, PAGE_BYTES, pages * PAGE_BYTES);
        pages++;
      }
    }
  }
  closeSync(memory);
  return pages;
}

for (let n = 1; n <= MAX_COMPILATIONS; n++) {
  const quiet = { write() {} };
  const result = await main(['assembly/index.ts', ...ARGUMENTS.split(' ')], {
    writeFile: (_name, contents) => void kept.push(contents),
    stdout: quiet,
    stderr: process.stderr,
  });
  if (result.error) throw result.error;
  kept.push(result);
  const out = openSync(path!, 'w');
  const pages = dump(out, Number(wanted));
  closeSync(out);
  if (pages >= Number(wanted)) break;
}
