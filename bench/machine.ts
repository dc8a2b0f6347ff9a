// What the figures were measured on, and whether it had other things to do meanwhile.
import { readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, loadavg, platform, release, totalmem } from 'node:os';
import { clock } from './interleave.js';
import type { Row } from './rows.js';

/** Somebody else had our core for so much of the time. */
const MAX_STOLEN = 0.05;
/** Half of the rounds of a row lie further apart than this share of their median. */
const MAX_SPREAD = 0.1;

export interface Machine {
  type: 'machine';
  cpu: string;
  cores: number;
  memoryGiB: number;
  lastLevelCacheMiB: number | null;
  system: string;
  node: string;
  v8: string;
  poolMiB: number;
  heap: string;
  /** Whether the pages are larger than the last-level cache. */
  poolExceedsCache: boolean | null;
  clock: string;
  native: string;
}

export function describeMachine(poolBytes: number, heap: string, native: string): Machine {
  const cache = lastLevelCacheMiB();
  const poolMiB = poolBytes / 2 ** 20;
  return {
    type: 'machine',
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    lastLevelCacheMiB: cache,
    system: `${platform()} ${arch()} ${release()}`,
    node: process.version,
    v8: process.versions.v8,
    poolMiB,
    heap,
    poolExceedsCache: cache === null ? null : poolMiB > cache,
    clock: 'CPU time, process.cpuUsage (native: CLOCK_PROCESS_CPUTIME_ID); workers: wall-clock time',
    native,
  };
}

function lastLevelCacheMiB(): number | null {
  for (const index of [3, 2]) {
    try {
      const size = readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${index}/size`, 'latin1');
      return Number.parseInt(size, 10) / 1024;
    } catch {
      // No such level, or not Linux.
    }
  }
  return null;
}

export interface Noise {
  type: 'noise';
  noisy: boolean;
  reasons: string[];
  /** Load average of the last minute; our own work is 1 of it. */
  load: number;
  /** Share of our wall-clock time in which we had a core. */
  cpuShare: number;
  /** Median over the rows of (high - low) / ratio. */
  spread: number;
}

/** Judges a finished run. */
export function judgeNoise(rows: readonly Row[], loadBefore: number): Noise {
  const widths = rows.map(({ ratio, low, high }) => (high - low) / ratio).sort((a, b) => a - b);
  const spread = widths[widths.length >> 1] ?? 0;
  const cpuShare = Math.min(1, clock.cpuSeconds / clock.wallSeconds || 1);
  const reasons: string[] = [];
  if (loadBefore > Math.max(0.5, availableParallelism() / 4))
    reasons.push(`load of ${loadBefore.toFixed(1)} before it began`);
  if (cpuShare < 1 - MAX_STOLEN)
    reasons.push(`others had our core for ${((1 - cpuShare) * 100).toFixed(0)} % of the time`);
  if (spread > MAX_SPREAD) reasons.push(`half of the rounds lie ${(spread * 100).toFixed(0)} % apart`);
  return { type: 'noise', noisy: reasons.length > 0, reasons, load: loadavg()[0]!, cpuShare, spread };
}
