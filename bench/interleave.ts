// The loop that compares: all sides in turn, a slice at a time, A B A B.
//
//   round 0    A: slice 0    B: slice 8          One round of every side is one ratio; what disturbs the machine for longer than a round
//   round 1    B: slice 9    A: slice 1          disturbs all sides alike. Who begins rotates, and more than two go forth and back. In a
//   round 2    A: slice 2    B: slice 10         round each side is at another place of the pool, so that none finds its pages in the
//   ...                                          cache because another has just read them; after all rounds each has seen the same pages.
//
// What counts is CPU time, user and system, of the whole process, by process.cpuUsage: its sum is exact to the microsecond on Linux, and a
// turn takes hundreds of them. It includes what the compiler's and the collector's threads take meanwhile. Garbage that a turn leaves behind
// is collected between turns, on nobody's account.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isLocal, type Side, type Slice, type Turn } from './sides.js';

export interface Plan {
  /** Slices of the pool. */
  slices: number;
  slicePages: number;
  /** At most as many as there are slices. */
  rounds: number;
  /** How long each side runs before anything counts, at least: until V8 has compiled what is hot. */
  warmUpMs: number;
}

export interface Measured {
  side: Side;
  /** CPU seconds of each round. */
  seconds: number[];
  outcomes: number[];
}

setFlagsFromString('--expose-gc');
const collect: (options: { type: 'minor' }) => void = runInNewContext('gc');

/** CPU time and wall-clock time of all turns in this process: apart, if somebody else has had our core. */
export const clock = { cpuSeconds: 0, wallSeconds: 0 };

/** One turn of one side. */
export async function turn(side: Side, slice: Slice): Promise<Turn> {
  if (!isLocal(side)) return side.turn(slice);
  side.prepare?.(slice);
  collect({ type: 'minor' });
  const wall = process.hrtime.bigint();
  const before = process.cpuUsage();
  const outcome = side.run(slice);
  const { user, system } = process.cpuUsage(before);
  clock.wallSeconds += Number(process.hrtime.bigint() - wall) / 1e9;
  clock.cpuSeconds += (user + system) / 1e6;
  return { seconds: (user + system) / 1e6, outcome };
}

let passes = 0;

export async function interleave(sides: readonly Side[], plan: Plan): Promise<Measured[]> {
  for (const side of sides) await warmUp(side, plan);
  const pass = await begin(sides);
  const measured: Measured[] = sides.map((side) => ({ side, seconds: [], outcomes: [] }));
  for (let round = 0; round < plan.rounds; round++) {
    for (let k = 0; k < sides.length; k++) {
      // Forth and back in turn, so that none always follows the same one: what a neighbour leaves in the caches differs.
      const step = round % 2 === 0 ? k : sides.length - k;
      const which = (round + step) % sides.length;
      const index = (round + Math.floor((which * plan.slices) / sides.length)) % plan.slices;
      const { seconds, outcome } = await turn(sides[which]!, sliceAt(plan, index, pass));
      measured[which]!.seconds.push(seconds);
      measured[which]!.outcomes.push(outcome);
    }
  }
  return measured;
}

async function warmUp(side: Side, plan: Plan): Promise<void> {
  const end = performance.now() + plan.warmUpMs;
  do {
    const pass = await begin([side]);
    for (let index = 0; index < Math.min(2, plan.slices) || (index < plan.slices && performance.now() < end); index++) {
      await turn(side, sliceAt(plan, index, pass));
    }
  } while (performance.now() < end);
}

/** Sides that begin a pass together. Returns its number, which no other pass has. */
async function begin(sides: readonly Side[]): Promise<number> {
  for (const side of sides) if (isLocal(side)) await side.begin?.();
  return ++passes;
}

export function sliceAt(plan: Plan, index: number, pass: number): Slice {
  return { first: index * plan.slicePages, pages: plan.slicePages, pass };
}
