// Seeded pages of the kinds that guests are made of.
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { seeded } from './engine.js';

export type Random = () => number;

const typings = ['fs', 'http', 'crypto', 'stream'].map((name) =>
  readFileSync(new URL(`../node_modules/@types/node/${name}.d.ts`, import.meta.url)),
);
const text = Buffer.concat(typings);
const binary = readSome(process.execPath, 16 << 20);

/** `bytes` from the middle of a file. */
function readSome(path: string, bytes: number): Uint8Array {
  const file = openSync(path, 'r');
  const some = new Uint8Array(bytes);
  const read = readSync(file, some, 0, bytes, fstatSync(file).size >> 1);
  closeSync(file);
  return some.subarray(0, read);
}

type Fill = (page: Uint8Array, random: Random) => void;

function words(page: Uint8Array): DataView {
  return new DataView(page.buffer, page.byteOffset, page.byteLength);
}

const fills: Record<string, Fill> = {
  zero: () => {},
  /** Zeros with a few bytes set. */
  sparse(page, random) {
    for (let n = random() % 24; n > 0; n--) page[random() % page.length] = random();
  },
  text(page, random) {
    const from = random() % (text.length - page.length);
    page.set(text.subarray(from, from + page.length));
  },
  json(page, random) {
    let json = '';
    while (json.length < page.length) {
      json += `{"id":${random() % 100000},"name":"user-${random() % 500}","active":${random() % 2 === 0},"at":${random()}},`;
    }
    page.set(Buffer.from(json).subarray(0, page.length));
  },
  binary(page, random) {
    const from = random() % (binary.length - page.length);
    page.set(binary.subarray(from, from + page.length));
  },
  random(page, random) {
    for (let i = 0; i < page.length; i++) page[i] = random() >>> 13;
  },
  /** A short pattern again and again, broken now and then: matches that overlap themselves at every small distance. */
  pattern(page, random) {
    let distance = 1 + (random() % 40);
    for (let i = 0; i < page.length; i++) {
      if (random() % 64 === 0) distance = 1 + (random() % 40);
      page[i] = i < distance || random() % 128 === 0 ? random() >>> 9 : page[i - distance]!;
    }
  },
  runs(page, random) {
    for (let i = 0; i < page.length; ) {
      const run = 1 + (random() % (random() % 8 === 0 ? 600 : 12));
      page.fill(random() % 5, i, i + run);
      i += run;
    }
  },
  /** Records of pointers, small numbers and empty words. */
  heap(page, random) {
    const view = words(page);
    const arena = 0x7f00 + (random() % 16);
    for (let i = 0; i + 8 <= page.length; i += 8) {
      const kind = random() % 8;
      if (kind < 4) {
        view.setUint32(i, (random() % 0x40000) * 16, true);
        view.setUint32(i + 4, arena, true);
      } else if (kind < 6) view.setUint32(i, random() % 300, true);
    }
  },
};

export const KINDS = Object.keys(fills);

/** One page (or piece of another size) of a kind. */
export function page(kind: string, random: Random, bytes = 4096): Uint8Array {
  const made = new Uint8Array(bytes);
  fills[kind]!(made, random);
  return made;
}

/** `pages` pages one behind the other, of these kinds in turn by chance; `duplicate` repeats an earlier one. */
export function seededPages(
  seed: number,
  pages: number,
  kinds: readonly string[] = [...KINDS, 'duplicate'],
): Uint8Array {
  const random = seeded(seed);
  const all = new Uint8Array(pages * 4096);
  for (let i = 0; i < pages; i++) {
    const kind = kinds[random() % kinds.length]!;
    if (kind !== 'duplicate') all.set(page(kind, random), i * 4096);
    else if (i > 0) {
      const from = (random() % i) * 4096;
      all.copyWithin(i * 4096, from, from + 4096);
    }
  }
  return all;
}
