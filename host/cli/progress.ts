// How far a role has come and how fast: for its live line, for its progress events, and for abdm status.

import type { Status, VmStatus } from '../summary.js';
import { formatBytes, formatMs } from './sizes.js';

/** Bytes a second, and what is left at that rate. */
export interface Speed {
  readonly bytesPerS: number;
  readonly etaMs: number | null;
  readonly mergeEtaMs: number | null;
  /** Pages that guests begin to wait for, a second; null where there are none. */
  readonly faultsPerS: number | null;
}

export type Progress = Status & Speed;

/** Speeds are those of the last two seconds ... */
const WINDOW_MS = 2_000;
/** ... at steps of this, however often it is read. */
const STEP_MS = 100;

/** Reads a role's status and adds its speed. */
export class Meter {
  readonly #status: () => Status;
  readonly #seen: { at: number; done: number; merged: number; faults: number }[] = [];

  constructor(status: () => Status) {
    this.#status = status;
  }

  read(): Progress {
    const status = this.#status();
    const { doneBytes, totalBytes, mergedBytes, guests } = status;
    const now = performance.now();
    const merged = mergedBytes ?? 0;
    const faults = guests?.postcopyRequests ?? 0;
    if (now - (this.#seen.at(-1)?.at ?? 0) >= STEP_MS) this.#seen.push({ at: now, done: doneBytes, merged, faults });
    while (this.#seen.length > 2 && now - this.#seen[0]!.at > WINDOW_MS) this.#seen.shift();
    const first = this.#seen[0]!;
    const elapsedMs = now - first.at;
    // A guest writes to what was done already.
    const perMs = elapsedMs > 0 ? Math.max(0, doneBytes - first.done) / elapsedMs : 0;
    const mergedPerMs = elapsedMs > 0 ? (merged - first.merged) / elapsedMs : 0;
    const faultsPerMs = elapsedMs > 0 ? (faults - first.faults) / elapsedMs : 0;
    return {
      ...status,
      bytesPerS: Math.round(perMs * 1000),
      etaMs: perMs > 0 ? Math.round((totalBytes - doneBytes) / perMs) : null,
      mergeEtaMs: mergedPerMs > 0 ? Math.round((totalBytes - merged) / mergedPerMs) : null,
      faultsPerS: guests ? Math.round(faultsPerMs * 1000) : null,
    };
  }
}

/** `eject: dividing 43 %, 1.2 GB of 2.8 GB, 110.0 MB/s, exit in 15 s`. */
export function progressLine(name: string, progress: Progress): string {
  const { phase, doneBytes, totalBytes, bytesPerS, etaMs, mergeEtaMs } = progress;
  if (phase === 'waiting' || phase === 'preparing') return `${name}: ${phase}`;
  const percent = totalBytes > 0 ? Math.floor((100 * doneBytes) / totalBytes) : 100;
  const parts = [`${name}: ${phase} ${percent} %`, `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`];
  if (bytesPerS > 0) parts.push(`${formatBytes(bytesPerS)}/s`);
  if (phase === 'dividing' && etaMs !== null) parts.push(`exit in ${formatMs(etaMs)}`);
  if (mergeEtaMs !== null) parts.push(`merged in ${formatMs(mergeEtaMs)}`);
  return [parts.join(', '), ...(progress.vms ?? []).flatMap(guestText), ...faultsText(progress)].join('; ');
}

/** `2 guests run here, 35 faults/s, p99 7 ms`. */
function faultsText({ guests, faultsPerS }: Progress): string[] {
  if (!guests || guests.running === 0) return [];
  const { running, latelyP99Ms } = guests;
  const parts = [running === 1 ? 'the guest runs here' : `${running} guests run here`, `${faultsPerS} faults/s`];
  if (latelyP99Ms !== null) parts.push(`p99 ${latelyP99Ms.toFixed(1)} ms`);
  return [parts.join(', ')];
}

/** `vm1: pre-copy, round 3, 812 pages to send`; nothing of what just stands still. */
export function guestText({ name, mode, state, round, dirtyPages }: VmStatus): string[] {
  const where = state === 'left' ? 'runs there' : state === 'running' ? `round ${round}` : 'stopped';
  if (state === 'running' && round === 0) return [];
  return [`${name}: ${mode === null ? '' : `${mode}, `}${where}, ${dirtyPages} pages to send`];
}

/** `  10.0.0.1:7000: 812 frames, 210.0 MB`, a line a node. */
export function nodeLines(nodes: Status['nodes'] = []): string[] {
  return nodes.map(({ address, frames, bytes }) => `  ${address}: ${frames} frames, ${formatBytes(bytes)}`);
}
