// abdm cancel and abdm rate: what may be done to a migration from another terminal.

import { AbdmError } from '../../bindings/errors.js';
import { cancelRole, type RunningRole, runningRoles, setRate } from '../control/client.js';
import type { Ending } from '../control/messages.js';
import { EXIT } from './exit.js';
import type { Output } from './output.js';
import { formatBytes } from './sizes.js';
import { nobody } from './status.js';

/** Ends the migration of a VM, and waits until it is over: at its source if that is on this host, else at its destination. */
export async function cancel(output: Output, name: string, { reason }: { reason?: string }): Promise<number> {
  const all = await named(name);
  const sources = all.filter(({ role }) => role === 'eject');
  const { pid, role } = theOne(name, sources.length > 0 ? sources : all, 'end the right one with kill');
  const ending = await cancelRole(pid, reason ?? 'cancelled by abdm cancel');
  const outcome = outcomeOf(ending, name);
  // Of several some may have been given away before.
  const others = ending.vms.filter((vm) => vm.outcome !== outcome);
  const rest = others.map((vm) => `; ${vm.name}, which left with it, is ${vm.outcome}`).join('');
  if (outcome !== 'aborted') {
    throw new AbdmError('USAGE', `${name} is past the point where it could be cancelled: it is ${outcome}${rest}`);
  }
  const why = ending.reason?.code === 'CANCELLED' ? 'cancelled' : `over already: ${ending.reason?.message}`;
  output.event({ type: 'cancelled', name, role, pid, ...ending } as { type: string }, `${name}: ${why}${rest}`);
  return EXIT.completed;
}

/** How it ended for this VM. */
function outcomeOf({ outcome, vms }: Ending, name: string): string {
  return vms.find((vm) => vm.name === name)?.outcome ?? outcome;
}

/** Changes the rate limit of a migration that runs. `bytesPerS` null: no limit any more. */
export async function changeRate(
  output: Output,
  name: string,
  bytesPerS: number | null,
  { role }: { role?: 'eject' | 'merge' },
): Promise<number> {
  const all = (await named(name)).filter((found) => role === undefined || found.role === role);
  const { pid, role: found } = theOne(name, all, 'say which with --role eject or --role merge');
  await setRate(pid, bytesPerS);
  const text = bytesPerS === null ? 'no limit' : `at most ${formatBytes(bytesPerS)}/s`;
  output.event({ type: 'rate', name, role: found, pid, bytesPerS } as { type: string }, `${found} ${name}: ${text}`);
  return EXIT.completed;
}

async function named(name: string): Promise<RunningRole[]> {
  const { roles } = await runningRoles();
  const found = roles.filter(({ names }) => names.includes(name));
  if (found.length === 0) throw nobody(name, roles);
  return found;
}

/** @throws {AbdmError} USAGE unless there is exactly one. */
function theOne(name: string, found: readonly RunningRole[], advice: string): RunningRole {
  if (found.length === 1) return found[0]!;
  if (found.length === 0) throw new AbdmError('USAGE', `nobody of that role is called ${name}`);
  const who = found.map(({ role, pid }) => `${role} in process ${pid}`).join(', ');
  throw new AbdmError('USAGE', `${found.length} are called ${name}: ${who}; ${advice}`);
}
