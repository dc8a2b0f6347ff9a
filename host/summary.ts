// What each role says when it is done, the same for every role (docs, "The command"). A figure that the role cannot know is null.

import type { AbdmError } from '../bindings/errors.js';

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
}

/** What a role says when it is done. A figure that it cannot know is null. */
export interface Summary {
  type: 'summary';
  role: 'source' | 'destination';
  outcome: 'completed' | 'aborted' | 'paused-recoverable';
  /** Why it did not complete. */
  reason: { code: string; message: string } | null;
  mode: 'stop';
  direct: boolean;
  vms: VmSummary[];
  exitTimeMs: number | null;
  totalMigrationTimeMs: number | null;
  wireBytes: { source: number | null; destination: number | null };
  nodes: { address: string; frames: number; bytes: number }[];
  cpuSeconds: number;
  peakRssBytes: number;
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
}

export function reasonOf(error: AbdmError | null): Summary['reason'] {
  return error && { code: error.code, message: error.message };
}

/** CPU seconds and peak memory of this process. */
export function usage(): Pick<Summary, 'cpuSeconds' | 'peakRssBytes'> {
  const { user, system } = process.cpuUsage();
  return { cpuSeconds: (user + system) / 1e6, peakRssBytes: process.resourceUsage().maxRSS * 1024 };
}
