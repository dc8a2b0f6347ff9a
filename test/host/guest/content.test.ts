// What pages must be: the same for whoever asks, different for every page and version, and told apart when they are wrong.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { Content, PageBuffer } from '#abdm/host/guest/content.js';
import type { Workload } from '#abdm/host/guest/workload.js';
import { tempDir } from '../temp.js';
import { workload } from './guests.js';

const PAGE = 4096;

function pageOf(content: Content, pfn: number, version = 0): Buffer {
  const page = new PageBuffer();
  content.fill(pfn, version, page);
  return Buffer.from(page.bytes);
}

const contentOf = (of: Partial<Workload> = {}) => new Content(workload(of));

test('random pages do not compress, and none is like another one, of this guest or of another', () => {
  const one = contentOf({ seed: 1 });
  const other = contentOf({ seed: 2 });
  const seen = new Set<string>();
  const pages: Buffer[] = [];
  for (let pfn = 0; pfn < 2000; pfn++) {
    for (const content of [one, other]) {
      const page = pageOf(content, pfn);
      seen.add(page.toString('latin1'));
      pages.push(page);
    }
  }
  expect(seen.size).toBe(4000);
  expect(deflateRawSync(Buffer.concat(pages)).length).toBeGreaterThan(0.999 * 4000 * PAGE);
  expect(pageOf(contentOf({ seed: 1 }), 77)).toEqual(pageOf(one, 77));
});

test('a version is a stamp of 32 bytes, in front of what the page was', () => {
  for (const content of [contentOf(), contentOf({ content: 'zero' })]) {
    const base = pageOf(content, 5);
    const stamps = new Set<string>();
    for (const version of [1, 2, 255, 2 ** 32 - 1]) {
      const page = pageOf(content, 5, version);
      expect(page.subarray(32)).toEqual(base.subarray(32));
      expect(page.readUInt32LE(0)).toBe(5);
      expect(page.readUInt32LE(4)).toBe(version);
      stamps.add(page.toString('latin1', 8, 32));
    }
    expect(stamps.size).toBe(4);
  }
});

test('common pages are those of every guest that has as many, and only they', () => {
  const one = contentOf({ seed: 1, commonShare: 0.6 });
  const other = contentOf({ seed: 2, commonShare: 0.6 });
  const zero = contentOf({ seed: 3, commonShare: 0.6, content: 'zero' });
  const alone = contentOf({ seed: 1 });
  let common = 0;
  for (let pfn = 0; pfn < 4000; pfn++) {
    const page = pageOf(one, pfn);
    if (page.equals(pageOf(other, pfn))) {
      common++;
      expect(page.equals(pageOf(zero, pfn))).toBe(true);
    } else expect(page.equals(pageOf(alone, pfn))).toBe(true);
  }
  expect(common / 4000).toBeGreaterThan(0.56);
  expect(common / 4000).toBeLessThan(0.64);
});

test('a file is what its bytes are; one that is too short, missing or no file is refused', () => {
  const dir = tempDir();
  const path = join(dir, 'content');
  const bytes = Buffer.from(Array.from({ length: 4 * PAGE }, (_, i) => (i * i) >> 5));
  writeFileSync(path, bytes);
  const content = contentOf({ content: path, memoryBytes: 4 * PAGE, workingSetBytes: PAGE });
  expect(pageOf(content, 3)).toEqual(bytes.subarray(3 * PAGE));
  content.close();
  const refused = (of: Partial<Workload>) => expect(() => contentOf(of)).toThrow(/cannot be the content of a guest/);
  refused({ content: path, memoryBytes: 5 * PAGE });
  refused({ content: join(dir, 'nowhere') });
  refused({ content: dir });
});

test('says what a wrong page is instead', () => {
  const content = contentOf();
  const explain = (bytes: Buffer, version = 3) => {
    const found = new PageBuffer();
    bytes.copy(found.bytes);
    return content.explain(9, version, found);
  };
  expect(explain(pageOf(content, 9, 2))).toBe('version 2; it should be 3');
  expect(explain(pageOf(content, 9))).toBe('as it was before it was first written; it should be version 3');
  expect(explain(pageOf(content, 8, 3))).toBe('version 3 of page 8; it should be version 3 of 9');
  const damaged = pageOf(content, 9, 3);
  damaged[1000]! ^= 1;
  expect(explain(damaged)).toMatch(/^byte 1000 is \d+; in version 3 it should be \d+$/);
  expect(explain(Buffer.alloc(PAGE))).toMatch(/^byte 0 is 0;/);
});
