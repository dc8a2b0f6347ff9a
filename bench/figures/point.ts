// A point of a figure: what its runs took, as mean and spread. One line of --json, and what results.json is made of.
import type { Compression } from 'abdm';
import type { Mode } from '#abdm/host/summary.js';
import { quantile } from '../statistics.js';
import type { Load } from './load.js';

/** Of what runs took: how far they lie apart. */
export interface Spread {
  /** Standard deviation of the sample; 0 for a single run. */
  readonly sd: number;
  readonly min: number;
  readonly max: number;
}

/** How a VM leaves, and over what. */
export interface Setting {
  /** Bits a second of the cards; Ethernet frames and all. */
  readonly source: number;
  readonly nodes: readonly number[];
  readonly destination: number;
  readonly mode: Extract<Mode, 'pre-copy' | 'post-copy'>;
  readonly direct: boolean;
  readonly compress: Exclude<Compression, 'high'>;
  readonly replicas: number;
  /** How many leave together. */
  readonly vms: number;
  /** Of each. */
  readonly vmBytes: number;
  /** `random` cannot be compressed; `mix` is that of the other benchmarks. */
  readonly content: 'random' | 'mix';
  /** The share of pages that all VMs have alike. */
  readonly common: number;
  readonly load: Load;
}

/** What one run took. Of several VMs: of the gang, and of all its faults. */
export interface Took {
  readonly exitTimeMs: number;
  readonly totalMigrationTimeMs: number;
  /** Page data that left the source. */
  readonly wireBytes: number;
  /** Of the VM that stood still longest. */
  readonly downtimeMs: number;
  /** Operations a second while it migrates, by those before; null if the guest does nothing. */
  readonly guestShare: number | null;
  /** How long each page that was waited for was waited for. */
  readonly faultMs: readonly number[];
  readonly timeline: readonly Moment[];
}

/** What a guest did in a quarter of a second. Seconds count from the beginning of the migration. */
export interface Moment {
  readonly atS: number;
  readonly operationsPerS: number;
}

export const MEASURES = [
  'exitTimeMs',
  'totalMigrationTimeMs',
  'lineRateFraction',
  'wireBytes',
  'downtimeMs',
  'guestShare',
] as const;
export type Measure = (typeof MEASURES)[number];

export interface Faults {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** In figures that show it: a share of all faults, and how long these took at most. */
  readonly quantiles?: readonly (readonly [share: number, ms: number])[];
}

/** Means over its runs, and in `spread` how far they lie apart. */
export interface Point extends Readonly<Record<Exclude<Measure, 'guestShare'>, number>> {
  readonly type: 'point';
  readonly figure: number;
  readonly series: string;
  readonly x: number;
  readonly runs: number;
  readonly guestShare: number | null;
  readonly spread: Readonly<Partial<Record<Measure, Spread>>>;
  /** Of all runs together; null if no page was waited for. */
  readonly faults: Faults | null;
  /** Of the VMs together. */
  readonly imageBytes: number;
  /** What the source's link carries of a TCP connection. */
  readonly lineBytesPerS: number;
  readonly setting: Setting;
  /** In figures that show it: of the run whose guest did as much as in most. */
  readonly timeline?: readonly Moment[];
}

/** What a figure plots: how long it took, how long faults took, or what a guest did. */
export type Shows = 'times' | 'faults' | 'timeline';

/** Which point of which figure; its runs are to be taken. */
export interface Planned {
  readonly figure: number;
  readonly series: string;
  readonly x: number;
  readonly setting: Setting;
}

/** What is one plot: points of one figure, of one size, over one link. */
export function groupsOf(points: readonly Point[]): Point[][] {
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    const { figure, setting } = point;
    const name = `${figure} ${setting.vmBytes} ${setting.source}`;
    groups.set(name, [...(groups.get(name) ?? []), point]);
  }
  return [...groups.values()].sort(([a], [b]) => a!.figure - b!.figure || b!.setting.vmBytes - a!.setting.vmBytes);
}

const QUANTILES = [
  ...Array.from({ length: 20 }, (_, i) => i / 20),
  ...[0.96, 0.97, 0.98, 0.99, 0.995, 0.999, 1],
] as const;

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function spreadOf(values: readonly number[]): Spread {
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  const sd = values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
  return { sd, min: Math.min(...values), max: Math.max(...values) };
}

/** What its runs make of a point. */
export function pointOf(planned: Planned, took: readonly Took[], lineBytesPerS: number, shows: Shows): Point {
  const { figure, series, x, setting } = planned;
  const imageBytes = setting.vms * setting.vmBytes;
  const lineMs = (imageBytes / lineBytesPerS) * 1000;
  const values: Record<Measure, number[]> = {
    exitTimeMs: took.map((one) => one.exitTimeMs),
    totalMigrationTimeMs: took.map((one) => one.totalMigrationTimeMs),
    lineRateFraction: took.map((one) => lineMs / one.exitTimeMs),
    wireBytes: took.map((one) => one.wireBytes),
    downtimeMs: took.map((one) => one.downtimeMs),
    guestShare: took.flatMap((one) => one.guestShare ?? []),
  };
  const measured = MEASURES.filter((measure) => values[measure].length > 0);
  const faultMs = took.flatMap((one) => one.faultMs);
  return {
    type: 'point',
    figure,
    series,
    x,
    runs: took.length,
    exitTimeMs: mean(values.exitTimeMs),
    totalMigrationTimeMs: mean(values.totalMigrationTimeMs),
    lineRateFraction: mean(values.lineRateFraction),
    wireBytes: mean(values.wireBytes),
    downtimeMs: mean(values.downtimeMs),
    guestShare: values.guestShare.length > 0 ? mean(values.guestShare) : null,
    spread: Object.fromEntries(measured.map((measure) => [measure, spreadOf(values[measure])])),
    faults: faultMs.length > 0 ? faultsOf(faultMs, shows === 'faults') : null,
    imageBytes,
    lineBytesPerS,
    setting,
    ...(shows === 'timeline' && { timeline: representative(took).timeline }),
  };
}

function faultsOf(faultMs: readonly number[], withQuantiles: boolean): Faults {
  const sorted = [...faultMs].sort((a, b) => a - b);
  return {
    count: sorted.length,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
    maxMs: sorted.at(-1)!,
    ...(withQuantiles && { quantiles: QUANTILES.map((share) => [share, Number(quantile(sorted, share).toFixed(3))]) }),
  };
}

/** The run in the middle, by how much its guest did. */
function representative(took: readonly Took[]): Took {
  const byShare = [...took].sort((a, b) => (a.guestShare ?? 0) - (b.guestShare ?? 0));
  return byShare[(byShare.length - 1) >> 1]!;
}
