// What becomes of each VM when its migration ends here, and of its image. Who has it decides:
//
//   the source has it                        aborted: what is there of it goes
//   its guest has run here                   it stays where it is. Gone, or pages of it are lost: aborted, and its data with it; else paused, to be gone on
//                                            with, unless all of it is there
//   it is ours, and has not run              paused where nodes keep it; where nobody does, aborted, and what is missing is lost
//   nobody can say who has it                paused where nodes keep it

import type { AbdmError } from '../../bindings/errors.js';
import type { Summary } from '../summary.js';
import type { Ending } from './ending.js';
import type { LostPages } from './lost.js';

/** A VM that ended alone, before the others did. */
export interface Failure {
  readonly error: AbdmError;
  /**
   *   image    it cannot be written, or loaded, or begun
   *   gone     its guest is gone
   *   source   the source sends no more of it, or is gone
   */
  readonly what: 'image' | 'gone' | 'source';
}

/** What is known of a VM when it ends. */
export interface VmFacts {
  readonly name: string;
  readonly pages: number;
  /** Its guest has run here. */
  readonly hasRun: boolean;
  /** The source has left it to us. */
  readonly isOurs: boolean;
  /** Nobody knows whether the source has, or will: it is away. */
  readonly isInDoubt: boolean;
  /** Nodes keep what is needed to begin it anew. */
  readonly isKept: boolean;
  /** Nothing of it has come. */
  readonly isEmpty: boolean;
  /** Pages that are not in place; null: all are. */
  readonly missing: LostPages | null;
  readonly failure: Failure | null;
}

export interface Verdict {
  readonly outcome: Summary['outcome'];
  readonly error: AbdmError | null;
  /** Nobody has these pages any more. */
  readonly lost: LostPages | null;
  /** What is done with the image. */
  readonly image: 'commit' | 'leave' | 'discard';
  /** It is here or nowhere. */
  readonly isOurs: boolean;
}

const COMPLETED: Verdict = { outcome: 'completed', error: null, lost: null, image: 'commit', isOurs: true };

export function verdictOf(vm: VmFacts, ending: Ending): Verdict {
  const { name, pages, hasRun, isKept, missing, failure } = vm;
  if (!failure && ending.how === 'whole') return COMPLETED;
  const error = failure?.error ?? (ending as { error: AbdmError }).error;
  const paused: Verdict = { outcome: 'paused-recoverable', error, lost: null, image: 'leave', isOurs: true };
  const lose = (lost: LostPages | null, image: Verdict['image']): Verdict => {
    return { outcome: 'aborted', error, lost, image, isOurs: true };
  };

  if (failure?.what === 'gone' && hasRun) return lose({ vm: name, ranges: [[0, pages - 1]] }, 'leave');
  if (failure?.what === 'source' && hasRun && missing) return lose(missing, 'leave');
  if (!failure && ending.how === 'lost') {
    const lost = ending.lost.find((one) => one.vm === name);
    return lost ? lose(lost, vm.isEmpty && !hasRun ? 'discard' : 'leave') : COMPLETED;
  }
  // What runs, and is whole, needs nobody any more.
  if (hasRun) return missing || failure?.what === 'image' ? paused : COMPLETED;
  const isOurs = vm.isOurs && error.code !== 'CLAIMED';
  if (!failure && ending.how === 'stuck') return paused;
  // Its source, or the nodes, have said that they have done with it.
  const isSaid = ['CLAIMED', 'PEER_ABORTED', 'PEER_GONE'].includes(error.code);
  if (isKept && error.code !== 'CLAIMED' && (isOurs || (vm.isInDoubt && !isSaid))) return paused;
  if (!isOurs) return { outcome: 'aborted', error, lost: null, image: 'discard', isOurs: false };
  return lose(null, vm.isEmpty ? 'discard' : 'leave');
}

/** How the migration ended, for what became of its VMs: the worst of them counts. */
export function worstOf(verdicts: readonly Verdict[]): Verdict {
  const rank = ({ outcome, isOurs }: Verdict) => {
    if (outcome === 'aborted') return isOurs ? 3 : 1;
    return outcome === 'paused-recoverable' ? 2 : 0;
  };
  return verdicts.reduce((worst, one) => (rank(one) > rank(worst) ? one : worst));
}
