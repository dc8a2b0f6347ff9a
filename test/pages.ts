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
}
