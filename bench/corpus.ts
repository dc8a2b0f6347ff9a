// Real bytes that every machine with Node has: node's own binary, and the sources of what is installed beside us. And numbers at random.
//
// A supply hands them out page by page and never ends. No page of it is zero and no two are equal: how many zero and duplicate pages there
// are is the recipe's affair (pages.ts). When the bytes are at their end it begins again a little further on, so that the same bytes come
// at other places of a page: the same kind of content, no duplicate.
import { createCipheriv, hash } from 'node:crypto';
import { type Dirent, readdirSync, readFileSync, statSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PAGE_BYTES } from 'abdm';
import { ROOT } from './root.js';

/** Hands out the next page. The view is good until the next call. */
export type Supply = () => Uint8Array;

/** How much further on the next time round begins. A multiple of 16: binaries and heaps keep the alignment of what they hold. */
const SHIFT_BYTES = 1040;
const ENOUGH_BYTES = 96 << 20;
const SOURCES = ['.js', '.mjs', '.cjs', '.ts', '.mts', '.cts'];
/** Larger ones are not sources but wasm in base64. */
const MAX_SOURCE_BYTES = 4 << 20;
const ZERO = Buffer.alloc(PAGE_BYTES);

/** Pages of `bytes`, round and round. */
export function supply(bytes: Buffer): Supply {
  const seen = new Set<string>();
  let at = 0;
  let shift = 0;
  return () => {
    for (;;) {
      if (at + PAGE_BYTES > bytes.length) {
        shift += SHIFT_BYTES;
        at = shift;
        if (shift > PAGE_BYTES * 16) throw new Error(`${bytes.length} bytes do not give so many different pages`);
      }
      const page = bytes.subarray(at, at + PAGE_BYTES);
      at += PAGE_BYTES;
      if (page.equals(ZERO)) continue;
      const name = hash('sha1', page, 'base64');
      if (seen.has(name)) continue;
      seen.add(name);
      return page;
    }
  };
}

/** Node's own binary, and where that is a small one, the libraries that it is made of. */
export function binaries(): Buffer {
  const { sharedObjects } = process.report.getReport() as unknown as { sharedObjects: string[] };
  const parts = [readFileSync(process.execPath)];
  let bytes = parts[0]!.length;
  for (const path of sharedObjects) {
    if (bytes >= ENOUGH_BYTES / 2) break;
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile() || path === process.execPath) continue;
    parts.push(readFileSync(path));
    bytes += stat.size;
  }
  return Buffer.concat(parts);
}

/** JavaScript and TypeScript sources of the installed packages, in the order of their names. */
export function sources(): Buffer {
  const parts: Buffer[] = [];
  let bytes = 0;
  for (const path of sourceFiles(fileURLToPath(new URL('node_modules', ROOT)))) {
    const text = readFileSync(path);
    if (text.length > MAX_SOURCE_BYTES) continue;
    parts.push(text);
    bytes += text.length;
    if (bytes >= ENOUGH_BYTES) break;
  }
  return Buffer.concat(parts);
}

function* sourceFiles(folder: string): Generator<string> {
  const byName = (a: Dirent, b: Dirent) => (a.name < b.name ? -1 : 1);
  for (const entry of readdirSync(folder, { withFileTypes: true }).sort(byName)) {
    const path = `${folder}/${entry.name}`;
    // Names with a dot are npm's and other tools' own, and change from run to run.
    if (entry.isDirectory() && !entry.name.startsWith('.')) yield* sourceFiles(path);
    else if (entry.isFile() && SOURCES.includes(extname(entry.name))) yield path;
  }
}

/** Pages of random bytes, the same for the same seed: AES in counter mode, since it is quick and at hand. */
export function randomSupply(seed: number): Supply {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed);
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  return () => cipher.update(ZERO);
}
