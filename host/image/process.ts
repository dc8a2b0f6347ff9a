// An image that is the memory of a running process (Linux). The process is stopped while it is read, as a VM is paused for its last
// round, and goes on when the image is closed; a process that somebody else had stopped stays stopped.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import {
  checkRange,
  eachPiece,
  errnoOf,
  type ImageSource,
  imageError,
  layOut,
  type Region,
  reasonOf,
} from './image.js';
import { isStopped, parseMaps, statOf, systemPageBytes } from './proc.js';

const PERMISSION =
  'run as the same user as that process, or with CAP_SYS_PTRACE (kernel.yama.ptrace_scope = 1 lets a process read only its descendants)';
const MAX_READ_BYTES = 1 << 30;
const ENTRY_BYTES = 8;
/** Of a pagemap entry's highest byte: present in memory, or swapped out. */
const PRESENT_OR_SWAPPED = 0xc0;

/** Whose memory is open: what must be continued if this process has to end. */
const open = new Set<ProcessSource>();

/** Lets every process that was stopped for its image go on. Synchronous, for handlers of signals. */
export function continueStopped(): void {
  for (const source of open) source.close();
}
// Whatever way this process ends, save by a signal it does not handle, it leaves nobody stopped.
process.on('exit', continueStopped);

/** How a process is stopped. */
export interface ProcessOptions {
  /** How long the process may take to stop; one in an uninterruptible wait does not before that ends. Default 5000. */
  deadlineMs?: number;
}

/**
 * Stops process `pid` and opens its memory.
 * @throws AbdmError IMAGE if it does not exist, may not be read, or does not stop in time; it is then left as it was found.
 */
export async function openProcess(pid: number, { deadlineMs = 5000 }: ProcessOptions = {}): Promise<ProcessSource> {
  if (process.platform !== 'linux')
    throw imageError(`process:${pid} cannot be read here`, 'this needs Linux; use file:PATH');
  if (!Number.isSafeInteger(pid) || pid <= 0) throw new AbdmError('USAGE', `${pid} is not the number of a process`);
  if (pid === process.pid) throw imageError(`process ${pid} is this one`, 'a process that stops itself cannot go on');
  const { state, startTime } = attempt(pid, () => statOf(pid));
  if (state === 'Z' || state === 'X')
    throw imageError(`process ${pid} has ended`, 'give the number of a running process');
  // All that may be refused is tried before the process is touched.
  closeSync(attempt(pid, () => openSync(`/proc/${pid}/mem`, 'r')));
  if (attempt(pid, () => readFileSync(`/proc/${pid}/maps`, 'latin1')) === '') {
    throw imageError(`process ${pid} has no memory of its own`, 'it is a thread of the kernel; give another one');
  }
  const wasRunning = !isStopped(pid);
  const source = new ProcessSource(pid, startTime, wasRunning);
  open.add(source);
  try {
    if (wasRunning) {
      attempt(pid, () => process.kill(pid, 'SIGSTOP'));
      const deadline = performance.now() + deadlineMs;
      while (!attempt(pid, () => isStopped(pid))) {
        if (performance.now() > deadline) {
          const hint = 'one of its threads waits uninterruptibly, often for a disk or a file server; try again';
          throw imageError(`process ${pid} did not stop within ${deadlineMs} ms`, hint);
        }
        await setTimeout(1);
      }
    }
    source.map();
    return source;
  } catch (error) {
    source.close();
    throw error;
  }
}

/** The memory of a process: its readable mappings are the regions. The process stands still until `close`. Made by {@link openProcess}. */
export class ProcessSource implements ImageSource {
  readonly description: string;
  regions: readonly Region[] = [];
  pages = 0;
  bytes = 0;
  /** Pages so far that not even the process could read (a file's mapping beyond its end, a device): taken as zeros. */
  unreadablePages = 0;
  /** Pages so far that were known to be zeros without being read. */
  untouchedPages = 0;
  /** Of each region, by its first page: whether untouched pages are zeros. */
  private readonly anonymous = new Set<number>();
  private mem = -1;
  private pagemap = -1;
  private entries = Buffer.alloc(256 * ENTRY_BYTES);

  /** For openProcess. */
  constructor(
    readonly pid: number,
    private readonly startTime: string,
    private readonly wasRunning: boolean,
  ) {
    this.description = `process ${pid}`;
  }

  /** Opens the memory of the process, which stands still now. */
  map(): void {
    const { pid } = this;
    this.mem = attempt(pid, () => openSync(`/proc/${pid}/mem`, 'r'));
    const mappings = parseMaps(attempt(pid, () => readFileSync(`/proc/${pid}/maps`, 'latin1')));
    this.regions = layOut(mappings);
    this.regions.forEach(({ firstPfn, pages }, i) => {
      if (mappings[i]!.anonymous) this.anonymous.add(firstPfn);
      this.pages += pages;
    });
    this.bytes = this.pages * PAGE_BYTES;
    try {
      // An entry a system page; only where that is our page is it worth the trouble.
      if (systemPageBytes() === PAGE_BYTES) this.pagemap = openSync(`/proc/${pid}/pagemap`, 'r');
    } catch {
      // Only speed is lost.
    }
  }

  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    checkRange(this.description, pfn, pages, this.pages);
    let at = offset;
    eachPiece(this.regions, pfn, pages, (region, page, count) => {
      this.readPiece(region, page, count, memory, at);
      at += count * PAGE_BYTES;
    });
  }

  /** Lets go of the process, which stays stopped. Idempotent and synchronous, as `close` is. */
  abandon(): void {
    this.letGo();
  }

  /** Lets the process go on. Idempotent and synchronous. */
  close(): void {
    if (!this.letGo()) return;
    try {
      // Another process may have got the number since.
      if (this.wasRunning && statOf(this.pid).startTime === this.startTime) process.kill(this.pid, 'SIGCONT');
    } catch {
      // It has ended: nothing is left to continue.
    }
  }

  private letGo(): boolean {
    if (!open.delete(this)) return false;
    for (const fd of [this.mem, this.pagemap]) if (fd >= 0) closeSync(fd);
    this.mem = -1;
    this.pagemap = -1;
    return true;
  }

  /** Reads pages of one region: runs that were touched from memory; what was not is zeros, and reading it would make the process's page tables grow. */
  private readPiece(region: Region, page: number, pages: number, memory: Uint8Array, offset: number): void {
    const address = region.address + page * PAGE_BYTES;
    const known = this.anonymous.has(region.firstPfn) && this.readEntries(address, pages);
    for (let from = 0; from < pages; ) {
      const touched = !known || this.isTouched(from);
      let to = from + 1;
      while (to < pages && (!known || this.isTouched(to) === touched)) to++;
      const at = offset + from * PAGE_BYTES;
      if (touched) this.readMemory(address + from * PAGE_BYTES, (to - from) * PAGE_BYTES, memory, at);
      else {
        memory.fill(0, at, offset + to * PAGE_BYTES);
        this.untouchedPages += to - from;
      }
      from = to;
    }
  }

  private readEntries(address: number, pages: number): boolean {
    if (this.pagemap < 0) return false;
    const bytes = pages * ENTRY_BYTES;
    if (this.entries.length < bytes) this.entries = Buffer.alloc(bytes);
    try {
      return readSync(this.pagemap, this.entries, 0, bytes, (address / PAGE_BYTES) * ENTRY_BYTES) === bytes;
    } catch {
      return false;
    }
  }

  private isTouched(page: number): boolean {
    return (this.entries[page * ENTRY_BYTES + 7]! & PRESENT_OR_SWAPPED) !== 0;
  }

  private readMemory(address: number, bytes: number, memory: Uint8Array, offset: number): void {
    let done = 0;
    while (done < bytes) {
      try {
        const count = readSync(this.mem, memory, offset + done, Math.min(bytes - done, MAX_READ_BYTES), address + done);
        // The kernel reads nothing, without an error, when the memory is no more.
        if (count === 0) throw this.ended();
        done += count;
      } catch (error) {
        // A read ends before a page that cannot be read, and fails at it.
        if (!['EIO', 'EFAULT'].includes(errnoOf(error))) throw this.readError(address + done, error);
        memory.fill(0, offset + done, offset + done + PAGE_BYTES);
        this.unreadablePages++;
        done += PAGE_BYTES;
      }
    }
  }

  private ended(): AbdmError {
    return imageError(
      `process ${this.pid} ended while its memory was read`,
      'what was read of it so far is not an image',
    );
  }

  private readError(address: number, error: unknown): AbdmError {
    if (error instanceof AbdmError) return error;
    const what = `cannot read ${this.description} at address 0x${address.toString(16)}: ${reasonOf(error)}`;
    return imageError(what, PERMISSION, error);
  }
}

/** Runs what looks at a process, and says in our words why it cannot. */
function attempt<T>(pid: number, look: () => T): T {
  try {
    return look();
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT' || code === 'ESRCH')
      throw imageError(`there is no process ${pid}`, 'check its number', error);
    if (code === 'EACCES' || code === 'EPERM') {
      throw imageError(`process ${pid} may not be read or stopped: ${reasonOf(error)}`, PERMISSION, error);
    }
    throw imageError(`cannot open process ${pid}: ${reasonOf(error)}`, 'see proc(5)', error);
  }
}
