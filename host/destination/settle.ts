// The end of a migration at its destination: what has become of each VM (verdict.ts), and everything left as it must be. The order matters:
//
//   what is whole gets its name             nobody else has it any more after that
//   the source is told                      before frames are refused it, which it would take for the reason
//   the rest is left, or removed
//   PATH.abdm stays, or goes                it stays if the same command can go on with anything
//   the nodes forget the migration          if nothing is left to be fetched from them

import type { AbdmError } from '../../bindings/errors.js';
import { asAbdmError } from '../../bindings/errors.js';
import type { Claims } from './claims.js';
import type { SourceControl } from './control.js';
import type { Custody } from './custody.js';
import type { Ending } from './ending.js';
import { leave } from './images.js';
import { lostPages } from './lost.js';
import type { Notes } from './notes.js';
import type { Session } from './session.js';
import type { State } from './state.js';
import { type Failure, type Verdict, type VmFacts, verdictOf } from './verdict.js';

export interface Settled {
  readonly notes: Notes;
  readonly session: Session | null;
  readonly claims: Claims | null;
  readonly control: SourceControl | null;
  readonly custody: Custody;
}

/** Returns what has become of each VM; none if it was never known which there are. */
export async function settle(ending: Ending, settled: Settled): Promise<Verdict[]> {
  const { notes, session, claims, control, custody } = settled;
  const { state } = notes;
  const verdicts = state ? state.vms.map((_, vm) => verdictOf(factsOf(vm, state, settled), ending)) : [];
  for (const [vm, { image }] of verdicts.entries()) {
    if (image === 'commit') verdicts[vm] = await commit(vm, state!, verdicts[vm]!, ending, settled);
  }

  const isPaused = verdicts.some(({ outcome }) => outcome === 'paused-recoverable');
  for (const [vm, { outcome, error, isOurs }] of verdicts.entries()) {
    if (outcome !== 'aborted' || isOurs || !session) continue;
    try {
      custody.giveBack(vm, error!);
    } catch {
      // What cannot be noted, on a disk that is full, is not said either: the source hears below that all is over, or is in doubt.
    }
  }
  if (isPaused) await control?.leave();
  else await control?.end(verdicts.every(({ outcome }) => outcome === 'aborted') ? errorOf(ending) : null);

  for (const [vm, { image }] of verdicts.entries()) {
    if (!session) continue;
    if (image === 'leave') await leave(session.sink(vm));
    else if (image === 'discard') await session.sink(vm).discard();
  }

  if (isPaused || verdicts.some((verdict, vm) => canGoOn(verdict, ending, custody.failures.get(vm), state!, vm))) {
    keepNotes(notes, verdicts);
  } else if (session) notes.remove();
  // What has run is never anybody else's.
  if (isPaused && state!.parked && !notes.hasRun) await claims?.release();
  await session?.close(!isPaused && errorOf(ending)?.code !== 'CLAIMED');
  return verdicts;
}

function factsOf(vm: number, state: State, { session, control, custody }: Settled): VmFacts {
  const { name, pages } = state.vms[vm]!;
  const { fate } = state.notes[vm]!;
  const missing = session
    ? lostPages(session.merger, state.vms, (one) => one === vm)[0]
    : { vm: name, ranges: [[0, pages - 1] as const] };
  return {
    name,
    pages,
    hasRun: fate === 'running',
    isOurs: custody.isOurs(vm),
    isInDoubt: !control?.connected && fate !== 'refused',
    isKept: state.nodes.length > 0,
    isEmpty: session === null || session.merger.mergedPages(vm) === 0,
    missing: missing ?? null,
    failure: custody.failures.get(vm) ?? null,
  };
}

/** It gets its name, or it is not known why not. */
async function commit(vm: number, state: State, verdict: Verdict, ending: Ending, settled: Settled): Promise<Verdict> {
  try {
    await settled.session!.sink(vm).commit();
    return verdict;
  } catch (cause) {
    settled.custody.failures.set(vm, { what: 'image', error: asAbdmError(cause) });
    return verdictOf(factsOf(vm, state, settled), ending);
  }
}

/** Whether the same command might bring it further, though it is not expected to. */
function canGoOn(
  { outcome, isOurs }: Verdict,
  ending: Ending,
  failure: Failure | undefined,
  { notes }: State,
  vm: number,
): boolean {
  if (outcome !== 'aborted' || !isOurs || failure?.what === 'gone') return false;
  return ending.how === 'failed' || notes[vm]!.fate === 'running';
}

/** What is done is not begun again with the others. */
function keepNotes(notes: Notes, verdicts: readonly Verdict[]): void {
  for (const [vm, { outcome }] of verdicts.entries()) {
    if (outcome === 'completed' && notes.state!.notes[vm]!.fate === 'open') notes.changeVm(vm, { fate: 'done' });
  }
  notes.leave();
}

function errorOf(ending: Ending): AbdmError | null {
  return ending.how === 'whole' ? null : ending.error;
}
