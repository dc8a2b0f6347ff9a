// Who may merge a parked migration: whoever more than half of its voters have granted it. Each voter grants it once (until the claimant has been away
// for long), so no two claimants can both have more than half.
//
//   a voter that is surely dead      does not count: nobody will ever have its vote
//   a voter that does not answer     counts: somebody else may have its vote

import { AbdmError } from '../../bindings/errors.js';
import type { Claimed } from './bodies.js';

/** A voter as its client sees it. */
export interface Voter {
  readonly address: string;
  /** It was refused there, or another node is there: it is surely dead. */
  readonly dead: boolean;
  /** Rejects if it does not answer. `forGood`: granted, it is never given to anybody else. */
  claim(token: string, by: string, forGood?: boolean): Promise<Claimed>;
}

/** What became of a claim. */
export interface Verdict {
  granted: boolean;
  /** Voters that are not surely dead. */
  voters: number;
  votes: number;
  /** Voters that did not answer. */
  silent: string[];
  /** Who has it, of those that denied it. */
  other: { by: string; sinceMs: number } | null;
}

/**
 * Asks every voter for its vote; may be repeated with the same token, which renews the claim. `by` says who claims, to people. `forGood`: because the VM runs
 * there, so that no absence makes the claim stale.
 */
export async function claim(voters: readonly Voter[], token: string, by: string, forGood = false): Promise<Verdict> {
  const verdict: Verdict = { granted: false, voters: 0, votes: 0, silent: [], other: null };
  const answers = await Promise.allSettled(voters.map((voter) => voter.claim(token, by, forGood)));
  for (const [i, answer] of answers.entries()) {
    const { address, dead } = voters[i]!;
    if (answer.status === 'rejected' && dead) continue;
    verdict.voters++;
    if (answer.status === 'rejected') verdict.silent.push(address);
    else if (answer.value.granted) verdict.votes++;
    else if (answer.value.by !== null) verdict.other ??= { by: answer.value.by, sinceMs: answer.value.sinceMs };
  }
  verdict.granted = 2 * verdict.votes > verdict.voters;
  return verdict;
}

/** Why a claim was not granted, in words that say what to do. */
export function claimError(what: string, { voters, votes, silent, other }: Verdict): AbdmError {
  if (other) {
    const since = Math.round(other.sinceMs / 1000);
    const hint = 'wait until it is done, or for 30 s after it was ended';
    return new AbdmError('CLAIMED', `${what} is being merged by ${other.by} for ${since} s; ${hint}`);
  }
  const who = silent.length > 0 ? `; no answer from ${silent.join(', ')}` : '';
  const text = `${what} could not be claimed: ${votes} of ${voters} nodes that decide who gets it have granted it${who}`;
  return new AbdmError('PEER_UNREACHABLE', `${text}; start them again or restore the network, and try again`);
}
