// How long it will take, about: said before it starts, and what a run is given before it has failed.
import { WRITES } from './load.js';
import type { Setting } from './point.js';

/** Of a card's bits, those that are a TCP connection's bytes. */
const TCP_SHARE = 0.95;
/** What is left of the mix. */
const MIX = { lz4: 0.31, none: 0.6 } as const;
const START_S = 4;
/** Filling the memory of guests, and reading it again to verify it. */
const GIB_S = 4;
/** A pre-copy that does not converge ends by its rounds. */
const MOST_ROUNDS = 4;
const PAGE_BYTES = 4096;

export function estimateS(setting: Setting): number {
  const { source, destination, vms, vmBytes, common, content, compress, mode, load } = setting;
  const distinct = vms * (1 - common) + common;
  const bytes = vmBytes * distinct * (content === 'mix' ? MIX[compress] : 1);
  const bytesPerS = (Math.min(source, destination) / 8) * TCP_SHARE;
  const dirtyShare = (load.operationsPerS * WRITES * PAGE_BYTES) / bytesPerS;
  const again = mode === 'pre-copy' ? Math.min(MOST_ROUNDS, 1 / Math.max(0.01, 1 - dirtyShare)) : 1;
  return START_S + (vms * vmBytes * GIB_S) / 2 ** 30 + (bytes / bytesPerS) * again;
}

const MARGIN = 10;
const LEAST_DEADLINE_S = 60;

export function deadlineMs(setting: Setting): number {
  return (LEAST_DEADLINE_S + MARGIN * estimateS(setting)) * 1000;
}
