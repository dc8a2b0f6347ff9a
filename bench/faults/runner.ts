// Runs a row: its seeds one after the other, each in a scene of its own, and between them undisturbed ones where a figure is held against theirs.
import { setTimeout as sleep } from 'node:timers/promises';
import { quantile } from '../statistics.js';
import type { Fault, Run } from './fault.js';
import { Random } from './random.js';
import { Scene } from './scene.js';
import { Verdict } from './verdict.js';

/** One line of --json. */
export interface Row {
  readonly type: 'fault';
  readonly fault: string;
  readonly promise: string;
  readonly runs: number;
  readonly asPromised: number;
  /** Seeds: `--only FAULT --seed SEED` is that run again. */
  readonly failed: number[];
  /** Where the failed runs' logs are, and what was broken in each. */
  readonly logs: string[];
  readonly broken: Record<number, string[]>;
}

interface Outcome {
  readonly seed: number;
  readonly notes: string[];
  readonly broken: string[];
  readonly scene: Scene;
  readonly exitMs: number | null;
  readonly totalMs: number | null;
}

/** Whatever happens, a run is over by then: every migration ends by a deadline. */
const RUN_MS = 120_000;
/** Figures are held against undisturbed runs only where there are so many of both that one of them does not decide. */
const JUDGED_RUNS = 6;
/** Undisturbed runs before the first seed, and one more for each so many seeds. */
const UNDISTURBED_FIRST = 3;
const UNDISTURBED_EACH = 4;

const open = new Set<Scene>();

/** Ends everything at once. */
export function endAll(): void {
  for (const scene of open) scene.kill();
}

export async function runFault(
  fault: Fault,
  runs: number,
  seed: number | null,
  say: (line: string) => void,
): Promise<Row> {
  const seeds = seed === null ? await (fault.seeds?.(runs) ?? Array.from({ length: runs }, (_, i) => i + 1)) : [seed];
  const outcomes: Outcome[] = [];
  const undisturbed: Outcome[] = [];
  const limit = seeds.length >= JUDGED_RUNS ? fault.limit : undefined;
  for (const [i, one] of seeds.entries()) {
    const more = !limit ? 0 : i === 0 ? UNDISTURBED_FIRST : i % UNDISTURBED_EACH === 0 ? 1 : 0;
    for (let n = 0; n < more; n++) {
      const outcome = await once(fault, -undisturbed.length - 1, limit!.undisturbed);
      say(describe(fault, 'undisturbed', outcome));
      undisturbed.push(outcome);
    }
    const outcome = await once(fault, one, (run) => fault.run(run));
    say(describe(fault, `seed ${one}`, outcome));
    outcomes.push(outcome);
  }
  if (limit) {
    const typical = quantile(
      undisturbed.flatMap((outcome) => outcome[limit.figure] ?? []),
      0.5,
    );
    for (const outcome of outcomes) {
      const ratio = (outcome[limit.figure] ?? 0) / typical;
      if (!(ratio <= limit.ratio))
        outcome.broken.push(`${limit.figure} is ${ratio.toFixed(2)} times the undisturbed ${Math.round(typical)} ms`);
    }
  }
  const failed = outcomes.filter(({ broken }) => broken.length > 0);
  for (const { scene, broken } of [...outcomes, ...undisturbed]) if (broken.length === 0) scene.remove();
  for (const { seed, broken, scene } of failed)
    say(`${fault.name} seed ${seed}: ${broken.join('; ')}; logs: ${scene.dir}`);
  return {
    type: 'fault',
    fault: fault.name,
    promise: fault.promise,
    runs: outcomes.length,
    asPromised: outcomes.length - failed.length,
    failed: failed.map(({ seed }) => seed),
    logs: failed.map(({ scene }) => scene.dir),
    broken: Object.fromEntries(failed.map(({ seed, broken }) => [seed, broken])),
  };
}

/** One run in a scene of its own. The scene's directory stays. */
async function once(fault: Fault, seed: number, work: (run: Run) => Promise<void>): Promise<Outcome> {
  const random = new Random(fault.name, seed);
  const scene = new Scene(random, fault.scene(random, seed));
  const verdict = new Verdict();
  const notes: string[] = [];
  open.add(scene);
  const over = new AbortController();
  try {
    await Promise.race([
      scene.open().then(() => work({ seed, random, scene, verdict, note: (text) => notes.push(text) })),
      sleep(RUN_MS, undefined, { signal: over.signal }).then(() => verdict.broken.push(`not over after ${RUN_MS} ms`)),
    ]);
  } catch (error) {
    verdict.broken.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  over.abort();
  // What is still being judged after the deadline does not count any more.
  const broken = [...verdict.broken];
  broken.push(...(await scene.close()));
  open.delete(scene);
  return {
    seed,
    notes,
    broken,
    scene,
    exitMs: scene.source?.summary?.exitTimeMs ?? null,
    totalMs: scene.destination?.summary?.totalMigrationTimeMs ?? null,
  };
}

function describe({ name }: Fault, which: string, { notes, broken, exitMs, totalMs }: Outcome): string {
  const ms = (value: number | null) => (value === null ? '-' : `${Math.round(value)} ms`);
  const verdict = broken.length === 0 ? 'as promised' : `NOT AS PROMISED: ${broken.join('; ')}`;
  return `${name} ${which}: ${[...notes, `exit ${ms(exitMs)}, total ${ms(totalMs)}`, verdict].join(', ')}`;
}
