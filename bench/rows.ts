// The rows of `npm run bench:ratio`: made of rounds, and printed for people or for programs.
import { PAGE_BYTES } from 'abdm';
import type { Measured, Plan } from './interleave.js';
import type { Machine, Noise } from './machine.js';
import { spread } from './statistics.js';

export interface Row {
  type: 'ratio';
  kernel: string;
  pages: string;
  /** The peer's package name, `native`, or `one-worker`. */
  against: string;
  /** The peer's time by ours, median of the rounds: above 1 we are faster. */
  ratio: number;
  /** First and third quartile of the rounds. */
  low: number;
  high: number;
  /** Ours, median of the rounds, in 10^9 bytes of pages a second. */
  gbPerS: number;
  /** The peer's. */
  againstGbPerS: number;
  rounds: number;
  /** Bytes of pages by bytes that came out, where that is fewer. */
  sizeRatio?: number;
  againstSizeRatio?: number;
}

/** What only the co-process can tell: how fast this machine's memory is. */
export interface NativeRow {
  type: 'native';
  what: string;
  gbPerS: number;
}

export type Line = Row | NativeRow | Machine | Noise;

/** Ours against each of the others. */
export function rowsOf(
  kernel: string,
  pages: string,
  measured: readonly Measured[],
  plan: Plan,
  compresses: boolean,
): Row[] {
  const [ours, ...peers] = measured;
  const bytes = plan.slicePages * PAGE_BYTES;
  const speed = ({ seconds }: Measured) => round(bytes / spread(seconds).median / 1e9);
  const size = ({ outcomes }: Measured) => round((bytes * outcomes.length) / outcomes.reduce((a, b) => a + b, 0));
  return peers.map((peer) => {
    const { median, low, high } = spread(peer.seconds.map((seconds, i) => seconds / ours!.seconds[i]!));
    const row: Row = {
      type: 'ratio',
      kernel,
      pages,
      against: peer.side.name,
      ratio: round(median),
      low: round(low),
      high: round(high),
      gbPerS: speed(ours!),
      againstGbPerS: speed(peer),
      rounds: plan.rounds,
    };
    return compresses ? { ...row, sizeRatio: size(ours!), againstSizeRatio: size(peer) } : row;
  });
}

/** Four digits: more is noise. */
export function round(value: number): number {
  return Number(value.toPrecision(4));
}

/** One line for people. */
export function lineText(line: Line): string {
  if (line.type === 'ratio') {
    const sizes = line.sizeRatio === undefined ? '' : `   size ${line.sizeRatio} : ${line.againstSizeRatio}`;
    const range = `${line.low.toFixed(2)}-${line.high.toFixed(2)}`;
    return `${line.kernel.padEnd(15)}${line.pages.padEnd(8)}${line.against.padEnd(36)}${line.ratio.toFixed(2).padStart(7)}x  ${range.padEnd(14)}${line.gbPerS.toFixed(2).padStart(7)} : ${line.againstGbPerS.toFixed(2).padEnd(7)} GB/s${sizes}`;
  }
  if (line.type === 'native') return `native ${line.what}: ${line.gbPerS.toFixed(2)} GB/s`;
  if (line.type === 'noise') {
    const state = line.noisy ? `NOISY: ${line.reasons.join('; ')}. Do not quote these figures.` : 'quiet';
    return `run: ${state} (load ${line.load.toFixed(1)}, had a core ${(line.cpuShare * 100).toFixed(1)} % of the time, spread ${(line.spread * 100).toFixed(1)} %)`;
  }
  const cache =
    line.lastLevelCacheMiB === null ? 'last-level cache unknown' : `last-level cache ${line.lastLevelCacheMiB} MiB`;
  const fits = line.poolExceedsCache === false ? ': the pages fit into it, if all of it is ours' : '';
  return [
    `${line.cpu}, ${line.cores} cores, ${line.memoryGiB} GiB, ${cache}${fits}`,
    `${line.system}, Node ${line.node}, V8 ${line.v8}`,
    `${line.poolMiB} MiB of pages a class; heap: ${line.heap}`,
    `${line.clock}`,
    `native column: ${line.native}`,
  ].join('\n');
}
