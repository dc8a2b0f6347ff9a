// What a demo found: its summary for programs, and its table for people. Figures are medians over the rounds.

import type { Summary } from '../../summary.js';
import { formatBytes, formatMs } from '../sizes.js';

/** One migration: what both ends said, and the hash of what arrived. */
export interface Run {
  source: Summary;
  destination: Summary;
  sha256: string;
  /** Where the destination listened: it takes frames too, as far as it can. */
  to: string;
}

export class Comparison {
  readonly imageSha256: string;
  readonly mergedSha256: string;
  readonly verified: boolean;
  readonly direct: readonly Run[];
  readonly through: readonly Run[];

  constructor(imageSha256: string, direct: readonly Run[], through: readonly Run[]) {
    this.imageSha256 = imageSha256;
    this.direct = direct;
    this.through = through;
    const wrong = [...direct, ...through].find(({ sha256 }) => sha256 !== imageSha256);
    this.mergedSha256 = wrong?.sha256 ?? imageSha256;
    this.verified = wrong === undefined;
  }
}

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};
const exitMs = (runs: readonly Run[]) => median(runs.map(({ source }) => source.exitTimeMs ?? Number.NaN));
const totalMs = (runs: readonly Run[]) =>
  median(runs.map(({ destination }) => destination.totalMigrationTimeMs ?? Number.NaN));

/** The last line of `abdm demo --json`. */
export function demoSummary(comparison: Comparison) {
  const { direct, through, imageSha256, mergedSha256, verified } = comparison;
  const { source, destination } = through.at(-1)!;
  const runs = [...direct, ...through].flatMap((run) => [run.source, run.destination]);
  const exitTimeMs = exitMs(through);
  return {
    ...source,
    role: 'demo',
    vms: source.vms.map((vm, i) => ({
      ...vm,
      totalMigrationTimeMs: destination.vms[i]!.totalMigrationTimeMs,
      downtimeMs: destination.vms[i]!.downtimeMs,
      verified,
    })),
    exitTimeMs,
    totalMigrationTimeMs: totalMs(through),
    wireBytes: { source: source.wireBytes.source, destination: destination.wireBytes.destination },
    cpuSeconds: runs.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
    peakRssBytes: Math.max(...runs.map(({ peakRssBytes }) => peakRssBytes)),
    verified,
    comparison: {
      directExitTimeMs: exitMs(direct),
      exitTimeMs,
      exitSpeedup: exitMs(direct) / exitTimeMs,
      directTotalMs: totalMs(direct),
      totalMs: totalMs(through),
      totalRatio: totalMs(through) / totalMs(direct),
      imageSha256,
      mergedSha256,
    },
  };
}

/** The same for people. */
export function comparisonTable(comparison: Comparison): string[] {
  const { direct, through, imageSha256, mergedSha256, verified } = comparison;
  const rows: [string, string, string][] = [['', 'direct', 'through intermediates']];
  const row = (name: string, value: (runs: readonly Run[]) => string) =>
    rows.push([name, value(direct), value(through)]);
  const pages = (kind: 'zeroPages' | 'duplicatePages' | 'compressedPages' | 'normalPages') => (runs: readonly Run[]) =>
    String(sum(runs.at(-1)!.source, kind));
  row('exit time', (runs) => formatMs(exitMs(runs)));
  row('total time', (runs) => formatMs(totalMs(runs)));
  row('on the wire, source', (runs) => formatBytes(runs.at(-1)!.source.wireBytes.source ?? 0));
  row('on the wire, destination', (runs) => formatBytes(runs.at(-1)!.destination.wireBytes.destination ?? 0));
  row('zero pages', pages('zeroPages'));
  row('duplicate pages', pages('duplicatePages'));
  row('compressed pages', pages('compressedPages'));
  row('normal pages', pages('normalPages'));
  row('peak memory of the source', (runs) => formatBytes(Math.max(...runs.map(({ source }) => source.peakRssBytes))));
  const { source, to } = through.at(-1)!;
  for (const { address, frames, bytes } of source.nodes) {
    const where = address === to ? 'straight to the destination' : `at ${address}`;
    rows.push([`frames ${where}`, '', `${frames} (${formatBytes(bytes)})`]);
  }
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  const lines = rows.map(
    ([name, a, b]) => `  ${name.padEnd(widths[0]!)}  ${a.padStart(widths[1]!)}  ${b.padStart(widths[2]!)}`,
  );
  const speedup = exitMs(direct) / exitMs(through);
  const ratio = totalMs(through) / totalMs(direct);
  return [
    ...lines,
    `  the source is free ${speedup.toFixed(1)} times sooner; all is merged after ${ratio.toFixed(2)} of the direct time`,
    `  ${verified ? 'VERIFIED' : 'NOT VERIFIED'}  SHA-256 of the image   ${imageSha256}`,
    `  ${' '.repeat(verified ? 8 : 12)}  of what was merged    ${mergedSha256}`,
  ];
}

function sum({ vms }: Summary, kind: 'zeroPages' | 'duplicatePages' | 'compressedPages' | 'normalPages'): number {
  return vms.reduce((total, vm) => total + vm[kind], 0);
}
