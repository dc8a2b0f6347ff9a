// An image that is a file, or comes from a block device. Its size is what it was when it was opened.
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, type Stats } from 'node:fs';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { checkRange, errnoOf, type ImageSource, imageError, layOut, type Region, reasonOf } from './image.js';

// One read call takes at most 2^31 - 1 bytes.
const MAX_READ_BYTES = 1 << 30;

const OPEN_HINTS: Record<string, string> = {
  ENOENT: 'check the path',
  ENOTDIR: 'check the path',
  EACCES: 'it must be readable for this user',
  EPERM: 'it must be readable for this user',
  EMFILE: 'too many files are open',
};

/** A file or a block device as an image. */
export class FileSource implements ImageSource {
  readonly description: string;
  readonly regions: readonly Region[];
  readonly pages: number;
  readonly bytes: number;
  private fd: number;

  /** @throws AbdmError IMAGE if `path` cannot be opened, or is neither a regular file nor a block device. */
  constructor(readonly path: string) {
    this.description = `file ${path}`;
    try {
      // Not waiting: opening a pipe would otherwise wait for its writer before it can be refused.
      this.fd = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    } catch (error) {
      const hint = OPEN_HINTS[errnoOf(error)] ?? 'check the path and its permissions';
      throw imageError(`cannot open ${this.description}: ${reasonOf(error)}`, hint, error);
    }
    try {
      this.bytes = this.size(fstatSync(this.fd));
    } catch (error) {
      this.close();
      throw error;
    }
    // A file without a byte has no region of its own to speak of, but is an image.
    this.regions = layOut(this.bytes > 0 ? [{ name: 'file', address: 0, bytes: this.bytes }] : []);
    this.pages = Math.ceil(this.bytes / PAGE_BYTES);
  }

  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    checkRange(this.description, pfn, pages, this.pages);
    const begin = pfn * PAGE_BYTES;
    const wanted = Math.min(pages * PAGE_BYTES, this.bytes - begin);
    let done = 0;
    while (done < wanted) {
      const count = this.readSome(memory, offset + done, Math.min(wanted - done, MAX_READ_BYTES), begin + done);
      if (count === 0) {
        throw imageError(
          `${this.description} has become shorter: it had ${this.bytes} bytes when it was opened, and now ends at ${begin + done} or before`,
          'nothing may change it while it is read; start again',
        );
      }
      done += count;
    }
    memory.fill(0, offset + done, offset + pages * PAGE_BYTES);
  }

  close(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }

  private readSome(memory: Uint8Array, offset: number, bytes: number, position: number): number {
    try {
      return readSync(this.fd, memory, offset, bytes, position);
    } catch (error) {
      const what = `cannot read ${this.description} at offset ${position}: ${reasonOf(error)}`;
      throw imageError(what, 'check the disk it lies on', error);
    }
  }

  private size(stats: Stats): number {
    if (stats.isFile()) return stats.size;
    if (stats.isBlockDevice()) return this.deviceBytes(stats);
    const kind = stats.isDirectory() ? 'a directory' : 'neither a file nor a block device';
    throw imageError(`${this.path} is ${kind}`, 'an image is a regular file or a block device');
  }

  /** fstat says 0 for a block device; Linux tells its size in 512-byte sectors. */
  private deviceBytes({ rdev }: Stats): number {
    const major = (rdev >>> 8) & 0xfff;
    const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
    const path = `/sys/dev/block/${major}:${minor}/size`;
    try {
      return Number(readFileSync(path, 'latin1')) * 512;
    } catch (error) {
      throw imageError(`cannot tell the size of ${this.path}: ${reasonOf(error)}`, 'copy it to a file first', error);
    }
  }
}
