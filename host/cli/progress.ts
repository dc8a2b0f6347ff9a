// How far a role has come and how fast: for its live line, for its progress events, and for abdm status.

import type { Status } from '../summary.js';
import { formatBytes, formatMs } from './sizes.js';

/** Bytes a second, and what is left at that rate. */
export interface Speed {
  readonly bytesPerS: number;
  readonly etaMs: number | null;
  readonly mergeEtaMs: number | null;
}

export type Progress = Status & Speed;

/** Speeds are those of the last two seconds ... */
const WINDOW_MS = 2_000;
/** ... at steps of this, however often it is read. */
const STEP_MS = 100;

/** Reads a role's status and adds its speed. */
export class Meter {
  readonly #status: () => Status;
  readonly #seen: { at: number; done: number; merged: number }[] = [];

  constructor(status: () => Status) {
    this.#status = status;
  }

  read(): Progress {
    const status = this.#status();
    const { doneBytes, totalBytes, mergedBytes } = status;
    const now = performance.now();
    const merged = mergedBytes ?? 0;
    if (now - (this.#seen.at(-1)?.at ?? 0) >= STEP_MS) this.#seen.push({ at: now, done: doneBytes, merged });
    while (this.#seen.length > 2 && now - this.#seen[0]!.at > WINDOW_MS) this.#seen.shift();
    const first = this.#seen[0]!;
    const elapsedMs = now - first.at;
    const perMs = elapsedMs > 0 ? (doneBytes - first.done) / elapsedMs : 0;
    const mergedPerMs = elapsedMs > 0 ? (merged - first.merged) / elapsedMs : 0;
    return {
      ...status,
      bytesPerS: Math.round(perMs * 1000),
      etaMs: perMs > 0 ? Math.round((totalBytes - doneBytes) / perMs) : null,
      mergeEtaMs: mergedPerMs > 0 ? Math.round((totalBytes - merged) / mergedPerMs) : null,
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
  return parts.join(', ');
}

/** `  10.0.0.1:7000: 812 frames, 210.0 MB`, a line a node. */
export function nodeLines(nodes: Status['nodes'] = []): string[] {
  return nodes.map(({ address, frames, bytes }) => `  ${address}: ${frames} frames, ${formatBytes(bytes)}`);
}
