// What a page of a guest must be, by its number and version: a guest's memory is filled from this, and held against it whenever it is touched. Of
// every page that was written the front is a stamp, so that a stale page is found out as well as a damaged one:
//
//      0         4         8                  32                                    4096
//      +---------+---------+------------------+--------------------------------------+
//      |   pfn   | version | mark, keyed      |  base content                        |
//      +---------+---------+------------------+--------------------------------------+

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { fillRandom, mix } from './random.js';
import type { Workload } from './workload.js';

export const STAMP_BYTES = 32;
/** Of what every guest has that has common content. */
const COMMON_SEED = 0x436f6d6d;
const COMMON_PAGES = 0x57686963;

/** A page's room, seen as words too. */
export class PageBuffer {
  readonly words = new Int32Array(PAGE_BYTES / 4);
  readonly bytes = Buffer.from(this.words.buffer);
}

export class Content {
  readonly #seed: number;
  readonly #isZero: boolean;
  /** The file that the base content is in; -1: there is none. */
  #file = -1;
  /** Pages whose mixed number is below this are common. */
  readonly #commonBelow: number;
  readonly #other = new PageBuffer();

  /** @throws {AbdmError} IMAGE if the content is in a file that cannot be used. */
  constructor({ content, seed, commonShare, memoryBytes }: Workload) {
    this.#seed = mix(seed ^ 0x47756573);
    this.#isZero = content === 'zero';
    this.#commonBelow = commonShare * 2 ** 32;
    if (content !== 'zero' && content !== 'random') this.#file = openContent(content, memoryBytes);
  }

  /** Writes what the page is into `page`. Version 0 is what it is before it is first written. */
  fill(pfn: number, version: number, page: PageBuffer): void {
    if (this.#isCommon(pfn)) fillFrom(COMMON_SEED, pfn, page);
    else if (this.#file >= 0) this.#readFile(pfn, page);
    else if (this.#isZero) page.words.fill(0);
    else fillFrom(this.#seed, pfn, page);
    if (version > 0) this.stamp(pfn, version, page);
  }

  /** Makes what a page has at its front that of this version. */
  stamp(pfn: number, version: number, { words }: PageBuffer): void {
    words[0] = pfn;
    words[1] = version;
    let mark = mix(this.#seed ^ pfn) ^ version;
    for (let i = 2; i < STAMP_BYTES / 4; i++) {
      mark = mix(mark + i);
      words[i] = mark;
    }
  }

  /** Says how `found` differs from what it must be. */
  explain(pfn: number, version: number, found: PageBuffer): string {
    const other = this.#other;
    const [foundPfn = 0, foundVersion = 0] = new Uint32Array(found.words.buffer, 0, 2);
    this.fill(pfn, 0, other);
    if (other.bytes.equals(found.bytes))
      return `as it was before it was first written; it should be version ${version}`;
    this.stamp(foundPfn, foundVersion, other);
    if (other.bytes.compare(found.bytes, 0, STAMP_BYTES, 0, STAMP_BYTES) === 0) {
      if (foundPfn !== pfn)
        return `version ${foundVersion} of page ${foundPfn}; it should be version ${version} of ${pfn}`;
      if (foundVersion !== version) return `version ${foundVersion}; it should be ${version}`;
    }
    this.fill(pfn, version, other);
    const at = other.bytes.findIndex((byte, i) => byte !== found.bytes[i]);
    return `byte ${at} is ${found.bytes[at]}; in version ${version} it should be ${other.bytes[at]}`;
  }

  /** Whether pages that were never written are zero, all of them: then nothing needs to be written for them. */
  get isHoles(): boolean {
    return this.#isZero && this.#commonBelow === 0;
  }

  close(): void {
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = -1;
  }

  #isCommon(pfn: number): boolean {
    return mix(pfn ^ COMMON_PAGES) >>> 0 < this.#commonBelow;
  }

  #readFile(pfn: number, { bytes }: PageBuffer): void {
    if (readSync(this.#file, bytes, 0, PAGE_BYTES, pfn * PAGE_BYTES) === PAGE_BYTES) return;
    throw new AbdmError('IMAGE', 'the file with the content of the guest has become shorter');
  }
}

function fillFrom(seed: number, pfn: number, { words }: PageBuffer): void {
  // Two keys that differ from those of every other page of the seed: mix() is a bijection.
  fillRandom(words, mix(seed ^ pfn), mix(~seed ^ pfn));
}

function openContent(path: string, memoryBytes: number): number {
  const refuse = (why: string, cause?: unknown) =>
    new AbdmError('IMAGE', `${path} cannot be the content of a guest: ${why}`, { cause });
  let file: number;
  try {
    // Not waiting: opening a pipe would otherwise wait for its writer before it can be refused.
    file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    throw refuse((error as Error).message, error);
  }
  const stats = fstatSync(file);
  if (stats.isFile() && stats.size >= memoryBytes) return file;
  closeSync(file);
  throw refuse(stats.isFile() ? `it has ${stats.size} bytes, and the memory ${memoryBytes}` : 'it is no regular file');
}
