// Pages that nobody has any more, named.

import { AbdmError } from '../../bindings/errors.js';
import type { Merger } from '../../bindings/merger.js';

/** Pages of one VM: ranges of page numbers, first and last. */
export interface LostPages {
  readonly vm: string;
  readonly ranges: readonly (readonly [number, number])[];
}

/** So many ranges stand in a message; the summary has all of them. */
const RANGES_SAID = 8;

/** The pages that are not in place, of the VMs that are `wanted`. */
export function lostPages(
  merger: Merger,
  vms: readonly { name: string; pages: number }[],
  wanted: (vm: number) => boolean,
): LostPages[] {
  return vms.flatMap(({ name, pages }, vm) => {
    const ranges: [number, number][] = [];
    for (let first = wanted(vm) ? merger.nextUnmerged(vm) : -1; first >= 0; ) {
      let last = first;
      while (last + 1 < pages && !merger.isMerged(vm, last + 1)) last++;
      ranges.push([first, last]);
      first = last + 1 < pages ? merger.nextUnmerged(vm, last + 1) : -1;
    }
    return ranges.length > 0 ? [{ vm: name, ranges }] : [];
  });
}

/** FRAME_LOST that names them; `why` is what happened to the first of them. */
export function lostError(lost: readonly LostPages[], why: string): AbdmError {
  const all = lost.flatMap(({ vm, ranges }) => ranges.map(([first, last]) => ({ vm, first, last })));
  const pages = all.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  const said = all.slice(0, RANGES_SAID).map(({ vm, first, last }) => `${vm} ${first}-${last}`);
  if (all.length > RANGES_SAID) said.push(`and ${all.length - RANGES_SAID} ranges more`);
  return new AbdmError('FRAME_LOST', `${pages} pages are lost (${why}): ${said.join(', ')}`);
}
