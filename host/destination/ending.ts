// How a migration ended at its destination, and what is said of it.

import type { AbdmError } from '../../bindings/errors.js';
import { type Mode, reasonOf, type Summary, usage, type VmSummary } from '../summary.js';
import type { LostPages } from './lost.js';
import type { Session } from './session.js';
import { type Verdict, worstOf } from './verdict.js';

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
  vms: readonly { name: string; bytes: number; pages: number; guest?: true }[];
  /** By VM. */
  verdicts: readonly Verdict[];
  /** By VM: from the beginning until the last page was in place. */
  totalMs: readonly (number | null)[];
  /** As it was announced; null if nobody said. */
  mode: Mode | null;
  direct: boolean;
  parked: boolean;
  replicas: number | null;
  /** Bytes received on control channels. */
  controlBytes: number;
}

const NO_PAGES = { zeroPages: 0, duplicatePages: 0, compressedPages: 0, normalPages: 0 };

export function summaryOf(ending: Ending, ended: EndedMigration): Summary {
  const { session, vms, verdicts, totalMs, mode, direct, parked, replicas, controlBytes } = ended;
  const { outcome, error } = verdicts.length > 0 ? worstOf(verdicts) : unbegun(ending);
  const lost = verdicts.flatMap((verdict) => verdict.lost ?? []);
  return {
    type: 'summary',
    role: 'destination',
    outcome,
    reason: reasonOf(error),
    mode: mode ?? 'stop',
    direct,
    vms: vms.map((shape, vm) => vmSummaryOf(shape, vm, verdicts[vm]!, ended)),
    exitTimeMs: null,
    totalMigrationTimeMs: outcome === 'completed' ? Math.max(0, ...totalMs.map((ms) => ms ?? 0)) : null,
    wireBytes: { source: null, destination: (session?.frameBytes ?? 0) + controlBytes },
    nodes: session?.shares ?? [],
    ...usage(),
    ...(replicas !== null && { replicas }),
    parked,
    ...(lost.length > 0 && { lost }),
  };
}

function vmSummaryOf(
  { name, bytes, pages, guest }: EndedMigration['vms'][number],
  vm: number,
  { outcome, error }: Verdict,
  { session, totalMs, mode }: EndedMigration,
): VmSummary {
  const total = outcome === 'completed' ? (totalMs[vm] ?? null) : null;
  return {
    name,
    imageBytes: bytes,
    pages,
    ...(session?.merger.counts[vm] ?? NO_PAGES),
    exitTimeMs: null,
    totalMigrationTimeMs: total,
    // What is no guest stands still from beginning to end. When a guest was stopped, its source knows.
    downtimeMs: guest ? null : total,
    verified: outcome === 'completed',
    // What `auto` came to is the source's to say.
    mode: guest ? (mode === 'auto' ? null : mode) : 'stop',
    dirtySyncCount: 0,
    postcopyRequests: session?.postcopyRequests(vm) ?? 0,
    faults: session?.faults(vm) ?? null,
    outcome,
    reason: reasonOf(error),
  };
}

/** It ended before anybody said what comes. */
function unbegun(ending: Ending): Pick<Verdict, 'outcome' | 'error'> {
  return { outcome: 'aborted', error: ending.how === 'whole' ? null : ending.error };
}
