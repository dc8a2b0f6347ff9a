// The memory of a guest: a file, so that whoever migrates it reads and writes it without asking. Its name is gone as soon as it is open, and with it
// all that could stay behind; others of the same user reach it through /proc.
//
// At a guest that waits for its memory a second file has a bit for each page: whether it is there. It is written by `abdm merge`, always after the page's
// bytes, and read by the guest before it touches the page: so a page that is there is there whole. The guest keeps both files when `abdm merge` dies. A byte
// behind the bits is for the time after the guest's own death: it is 0 until the guest is about to run.

import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { bitmapFor, countBits, hasBit, setAll, setBit } from './bits.js';
import { type Content, PageBuffer } from './content.js';

const FILL_PAGES = 64;

export class GuestMemory {
  readonly pages: number;
  /** Pages that were written since somebody last took them from here. */
  dirty: Uint8Array;
  readonly #file: number;
  readonly #presence: number;
  /** Pages that are there. The file may know of more by now, never of less. */
  readonly #known: Uint8Array;
  #isWhole: boolean;

  /** @throws {AbdmError} IMAGE if `backing` is no directory with room for files. */
  constructor(
    backing: string,
    readonly bytes: number,
    isEmpty: boolean,
  ) {
    this.pages = bytes / PAGE_BYTES;
    this.dirty = bitmapFor(this.pages);
    this.#known = bitmapFor(this.pages);
    this.#isWhole = !isEmpty;
    if (!isEmpty) setAll(this.#known, this.pages);
    this.#file = makeFile(backing, bytes);
    this.#presence = isEmpty ? makeFile(backing, this.#known.length + 1) : -1;
  }

  /** Where others open it, while this process lives. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#file}`;
  }

  /** Where the bits are; null: all pages were there from the beginning. */
  get presencePath(): string | null {
    return this.#presence < 0 ? null : `/proc/${process.pid}/fd/${this.#presence}`;
  }

  /** Writes version 0 of every page. @throws {AbdmError} IMAGE if there is no room. */
  fill(content: Content): void {
    if (content.isHoles) return;
    const page = new PageBuffer();
    const some = Buffer.alloc(FILL_PAGES * PAGE_BYTES);
    for (let first = 0; first < this.pages; first += FILL_PAGES) {
      const count = Math.min(FILL_PAGES, this.pages - first);
      for (let i = 0; i < count; i++) {
        content.fill(first + i, 0, page);
        page.bytes.copy(some, i * PAGE_BYTES);
      }
      this.#write(some, count * PAGE_BYTES, first * PAGE_BYTES);
    }
  }

  has(pfn: number): boolean {
    if (hasBit(this.#known, pfn)) return true;
    if (this.#presence < 0) return false;
    readSync(this.#presence, this.#known, pfn >>> 3, 1, pfn >>> 3);
    return hasBit(this.#known, pfn);
  }

  /** Its guest is about to run. */
  noteRun(): void {
    if (this.#presence >= 0) writeSync(this.#presence, Uint8Array.of(1), 0, 1, this.#known.length);
  }

  /** Every page is there, and stays. */
  settle(): void {
    this.#isWhole = true;
    setAll(this.#known, this.pages);
  }

  /** Pages that are not there yet. */
  absentPages(): number {
    if (this.#isWhole) return 0;
    const there = bitmapFor(this.pages);
    readSync(this.#presence, there, 0, there.length, 0);
    return this.pages - countBits(there);
  }

  read(pfn: number, page: PageBuffer): void {
    readSync(this.#file, page.bytes, 0, PAGE_BYTES, pfn * PAGE_BYTES);
  }

  /**
   * Writes the first `bytes` of a page, and then counts it as dirty. Whoever reads it meanwhile may read half of it; but nothing comes between the
   * write and the bit: who takes the dirty pages later finds it there, and who took them earlier comes again.
   */
  write(pfn: number, page: PageBuffer, bytes: number): void {
    this.#write(page.bytes, bytes, pfn * PAGE_BYTES);
    setBit(this.dirty, pfn);
  }

  /** The dirty pages, which are counted anew from now on. */
  takeDirty(): Uint8Array {
    const taken = this.dirty;
    this.dirty = bitmapFor(this.pages);
    return taken;
  }

  close(): void {
    closeSync(this.#file);
    if (this.#presence >= 0) closeSync(this.#presence);
  }

  #write(from: Uint8Array, bytes: number, position: number): void {
    let done = 0;
    try {
      while (done < bytes) done += writeSync(this.#file, from, done, bytes - done, position + done);
    } catch (cause) {
      throw new AbdmError('IMAGE', `the memory of the guest cannot be written: ${(cause as Error).message}`, { cause });
    }
  }
}

function makeFile(backing: string, bytes: number): number {
  const path = join(backing, `abdm-guest-${randomBytes(8).toString('hex')}`);
  try {
    // For its owner only: memory is full of secrets.
    const file = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    ftruncateSync(file, bytes);
    return file;
  } catch (cause) {
    const text = `a guest of ${bytes} bytes cannot be made in ${backing}: ${(cause as Error).message}`;
    throw new AbdmError('IMAGE', text, { cause });
  }
}
