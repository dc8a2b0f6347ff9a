// What the nodes know of migrations: of one that this destination is at, or of VMs that were parked under a name.

import { AbdmError } from '../../bindings/errors.js';
import type { Security } from '../wire/security.js';
import type { FoundMigration } from './bodies.js';
import { lookUpAt } from './dial.js';
import { isSurelyGone } from './keeper.js';

const LOOKUP_MS = 2_000;

/** What those who were asked have said. */
export interface Answers {
  found: FoundMigration[];
  /** Nodes that did not answer and may be there. */
  silent: string[];
  /** Nodes where nobody is any more. */
  gone: string[];
}

/** Asks the nodes at these addresses for migrations of a VM with this name. */
export async function lookUp(addresses: Iterable<string>, name: string, security: Security): Promise<Answers> {
  const asked = [...new Set(addresses)];
  const all = await Promise.allSettled(asked.map((address) => lookUpAt(address, name, security, LOOKUP_MS)));
  const answers: Answers = { found: [], silent: [], gone: [] };
  for (const [i, answer] of all.entries()) {
    if (answer.status === 'fulfilled') answers.found.push(...answer.value);
    else answers[isSurelyGone(answer.reason) ? 'gone' : 'silent'].push(asked[i]!);
  }
  return answers;
}

/** What all nodes together say of one migration: null if none knows it. */
export function together(found: readonly FoundMigration[], migration: string): FoundMigration | null {
  const same = found.filter((one) => one.migration === migration);
  const [first] = same;
  if (!first) return null;
  const complete = same.find((one) => one.complete);
  return { ...(complete ?? first), sourceConnected: same.some(({ sourceConnected }) => sourceConnected) };
}

/**
 * The parked migration of exactly these VMs; null if they are still leaving their source.
 * @throws {AbdmError} USAGE if there is none, or more than one, or it is of other VMs too; PEER_UNREACHABLE if nobody answers.
 */
export function findParked(names: readonly string[], { found, silent, gone }: Answers): FoundMigration | null {
  const ids = new Set(found.map(({ migration }) => migration));
  const all = [...ids].map((id) => together(found, id)!);
  const what = `a parked VM named ${names[0]}`;
  if (all.length === 0) {
    const none = [
      ...silent.map((address) => `${address} does not answer`),
      ...gone.map((address) => `${address} is gone`),
    ];
    const text = `no node knows ${what}${none.length > 0 ? ` (${none.join(', ')})` : ''}`;
    throw new AbdmError(silent.length > 0 ? 'PEER_UNREACHABLE' : 'USAGE', `${text}: check the name, and the nodes`);
  }
  const parked = all.filter((one) => one.parked);
  if (parked.length === 0) {
    throw new AbdmError('USAGE', `${names[0]} is not parked: it is on its way to a destination that its source named`);
  }
  if (parked.length > 1) {
    const list = parked.map((one) => describe(one)).join('; ');
    throw new AbdmError('USAGE', `more than one parked VM is named ${names[0]}: ${list}; drop all but one first`);
  }
  const [one] = parked;
  const { vms, complete, sourceConnected } = one!;
  if (vms.length !== names.length || vms.some((name) => !names.includes(name))) {
    const text = `parked together are ${vms.join(', ')}, and this expects ${names.join(', ')}`;
    throw new AbdmError('USAGE', `${text}: name all of them, and no others`);
  }
  if (complete) return one!;
  if (sourceConnected) return null;
  throw new AbdmError('USAGE', `${names.join(', ')} did not leave its source whole: it is not at the nodes, but there`);
}

function describe({ migration, vms, claimed, expiresInMs }: FoundMigration): string {
  const minutes = Math.round(expiresInMs / 60_000);
  return `migration ${migration} of ${vms.join(', ')}, ${claimed ?? 'unclaimed'}, kept for ${minutes} min`;
}
