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
