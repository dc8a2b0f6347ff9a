// An image that becomes a file. It grows under another name, PATH.partial, and takes its own only when it is whole and on stable
// storage: a partial output can never be taken for the whole, and what had the name before stays until then.

import {
  close,
  closeSync,
  existsSync,
  fsync,
  ftruncate,
  ftruncateSync,
  open,
  openSync,
  readSync,
  realpathSync,
  rename,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { checkRange, errnoOf, type ImageSink, imageError, reasonOf } from './image.js';

/** 2^32 pages: what an engine's page numbers reach, and half a GiB for the bits of `written`. */
const MAX_BYTES = 2 ** 44;
const ZEROS = new Uint8Array(64 * 1024);

const HINTS: Record<string, string> = {
  ENOENT: 'its directory must exist',
  ENOTDIR: 'its directory must exist',
  EACCES: 'its directory must be writable for this user',
  EPERM: 'its directory must be writable for this user',
  EROFS: 'choose a directory on a file system that can be written',
  ENOSPC: 'free some room on its file system and start again',
  EDQUOT: 'free some room in this quota and start again',
  EFBIG: 'the file system, or a limit of this process, does not allow files of this size',
};

/** PATH.partial is there already: somebody is writing it, so begin nothing; or it is of a dead process, to be made anew or to be gone on with. */
export type LeftOver = 'refuse' | 'replace' | 'keep';

export class FileSink implements ImageSink {
  readonly description: string;
  readonly path: string;
  private readonly partial: string;
  private readonly pages: number;
  /** A bit for each page that may be something else than zero. */
  private readonly written: Uint8Array;
  private fd: number;
  /** Committed or removed: nothing is left to remove. */
  private settled = false;

  /**
   * Begins `path` anew, `bytes` long.
   * @param left what becomes of a PATH.partial that is there already: the caller knows whether whoever made it is dead.
   * @throws AbdmError IMAGE if it cannot be made there, or if somebody else is making it.
   */
  constructor(
    path: string,
    readonly bytes: number,
    left: LeftOver = 'refuse',
  ) {
    this.description = `file ${path}`;
    if (!(bytes >= 0 && bytes <= MAX_BYTES)) {
      throw imageError(`${path} cannot be ${bytes} bytes long`, `an image has at most ${MAX_BYTES}`);
    }
    // What the name leads to is replaced, not a symbolic link on the way.
    this.path = this.target(path);
    this.partial = `${this.path}.partial`;
    this.pages = Math.ceil(bytes / PAGE_BYTES);
    this.written = new Uint8Array(Math.ceil(this.pages / 8));
    if (left === 'replace') rmSync(this.partial, { force: true });
    try {
      if (left === 'keep' && existsSync(this.partial)) {
        this.fd = openSync(this.partial, 'r+');
        this.written.fill(0xff); // what it holds is not known
      } else {
        // Exclusive; and for its owner only: memory is full of secrets.
        this.fd = openSync(this.partial, 'wx+', 0o600);
      }
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw this.failure(`cannot make ${this.partial}`, error);
      const hint =
        'if nothing is writing it, it was left behind by a process that was killed: remove it and start again';
      throw imageError(`${this.partial} exists already`, hint, error);
    }
    try {
      // All of it is a hole at first: reads back as zeros, and a size that is impossible shows now.
      ftruncateSync(this.fd, this.pages * PAGE_BYTES);
    } catch (error) {
      this.remove();
      throw this.failure(`cannot make ${this.partial} ${bytes} bytes long`, error);
    }
  }

  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    const pages = Math.ceil(bytes / PAGE_BYTES);
    checkRange(this.description, pfn, pages, this.pages);
    for (let page = pfn; page < pfn + pages; page++) this.written[page >>> 3]! |= 1 << (page & 7);
    this.writeAll(memory, offset, bytes, pfn * PAGE_BYTES);
  }

  zero(pfn: number, pages: number): void {
    checkRange(this.description, pfn, pages, this.pages);
    const end = pfn + pages;
    for (let page = pfn; page < end; page++) {
      const first = page;
      while (page < end && this.isWritten(page)) page++;
      let position = first * PAGE_BYTES;
      while (position < page * PAGE_BYTES) {
        const bytes = Math.min(ZEROS.length, page * PAGE_BYTES - position);
        this.writeAll(ZEROS, 0, bytes, position);
        position += bytes;
      }
      for (let done = first; done < page; done++) this.written[done >>> 3]! &= ~(1 << (done & 7));
    }
  }

  read(pfn: number, memory: Uint8Array, offset: number): void {
    checkRange(this.description, pfn, 1, this.pages);
    let done = 0;
    try {
      while (done < PAGE_BYTES) {
        const count = readSync(this.fd, memory, offset + done, PAGE_BYTES - done, pfn * PAGE_BYTES + done);
        if (count === 0) throw new Error('it has become shorter');
        done += count;
      }
    } catch (error) {
      throw this.failure(`cannot read ${this.partial} back at offset ${pfn * PAGE_BYTES + done}`, error);
    }
  }

  async commit(): Promise<void> {
    try {
      await promisify(ftruncate)(this.fd, this.bytes);
      await promisify(fsync)(this.fd);
      const fd = this.fd;
      this.fd = -1;
      await promisify(close)(fd);
      await promisify(rename)(this.partial, this.path);
      this.settled = true;
      await this.syncDirectory();
    } catch (error) {
      throw this.failure(`cannot complete ${this.path}`, error);
    }
  }

  async discard(): Promise<void> {
    this.remove();
  }

  async leave(): Promise<void> {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
    this.settled = true;
  }

  /** What `discard` does, for a handler of signals. */
  remove(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
    if (this.settled) return;
    this.settled = true; // never remove what somebody else makes under this name later
    try {
      unlinkSync(this.partial);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw this.failure(`cannot remove ${this.partial}`, error);
    }
  }

  /** The new name is on stable storage only when its directory is. */
  private async syncDirectory(): Promise<void> {
    if (process.platform === 'win32') return;
    const fd = await promisify(open)(dirname(this.path), 'r');
    try {
      await promisify(fsync)(fd);
    } finally {
      await promisify(close)(fd);
    }
  }

  private isWritten(page: number): boolean {
    return ((this.written[page >>> 3]! >> (page & 7)) & 1) === 1;
  }

  private writeAll(memory: Uint8Array, offset: number, bytes: number, position: number): void {
    let done = 0;
    try {
      while (done < bytes) {
        const count = writeSync(this.fd, memory, offset + done, bytes - done, position + done);
        if (count === 0) throw new Error('nothing was written');
        done += count;
      }
    } catch (error) {
      throw this.failure(`cannot write ${this.partial} at offset ${position + done}`, error);
    }
  }

  private target(path: string): string {
    let target = path;
    try {
      target = realpathSync(path);
      if (statSync(target).isFile()) return target;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return target;
      throw this.failure(`cannot make ${path}`, error);
    }
    throw imageError(`${path} exists and is no regular file`, 'give the name of a file');
  }

  private failure(what: string, error: unknown): Error {
    return imageError(`${what}: ${reasonOf(error)}`, HINTS[errnoOf(error)] ?? 'check its file system', error);
  }
}
