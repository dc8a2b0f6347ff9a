// What each role says when it is done, the same for every role (docs, "The command"). A figure that the role cannot know is null.

import type { AbdmError } from '../bindings/errors.js';
import type { GivingState } from './ownership/giving.js';

/** How a VM leaves. `auto` is pre-copy that becomes post-copy if it does not converge; an image that nobody writes to just stops. */
export const MODES = ['auto', 'stop', 'pre-copy', 'post-copy', 'hybrid'] as const;
/** How a VM leaves: one of {@link MODES}. */
export type Mode = (typeof MODES)[number];

/** How long a guest waited for pages that it had touched: quantiles of all faults, in milliseconds. */
export interface FaultLatency {
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

/** One VM's part of a summary. */
export interface VmSummary {
  name: string;
  imageBytes: number;
  pages: number;
  zeroPages: number;
  duplicatePages: number;
  compressedPages: number;
  normalPages: number;
  exitTimeMs: number | null;
  totalMigrationTimeMs: number | null;
  downtimeMs: number | null;
  /** Every page's content id was recomputed at the destination, and held. */
  verified: boolean | null;
  /** How it left in truth: what `auto` came to. Null if it is not known. */
  mode: Exclude<Mode, 'auto'> | null;
  /** Times that the guest was asked which pages it had written to. */
  dirtySyncCount: number;
  /** Pages that the guest waited for at the destination. */
  postcopyRequests: number;
  faults: FaultLatency | null;
  outcome: 'completed' | 'aborted' | 'paused-recoverable';
  /** Why this VM did not complete. One VM of a gang may fail alone. */
  reason: { code: string; message: string } | null;
}

/** How a VM stands on its way, as its source sees it. */
export interface VmStatus {
  name: string;
  /** Null while it is not decided how it leaves. */
  mode: VmSummary['mode'];
  /** Who has it (ownership/giving.ts). */
  state: GivingState;
  /** Rounds begun, while it runs. */
  round: number;
  /** Pages that are still to be sent, as far as is known. */
  dirtyPages: number;
}

/** Something that the operator should know, and that ends nothing. */
export interface Notice {
  vm: string;
  code: 'NOT_CONVERGING' | 'SWITCHING';
  message: string;
}

/** What a role says when it is done. A figure that it cannot know is null. */
export interface Summary {
  type: 'summary';
  role: 'source' | 'destination';
  outcome: 'completed' | 'aborted' | 'paused-recoverable';
  /** Why it did not complete. */
  reason: { code: string; message: string } | null;
  /** As asked for. */
  mode: Mode;
  direct: boolean;
  vms: VmSummary[];
  exitTimeMs: number | null;
  totalMigrationTimeMs: number | null;
  wireBytes: { source: number | null; destination: number | null };
  nodes: { address: string; frames: number; bytes: number }[];
  cpuSeconds: number;
  peakRssBytes: number;
  /** Copies of each frame that were asked for. */
  replicas?: number;
  /** Times that a block was sent once more: refused, not answered in time, or with a node that is gone. */
  resent?: number;
  /** The VMs left without a destination, and wait at the nodes. */
  parked?: boolean;
  /** Pages that no node has any more, by VM: ranges of page numbers, first and last. */
  lost?: readonly { readonly vm: string; readonly ranges: readonly (readonly [number, number])[] }[];
}

/** How far a role has come, for progress. */
export interface Status {
  phase: 'waiting' | 'preparing' | 'dividing' | 'gathering' | 'committing' | 'done';
  /** Bytes of the images, before compression. */
  doneBytes: number;
  totalBytes: number;
  /** Page data sent or received so far. */
  wireBytes: number;
  /** What the destination last said it had merged, as the source knows it. */
  mergedBytes: number | null;
  /** The limit on page data; null: none. */
  rateBytesPerS?: number | null;
  /** What each node has taken or given so far. */
  nodes?: readonly { readonly address: string; readonly frames: number; readonly bytes: number }[];
  /** How each VM stands. */
  vms?: readonly VmStatus[];
  /** At a destination: of its guests how many run, how many pages they have waited for, and how long lately, at most, for 99 of a hundred. */
  guests?: { running: number; postcopyRequests: number; latelyP99Ms: number | null };
  /** What is wrong and does not end it, for people: nodes that cannot be reached, say. */
  warnings?: readonly string[];
  /** Why it is being ended, while it is. */
  reason?: Summary['reason'];
}

export function reasonOf(error: AbdmError | null): Summary['reason'] {
  return error && { code: error.code, message: error.message };
}

/** CPU seconds and peak memory of this process. */
export function usage(): Pick<Summary, 'cpuSeconds' | 'peakRssBytes'> {
  const { user, system } = process.cpuUsage();
  return { cpuSeconds: (user + system) / 1e6, peakRssBytes: process.resourceUsage().maxRSS * 1024 };
}
