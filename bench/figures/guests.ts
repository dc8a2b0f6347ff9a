// What guests said of themselves, as figures: how much they did, and how long they waited.
import type { Role } from '../faults/role.js';
import type { Moment } from './point.js';

/** What a guest did in the `ms` before `atMs`; milliseconds since 1970. */
export interface Operations {
  readonly atMs: number;
  readonly ms: number;
  readonly operations: number;
  readonly faultMs: readonly number[];
}

export function operationsOf({ events }: Pick<Role, 'events'>): Operations[] {
  return events.filter(({ type }) => type === 'operations') as unknown as Operations[];
}

/** Operations a second from one moment to another; of what lies across a moment, as much as lies within. */
export function ratePerS(all: readonly Operations[], fromMs: number, toMs: number): number {
  const within = all.reduce((sum, { atMs, ms, operations }) => {
    const overlapMs = Math.min(atMs, toMs) - Math.max(atMs - ms, fromMs);
    return overlapMs > 0 ? sum + (operations * overlapMs) / ms : sum;
  }, 0);
  return (within / (toMs - fromMs)) * 1000;
}

export function timelineOf(all: readonly Operations[], beganAtMs: number): Moment[] {
  return [...all]
    .sort((a, b) => a.atMs - b.atMs)
    .map(({ atMs, ms, operations }) => ({
      atS: Number(((atMs - ms / 2 - beganAtMs) / 1000).toFixed(3)),
      operationsPerS: Math.round((operations / ms) * 1000),
    }));
}

/** A stretch in which a guest ran: operations [fromOperation, toOperation), milliseconds since 1970. */
export interface Ran {
  readonly fromOperation: number;
  readonly toOperation: number;
  readonly beganAtMs: number;
  readonly endedAtMs: number;
}

/** Clocks of two processes on one machine. */
const CLOCKS_MS = 2;

/** What is wrong if one and the same guest ran here and there; nothing if it was at one place at a time and did each operation once. */
export function judgeRan(here: readonly Ran[], there: readonly Ran[]): string[] {
  const all = [...here, ...there].sort((a, b) => a.beganAtMs - b.beganAtMs);
  const broken = there.length === 0 ? ['it never ran at the destination'] : [];
  for (const [i, one] of all.slice(1).entries()) {
    const before = all[i]!;
    const overlapMs = before.endedAtMs - one.beganAtMs;
    if (overlapMs > CLOCKS_MS) broken.push(`two owners for ${overlapMs.toFixed(1)} ms`);
    if (before.toOperation !== one.fromOperation)
      broken.push(`operations went on at ${one.fromOperation} after ${before.toOperation}`);
  }
  return broken;
}
