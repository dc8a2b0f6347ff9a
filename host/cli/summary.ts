// A summary, as people read it.

import type { Summary, VmSummary } from '../summary.js';
import { nodeLines } from './progress.js';
import { formatBytes, formatMs } from './sizes.js';

/** Ranges of lost pages that are shown; all of them are in the summary of --json. */
const SHOWN_RANGES = 8;

export function summaryLines(summary: Summary): string[] {
  const { role, outcome, reason, vms, exitTimeMs, totalMigrationTimeMs, wireBytes, nodes, lost = [] } = summary;
  const wire = formatBytes((role === 'source' ? wireBytes.source : wireBytes.destination) ?? 0);
  const head = [`${role}: ${outcome}`];
  if (summary.parked && role === 'source' && outcome === 'completed') head.push('parked');
  if (exitTimeMs !== null) head.push(`exit after ${formatMs(exitTimeMs)}`);
  if (totalMigrationTimeMs !== null) head.push(`merged and verified after ${formatMs(totalMigrationTimeMs)}`);
  if ((summary.replicas ?? 1) > 1) head.push(`${summary.replicas} copies of each frame`);
  head.push(`${wire} on the wire`, `${summary.cpuSeconds.toFixed(2)} CPU s`);

  const lines = [head.join(', ')];
  for (const vm of vms) {
    const kinds = [
      `${vm.zeroPages} zero`,
      `${vm.duplicatePages} duplicate`,
      `${vm.compressedPages} compressed`,
      `${vm.normalPages} normal`,
    ];
    lines.push(`  ${vm.name}: ${formatBytes(vm.imageBytes)} in ${vm.pages} pages: ${kinds.join(', ')}${guestText(vm)}`);
    // Where all is over for one reason, it is said once.
    if (vm.reason && vms.length > 1) lines.push(`    ${vm.outcome}: ${vm.reason.message} (${vm.reason.code})`);
  }
  lines.push(...nodeLines(nodes));
  for (const { vm, ranges } of lost) lines.push(`  ${vm}: lost pages ${rangeText(ranges)}`);
  if (reason) lines.push(`  ${reason.message} (${reason.code})`);
  return lines;
}

/** `; post-copy, down for 84 ms, exit after 1.20 s, 12 faults (p99 5.1 ms)`; nothing of what just stood still. */
function guestText({ mode, exitTimeMs, downtimeMs, postcopyRequests, faults }: VmSummary): string {
  const parts: string[] = [];
  if (mode !== null && mode !== 'stop') parts.push(mode);
  if (downtimeMs !== null) parts.push(`down for ${Math.round(downtimeMs)} ms`);
  if (parts.length > 0 && exitTimeMs !== null) parts.push(`exit after ${formatMs(exitTimeMs)}`);
  if (postcopyRequests > 0) {
    parts.push(`${postcopyRequests} faults${faults ? ` (p99 ${faults.p99Ms.toFixed(1)} ms)` : ''}`);
  }
  return parts.length > 0 ? `; ${parts.join(', ')}` : '';
}

/** `7, 64-127, 512-575 and 3 more ranges`. */
function rangeText(ranges: readonly (readonly [number, number])[]): string {
  const shown = ranges
    .slice(0, SHOWN_RANGES)
    .map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
  const more = ranges.length - shown.length;
  return shown.join(', ') + (more > 0 ? ` and ${more} more ranges` : '');
}
