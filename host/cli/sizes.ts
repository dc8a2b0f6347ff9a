// Sizes, rates and times, as people write and read them.

import { InvalidArgumentError } from 'commander';

const UNITS: Readonly<Record<string, number>> = { K: 1, M: 2, G: 3, T: 4 };

/**
 * `512M`, `2GiB`, `50MB`, `65536`: K, M, G, T and KiB ... are powers of 1,024, KB ... powers of 1,000.
 * @throws {InvalidArgumentError} for the command line.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)(i?B)?$/i.exec(text.trim());
  const unit = match?.[2]?.toUpperCase() ?? '';
  const decimal = match?.[3]?.toUpperCase() === 'B';
  if (!match || (unit === '' && match[3]?.toUpperCase() === 'IB')) {
    throw new InvalidArgumentError('write a size such as 65536, 512M, 2GiB or 50MB.');
  }
  const bytes = Math.round(Number(match[1]) * (decimal ? 1000 : 1024) ** (unit === '' ? 0 : UNITS[unit]!));
  if (!Number.isSafeInteger(bytes) || bytes < 1) throw new InvalidArgumentError('that size is impossible.');
  return bytes;
}

/** `512.0 MB`: powers of 1,000, as links are measured. */
export function formatBytes(bytes: number): string {
  for (const [unit, size] of [
    ['GB', 1e9],
    ['MB', 1e6],
    ['KB', 1e3],
  ] as const) {
    if (bytes >= size) return `${(bytes / size).toFixed(1)} ${unit}`;
  }
  return `${Math.round(bytes)} B`;
}

/** `0.42 s`, `75 s`, `3 min 20 s`, `23 h 5 min`, `3 d 4 h`. */
export function formatMs(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const [large, small, largeName, smallName] =
    seconds < 7_200
      ? [60, 1, 'min', 's']
      : seconds < 172_800
        ? [3_600, 60, 'h', 'min']
        : ([86_400, 3_600, 'd', 'h'] as const);
  return `${Math.floor(seconds / large)} ${largeName} ${Math.floor((seconds % large) / small)} ${smallName}`;
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
/** What a timer can wait for. */
const MAX_DAYS = 24;

/**
 * `90s`, `15m`, `2h`, `1d`, in milliseconds.
 * @throws {InvalidArgumentError} for the command line.
 */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([smhd])$/i.exec(text.trim());
  if (!match) throw new InvalidArgumentError('write a time such as 90s, 15m, 2h or 1d.');
  const ms = Math.round(Number(match[1]) * SECONDS[match[2]!.toLowerCase()]! * 1000);
  if (ms < 1000 || ms > MAX_DAYS * 86_400_000) throw new InvalidArgumentError(`write a time from 1s to ${MAX_DAYS}d.`);
  return ms;
}

/** The longest time that makes sense where a guest stands still. */
const MAX_SHORT_MS = 600_000;

/**
 * `300ms`, `2s`, `0.5s`, in milliseconds.
 * @throws {InvalidArgumentError} for the command line.
 */
export function parseShortTime(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s)$/i.exec(text.trim());
  if (!match) throw new InvalidArgumentError('write a time such as 300ms or 2s.');
  const ms = Number(match[1]) * (match[2]!.toLowerCase() === 's' ? 1000 : 1);
  if (ms < 1 || ms > MAX_SHORT_MS) throw new InvalidArgumentError(`write a time from 1ms to ${MAX_SHORT_MS / 1000}s.`);
  return ms;
}
