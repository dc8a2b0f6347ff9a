// The original's curves: Deshpande et al., Scatter-Gather Live Migration of Virtual Machines (IEEE TCC 2018), read off its plots. VMs of 5 GiB, links of
// 1 Gbit/s. What it varied in figures 3 and 4 is the destination's memory, from 16 GB down to 12: a direct migration to it then takes as long as over a
// link of 1, 1/2, 1/3, 1/4 and 1/6.5.
import { PRESSURES } from './figures.js';

export interface Curve {
  readonly figure: number;
  readonly series: string;
  /** What of it is shown; a direct migration exits when it is over. */
  readonly measures: readonly ('exitTimeMs' | 'totalMigrationTimeMs')[];
  readonly points: readonly { readonly x: number; readonly seconds: number }[];
}

const VM_BYTES = 5 * 2 ** 30;
const BITS_PER_S = 1e9;

/** Times of the original, for so many bytes over so fast a link. */
export function scaleOf(vmBytes: number, bitsPerS: number): number {
  return (vmBytes / VM_BYTES) * (BITS_PER_S / bitsPerS);
}

const along = (xs: readonly number[], seconds: readonly number[]) => xs.map((x, i) => ({ x, seconds: seconds[i]! }));

const both = ['exitTimeMs', 'totalMigrationTimeMs'] as const;
const exit = ['exitTimeMs'] as const;
const total = ['totalMigrationTimeMs'] as const;

const VMS = [1, 2, 3, 4, 5];

export const CURVES: readonly Curve[] = [
  { figure: 3, series: 'original', measures: exit, points: along(PRESSURES, [49.3, 48.9, 48.6, 48.6, 48.9]) },
  { figure: 3, series: 'original', measures: total, points: along(PRESSURES, [68, 115, 163, 198, 359]) },
  { figure: 3, series: 'original post-copy', measures: both, points: along(PRESSURES, [51, 111, 146, 200, 309]) },
  { figure: 3, series: 'original pre-copy', measures: both, points: along(PRESSURES, [52, 106, 125, 174, 328]) },
  // Said to be between 49 and 51.
  { figure: 4, series: 'original', measures: exit, points: along(PRESSURES, [50, 50, 50, 50, 50]) },
  { figure: 4, series: 'original', measures: total, points: along(PRESSURES, [55, 117, 153, 210, 334]) },
  { figure: 4, series: 'original post-copy', measures: both, points: along(PRESSURES, [47, 101, 144, 202, 297]) },
  { figure: 4, series: 'original pre-copy', measures: both, points: along(PRESSURES, [119, 176, 221, 358, 452]) },
  { figure: 5, series: 'original', measures: exit, points: along(VMS, [47, 94, 142, 201, 257]) },
  { figure: 5, series: 'original, deduplicated', measures: exit, points: along(VMS, [52, 74, 100, 111, 145]) },
  { figure: 5, series: 'original post-copy', measures: exit, points: along(VMS, [44, 88, 136, 256, 449]) },
  { figure: 5, series: 'original pre-copy', measures: exit, points: along(VMS, [120, 191, 282, 411, 571]) },
  { figure: 6, series: 'original', measures: exit, points: along([0, 1, 2, 3, 4], [316, 124, 75, 52, 48]) },
];
