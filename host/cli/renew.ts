// abdm renew: lengthens the lease of parked VMs, at every node that has something of them.

import { AbdmError } from '../../bindings/errors.js';
import type { FoundMigration } from '../mam/bodies.js';
import { dial, lookUpAt } from '../mam/dial.js';
import { HEARD_ALL_MS, NodeIndex } from '../mam/index.js';
// With it stores can be named.
import '../store/index.js';
import type { Security } from '../wire/security.js';
import { EXIT } from './exit.js';
import type { Output } from './output.js';
import { type ClusterFlags, namedKeepers, openSecurity } from './security.js';
import { formatMs } from './sizes.js';

export interface RenewFlags extends ClusterFlags {
  readonly lease: number;
}

/** A migration, and where it was found. */
interface Holder {
  readonly address: string;
  readonly migration: FoundMigration;
}

export async function renew(output: Output, name: string, flags: RenewFlags): Promise<number> {
  const security = openSecurity(output, flags);
  const addresses = namedKeepers(flags) ?? (await announced(security, flags.announcements));
  const unreached: AbdmError[] = [];
  const holders = await lookUp(addresses, name, security, unreached);
  const migration = theMigration(name, holders, unreached);

  let renewed = 0;
  let soonestMs = Number.POSITIVE_INFINITY;
  const answers = holders.map(async ({ address }) => {
    const node = await dial(address, { migration, role: 'destination', security });
    try {
      const { expiresInMs } = await node.lease(flags.lease);
      soonestMs = Math.min(soonestMs, expiresInMs);
      renewed++;
    } finally {
      node.end();
    }
  });
  for (const answer of await Promise.allSettled(answers)) {
    if (answer.status === 'rejected') unreached.push(answer.reason);
  }
  if (renewed > 0) {
    const ends = new Date(Date.now() + soonestMs).toISOString();
    const event = { type: 'renewed', name, migration, nodes: renewed, expiresInMs: soonestMs, ends };
    output.event(
      event,
      `${name} stays at ${renewed} node${renewed === 1 ? '' : 's'} until ${ends}, ${formatMs(soonestMs)} from now`,
    );
  }
  if (unreached.length === 0) return EXIT.completed;
  const text = unreached.map(({ message }) => message).join('; ');
  throw new AbdmError('PEER_UNREACHABLE', `some nodes were not asked, and may let go of ${name} earlier: ${text}`);
}

/** Who announces itself, and is not suspect. @throws {AbdmError} PEER_UNREACHABLE if nobody does. */
async function announced(security: Security, announcements: readonly string[] | undefined): Promise<string[]> {
  const index = await NodeIndex.open({ security, ...(announcements && { announcements }) });
  await new Promise((resolve) => setTimeout(resolve, HEARD_ALL_MS));
  const nodes = index.nodes().filter(({ suspect }) => !suspect);
  index.close();
  if (nodes.length > 0) return nodes.map(({ address }) => address);
  throw new AbdmError(
    'PEER_UNREACHABLE',
    'no intermediate announces itself: name them with --intermediates HOST:PORT,...',
  );
}

async function lookUp(
  addresses: readonly string[],
  name: string,
  security: Security,
  unreached: AbdmError[],
): Promise<Holder[]> {
  const answers = await Promise.allSettled(
    addresses.map(async (address) => {
      const found = await lookUpAt(address, name, security);
      return found.map((migration) => ({ address, migration }));
    }),
  );
  return answers.flatMap((answer) => {
    if (answer.status === 'fulfilled') return answer.value;
    unreached.push(answer.reason);
    return [];
  });
}

/** Its id. @throws {AbdmError} USAGE unless there is exactly one with this name; PEER_UNREACHABLE if one may be where nobody answered. */
function theMigration(name: string, holders: readonly Holder[], unreached: readonly AbdmError[]): string {
  const ids = [...new Set(holders.map(({ migration }) => migration.migration))];
  if (ids.length === 1) return ids[0]!;
  if (ids.length > 1) throw new AbdmError('USAGE', `${ids.length} migrations have a VM ${name}: ${ids.join(', ')}`);
  const why = unreached.map(({ message }) => `; ${message}`).join('');
  throw new AbdmError(why ? 'PEER_UNREACHABLE' : 'USAGE', `no node knows a VM ${name}${why}`);
}
