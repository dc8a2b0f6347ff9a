// How a migration ended at its destination, and what is said of it.

import type { AbdmError } from '../../bindings/errors.js';
import { reasonOf, type Summary, usage } from '../summary.js';
import type { LostPages } from './lost.js';
import type { Session } from './session.js';

/** How a session ended. */
export type Ending =
  /** Every page is in place. */
  | { how: 'whole' }
  /** Nobody will ever have what is missing; all else is in place. */
  | { how: 'lost'; error: AbdmError; lost: LostPages[] }
  /** What is missing may be had when nodes are back that do not answer. */
  | { how: 'stuck'; error: AbdmError }
  /** It cannot go on here. */
  | { how: 'failed'; error: AbdmError };

/** What is known of it. */
export interface EndedMigration {
  session: Session | null;
  vms: readonly { name: string; bytes: number; pages: number }[];
  direct: boolean;
  parked: boolean;
  replicas: number | null;
  /** From its beginning until the images were whole. */
  totalMs: number | null;
  /** Bytes received on control channels. */
  controlBytes: number;
}

const NO_PAGES = { zeroPages: 0, duplicatePages: 0, compressedPages: 0, normalPages: 0 };

export function summaryOf(ending: Ending, outcome: Summary['outcome'], ended: EndedMigration): Summary {
  const { session, vms, direct, parked, replicas, totalMs, controlBytes } = ended;
  return {
    type: 'summary',
    role: 'destination',
    outcome,
    reason: reasonOf(ending.how === 'whole' ? null : ending.error),
    mode: 'stop',
    direct,
    vms: vms.map(({ name, bytes, pages }, vm) => ({
      name,
      imageBytes: bytes,
      pages,
      ...(session?.merger.counts[vm] ?? NO_PAGES),
      exitTimeMs: null,
      totalMigrationTimeMs: totalMs,
      // In mode stop the VM stands still from beginning to end.
      downtimeMs: totalMs,
      verified: outcome === 'completed',
      mode: 'stop' as const,
      dirtySyncCount: 0,
      postcopyRequests: 0,
      faults: null,
      outcome,
      reason: null,
    })),
    exitTimeMs: null,
    totalMigrationTimeMs: totalMs,
    wireBytes: { source: null, destination: (session?.frameBytes ?? 0) + controlBytes },
    nodes: session?.shares ?? [],
    ...usage(),
    ...(replicas !== null && { replicas }),
    parked,
    ...(ending.how === 'lost' && { lost: ending.lost }),
  };
}
