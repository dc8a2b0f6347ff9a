// A row of the table: a fault, what is promised, and how one seeded run of it goes.
import type { Random } from './random.js';
import type { Scene, SceneOptions } from './scene.js';
import type { Verdict } from './verdict.js';

export interface Run {
  readonly seed: number;
  readonly random: Random;
  readonly scene: Scene;
  readonly verdict: Verdict;
  /** Says what is happening, for the line about this run. */
  note(text: string): void;
}

export interface Fault {
  readonly name: string;
  /** What must come of it, for people. */
  readonly promise: string;
  /** A program without which it cannot be run. */
  readonly needs?: string;
  scene(random: Random, seed: number): SceneOptions;
  /** From the opened scene to the verdict. */
  run(run: Run): Promise<void>;
  /** Which seeds a run of `runs` has. Default 1 to `runs`. */
  seeds?(runs: number): number[] | Promise<number[]>;
  /** A figure that may be at most so many times the median of undisturbed runs. */
  readonly limit?: Limit;
}

export interface Limit {
  readonly figure: 'exitMs' | 'totalMs';
  readonly ratio: number;
  /** An undisturbed run: from the opened scene until both have ended. */
  undisturbed(run: Run): Promise<void>;
}

/** What nearly all undisturbed runs are. */
export async function undisturbed({ scene, verdict }: Run): Promise<void> {
  scene.startSource();
  await scene.ended();
  verdict.completed(scene);
}
