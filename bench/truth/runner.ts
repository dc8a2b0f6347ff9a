// Runs seeds one after the other, and sums up what came of them by mode and kill.
import { type KillName, MODES, type Mode, planOf } from './plan.js';
import { type Outcome, run } from './run.js';

/** One line of --json. */
export interface Row {
  readonly type: 'truth';
  readonly mode: Mode;
  readonly kill: KillName;
  readonly runs: number;
  readonly asPromised: number;
  /** `--runs 1 --seed SEED` is that run again. */
  readonly failed: readonly number[];
  /** Where the failed runs' logs are, and what was broken in each. */
  readonly logs: readonly string[];
  readonly broken: Readonly<Record<number, readonly string[]>>;
}

/** The first `runs` seeds from `seed` on, of one mode if it is given. */
export function seedsOf(runs: number, seed: number, only: Mode | null): number[] {
  const seeds: number[] = [];
  for (let one = seed; seeds.length < runs; one++) if (only === null || planOf(one).mode === only) seeds.push(one);
  return seeds;
}

export async function runAll(seeds: readonly number[], say: (line: string) => void): Promise<Row[]> {
  const outcomes: Outcome[] = [];
  for (const seed of seeds) {
    const outcome = await run(seed);
    say(describe(outcome));
    if (outcome.broken.length === 0) outcome.scene.remove();
    outcomes.push(outcome);
  }
  return rowsOf(outcomes);
}

function rowsOf(outcomes: readonly Outcome[]): Row[] {
  const groups = new Map<string, Outcome[]>();
  for (const outcome of outcomes) {
    const key = `${outcome.plan.mode} ${outcome.plan.blow.kill}`;
    groups.set(key, [...(groups.get(key) ?? []), outcome]);
  }
  return [...groups.values()]
    .map(rowOf)
    .sort((a, b) => MODES.indexOf(a.mode) - MODES.indexOf(b.mode) || (a.kill < b.kill ? -1 : 1));
}

function rowOf(outcomes: readonly Outcome[]): Row {
  const { mode, blow } = outcomes[0]!.plan;
  const failed = outcomes.filter(({ broken }) => broken.length > 0);
  return {
    type: 'truth',
    mode,
    kill: blow.kill,
    runs: outcomes.length,
    asPromised: outcomes.length - failed.length,
    failed: failed.map(({ plan }) => plan.seed),
    logs: failed.map(({ scene }) => scene.dir),
    broken: Object.fromEntries(failed.map(({ plan, broken }) => [plan.seed, broken])),
  };
}

function describe({ plan, note, broken, scene, tookMs }: Outcome): string {
  const { seed, mode, way, replicas, guests, blow } = plan;
  const sizes = guests.map(({ memoryBytes }) => memoryBytes >> 20).join('+');
  const how = `${mode} ${way}${way === 'direct' ? '' : ` R=${replicas}`}, ${sizes} MiB`;
  const verdict = broken.length === 0 ? 'as promised' : `NOT AS PROMISED: ${broken.join('; ')}; logs: ${scene.dir}`;
  return `seed ${seed}: ${how}, ${blow.kill} (${blow.phase}): ${note}, ${(tookMs / 1000).toFixed(1)} s, ${verdict}`;
}
