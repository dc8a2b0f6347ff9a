<<<<<<< HEAD
// Seeded pages of the kinds that guests hold: zero, duplicates, text, JSON, machine code, pointers, random.
import { closeSync, openSync, readSync } from 'node:fs';
import { seeded } from './engine.js';

const PAGE_BYTES = 4096;
const kinds = ['zero', 'duplicate', 'text', 'json', 'binary', 'heap', 'random'] as const;
export type PageKind = (typeof kinds)[number];

const words = 'the page of a guest is read while its frame travels and never before it was acknowledged by another node'.split(' ');

/** `pages` pages, one behind the other; `only` limits them to some kinds. */
export function seededPages(seed: number, pages: number, only: readonly PageKind[] = kinds): Uint8Array {
  const next = seeded(seed);
  const all = new Uint8Array(pages * PAGE_BYTES);
  const executable = openSync(process.execPath, 'r');
  for (let i = 0; i < pages; i++) {
    const page = all.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
    const kind = only[next() % only.length]!;
    if (kind === 'duplicate' && i > 0) page.set(all.subarray((next() % i) * PAGE_BYTES).subarray(0, PAGE_BYTES));
    else if (kind === 'binary') readSync(executable, page, 0, PAGE_BYTES, (next() % 10_000) * PAGE_BYTES);
    else if (kind !== 'zero') fill(page, kind, next);
  }
  closeSync(executable);
  return all;
}

function fill(page: Uint8Array, kind: PageKind, next: () => number): void {
  if (kind === 'random') {
    for (let i = 0; i < PAGE_BYTES; i++) page[i] = next() >>> 11;
  } else if (kind === 'heap') {
    const view = new DataView(page.buffer, page.byteOffset, PAGE_BYTES);
    for (let i = 0; i < PAGE_BYTES; i += 8) {
      view.setUint32(i, next() % 3 === 0 ? 0 : (next() % 65_536) * 8, true);
      view.setUint32(i + 4, next() % 3 === 0 ? 0x7f3a : 0, true);
    }
  } else {
    let text = '';
    while (text.length < PAGE_BYTES) {
      const word = words[next() % words.length]!;
      text += kind === 'json' ? `{"id":${next() % 100_000},"name":"${word}","ok":true},` : `${word} `;
    }
    page.set(new TextEncoder().encode(text).subarray(0, PAGE_BYTES));
  }
=======
// Seeded pages of the kinds that guests are made of, for whoever tests a kernel on contents.
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';

export type Random = () => number;

const typings = ['fs', 'http', 'crypto', 'stream'].map((name) =>
  readFileSync(new URL(`../node_modules/@types/node/${name}.d.ts`, import.meta.url)),
);
const text = Buffer.concat(typings);
const binary = openSync(process.execPath, 'r');
const binaryBytes = fstatSync(binary).size;

/** Closes what this module holds open. */
export function closePages(): void {
  closeSync(binary);
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
    readSync(binary, page, 0, page.length, random() % (binaryBytes - page.length));
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
>>>>>>> lz4
}
