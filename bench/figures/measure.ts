// Takes the runs of a figure: all points in turn, A B C B C A, so that whatever else changes meanwhile changes for all of them.
import { lineBytesPerS } from '../network/link.js';
import { Network } from '../network/namespaces.js';
import { deadlineMs } from './estimate.js';
import { type Planned, type Point, pointOf, type Shows, type Took } from './point.js';
import { run } from './run.js';
import type { World } from './world.js';

export interface Course {
  readonly runs: number;
  readonly undisturbedMs: number;
  readonly lineBytesPerS: number;
  say(text: string): void;
}

/** @throws {Error} if one run fails: then all have. */
export async function measure(
  points: readonly Planned[],
  shows: Shows,
  world: World,
  { runs, undisturbedMs, lineBytesPerS, say }: Course,
): Promise<Point[]> {
  const took = points.map((): Took[] => []);
  for (let round = 0; round < runs; round++) {
    for (let i = 0; i < points.length; i++) {
      const at = (round + i) % points.length;
      const planned = points[at]!;
      const name = `figure ${planned.figure} ${planned.series} ${planned.x} run ${round + 1}`;
      const deadline = deadlineMs(planned.setting);
      // Guests of one round are the same in all points.
      const options = { name, seed: 1 + round * 100, undisturbedMs, deadlineMs: deadline };
      const one = await run(planned.setting, world, options);
      took[at]!.push(one);
      say(`${name}: ${wordsOf(one)}`);
    }
  }
  return points.map((planned, i) => pointOf(planned, took[i]!, lineBytesPerS, shows));
}

function wordsOf({ exitTimeMs, totalMigrationTimeMs, downtimeMs, guestShare, faultMs }: Took): string {
  const share = guestShare === null ? '' : `, ${(guestShare * 100).toFixed(0)} % of its operations`;
  const faults =
    faultMs.length === 0 ? '' : `, ${faultMs.length} faults of at most ${Math.round(Math.max(...faultMs))} ms`;
  return `exit ${Math.round(exitTimeMs)} ms, total ${Math.round(totalMigrationTimeMs)} ms, stood still ${Math.round(downtimeMs)} ms${share}${faults}`;
}

/** What the source's link carries of a TCP connection, and by which algorithm: the best of some, since nothing makes it faster. */
export async function measureLine(
  bitsPerS: number,
  times: number,
): Promise<{ readonly bytesPerS: number; readonly congestionControl: string }> {
  const hosts = ['source', 'other'].map((name) => ({ name, bitsPerS }));
  const network = new Network(hosts);
  try {
    let bytesPerS = 0;
    for (let i = 0; i < times; i++) bytesPerS = Math.max(bytesPerS, await lineBytesPerS(network, 'source', 'other'));
    return { bytesPerS: Math.round(bytesPerS), congestionControl: network.congestionControl };
  } finally {
    network.close();
  }
}
