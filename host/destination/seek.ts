// What has become of a source that is not connected: it comes back; or it has left all with the nodes; or it is gone.

import { setTimeout as sleep } from 'node:timers/promises';
import type { FoundMigration } from '../mam/bodies.js';

/** How often the nodes are asked. */
const LOOK_MS = 500;

export type Whereabouts =
  /** It is back, or nobody asks any more. */
  | { how: 'back' }
  /** All of it is at the nodes, in so many frames; but of those that are over. */
  | { how: 'left'; frames: number; over: readonly string[] }
  /** It was not done, and will not be. */
  | { how: 'gone' }
  /** Nodes that might know do not answer. */
  | { how: 'unknown'; silent: readonly string[] };

export interface SeekOptions {
  /** Nothing is sought any more. */
  isOver(): boolean;
  /** Asks the nodes; null while it is not known who they are. */
  lookUp(): Promise<{ known: FoundMigration | null; silent: readonly string[] }> | null;
  /** How long it may take to come back. */
  returnMs: number;
  /** How long nodes are waited for after that. */
  answerMs: number;
}

/** Waits until it is known. @throws {AbdmError} what `lookUp` throws. */
export async function seekSource({ isOver, lookUp, returnMs, answerMs }: SeekOptions): Promise<Whereabouts> {
  const lostAt = performance.now();
  for (; ; await sleep(LOOK_MS)) {
    if (isOver()) return { how: 'back' };
    const awayMs = performance.now() - lostAt;
    const { known, silent } = (await lookUp()) ?? { known: null, silent: [] };
    if (isOver()) return { how: 'back' };
    if (known?.complete) return { how: 'left', frames: known.frames, over: known.over };
    // A source that talks to nodes is only cut off from us.
    if (awayMs < returnMs || known?.sourceConnected) continue;
    if (silent.length === 0) return { how: 'gone' };
    if (awayMs >= returnMs + answerMs) return { how: 'unknown', silent };
  }
}
