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

/** `0.42 s`, `75 s`, `3 min 20 s`. */
export function formatMs(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
