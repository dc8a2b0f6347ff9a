// What Linux tells of a process under /proc, parsed. Formats: proc(5), and pagemap in the kernel's admin guide (mm/pagemap).
import { readdirSync, readFileSync } from 'node:fs';

export interface Mapping {
  name: string;
  /** First address. */
  address: number;
  bytes: number;
  /** Only this process sees it, and no file lies behind it: what was never touched reads as zeros. */
  anonymous: boolean;
}

// By name: [vdso] and its like are private and without a file too, but not zeros where they were not touched.
const ANONYMOUS = /^(\[(heap|stack|anon:.*)\])?$/;

/**
 * The mappings that the process itself can read. Left out are
 * - those without read permission: guard pages and address space set aside, often more than the machine has memory;
 * - [vvar...] and [vsyscall]: pages of the kernel shown to every process, not part of its memory, and /proc/PID/mem refuses them.
 */
export function parseMaps(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split('\n')) {
    // start-end perms offset device inode [name]
    const match = /^([0-9a-f]+)-([0-9a-f]+) (r..)(.) [0-9a-f]+ \S+ (\d+) *(.*)$/.exec(line);
    if (!match) continue;
    const [, start, end, , sharing, inode, name] = match;
    if (name!.startsWith('[vvar') || name === '[vsyscall]') continue;
    const address = Number.parseInt(start!, 16);
    const anonymous = sharing === 'p' && inode === '0' && ANONYMOUS.test(name!);
    mappings.push({ name: name || '[anon]', address, bytes: Number.parseInt(end!, 16) - address, anonymous });
  }
  return mappings;
}

export interface TaskStat {
  /** R running, S sleeping, D in an uninterruptible wait, T stopped, t stopped by a tracer, Z ended but not yet reaped, X dead, ... */
  state: string;
  /** Clock ticks after boot: tells two owners of one pid apart. */
  startTime: string;
}

/** Parses /proc/PID/stat; the command's name, in parentheses, may hold anything. */
export function parseStat(text: string): TaskStat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', startTime: fields[19] ?? '' };
}

/** @throws the system's error, ENOENT or ESRCH when there is no such process. */
export function statOf(pid: number): TaskStat {
  return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'));
}

/** True when no thread of the process can run: each one is stopped, or has ended. */
export function isStopped(pid: number): boolean {
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      const { state } = parseStat(readFileSync(`/proc/${pid}/task/${task}/stat`, 'latin1'));
      if (!'TtZX'.includes(state)) return false;
    } catch {
      return false; // ended meanwhile: what it did last is not known, so look again
    }
  }
  return true;
}

/** The size of this system's pages, or 0 if it cannot be told: AT_PAGESZ (6) in the auxiliary vector. */
export function systemPageBytes(): number {
  try {
    const vector = readFileSync('/proc/self/auxv');
    for (let at = 0; at + 16 <= vector.length; at += 16) {
      if (vector.readUInt32LE(at) === 6) return vector.readUInt32LE(at + 8);
    }
  } catch {
    // Not to be had.
  }
  return 0;
}
