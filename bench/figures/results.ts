// results.json: what was measured, by which command, when, and on what.
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import type { Point } from './point.js';
import { type Promised, promisesOf } from './promises.js';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
  readonly node: string;
  readonly congestionControl: string;
  /** Of the minute before: what others had to do here. */
  readonly loadBefore: number;
}

/** What one command measured. */
export interface Invocation {
  readonly command: string;
  readonly date: string;
  readonly machine: Machine;
  readonly points: readonly Point[];
}

export interface Results {
  readonly invocations: readonly Invocation[];
}

export function describeMachine(congestionControl: string, loadBefore: number): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    node: process.version,
    congestionControl,
    loadBefore: Number(loadBefore.toFixed(2)),
  };
}

export function pointsIn({ invocations }: Results): Point[] {
  return invocations.flatMap(({ points }) => points);
}

/** What is measured anew takes the place of the same point before; all else stays. */
export function mergeResults(before: Results, added: Invocation): Results {
  const nameOf = ({ figure, series, x, setting: { vmBytes, source } }: Point) =>
    [figure, series, x, vmBytes, source].join('\n');
  const anew = new Set(added.points.map(nameOf));
  const kept = before.invocations.map((invocation) => {
    return { ...invocation, points: invocation.points.filter((point) => !anew.has(nameOf(point))) };
  });
  return { invocations: [...kept, added].filter(({ points }) => points.length > 0) };
}

/** @throws {Error} if there is no such file, or something else in it. */
export function readResults(path: string): Results {
  const read = JSON.parse(readFileSync(path, 'utf8')) as Partial<Results>;
  const isOurs = Array.isArray(read.invocations) && read.invocations.every(({ points }) => Array.isArray(points));
  if (!isOurs) throw new Error(`${path} was not written by npm run figures`);
  return { invocations: read.invocations! };
}

/** A line for each point and promise, so that a diff of two files shows what has changed. */
export function writeResults(path: string, results: Results): void {
  const invocations = results.invocations.map(({ points, ...of }) => {
    const head = JSON.stringify(of).slice(0, -1);
    return `${head},"points":${lines(points)}}`;
  });
  const promises: Promised[] = promisesOf(pointsIn(results));
  writeFileSync(path, `{"invocations":[\n${invocations.join(',\n')}\n],\n"promises":${lines(promises)}}\n`);
}

function lines(objects: readonly unknown[]): string {
  return `[\n${objects.map((object) => JSON.stringify(object)).join(',\n')}\n]`;
}
