// abdm status: every role that runs on this host, as it describes itself.

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError } from '../../bindings/errors.js';
import { type RunningRole, runningRoles } from '../control/client.js';
import { controlDirectory } from '../control/directory.js';
import type { IntermediateStatus } from '../intermediate/intermediate.js';
import { EXIT } from './exit.js';
import type { Output } from './output.js';
import { guestText, nodeLines, type Progress, progressLine } from './progress.js';
import { formatBytes } from './sizes.js';

const WATCH_MS = 1_000;

export async function status(
  output: Output,
  name: string | undefined,
  { watch = false }: { watch?: boolean },
): Promise<number> {
  for (;;) {
    const { roles, silent } = await runningRoles();
    const wanted = roles.filter(({ names }) => name === undefined || names.includes(name));
    for (const role of wanted) output.event({ type: 'role', ...role });
    for (const pid of silent) output.event({ type: 'silent', pid } as { type: string });
    const lines = [...wanted.flatMap(roleLines), ...silent.map((pid) => `process ${pid} does not answer`)];
    if (!watch && name !== undefined && wanted.length === 0) throw nobody(name, roles);
    if (lines.length === 0) lines.push(`no role of abdm runs here (${controlDirectory()} has none)`);
    if (watch && output.isTerminal) output.liveLines(...lines);
    else for (const line of lines) output.say(line);
    if (!watch) return EXIT.completed;
    await sleep(WATCH_MS);
  }
}

/** The error for a name that nobody has. */
export function nobody(name: string, roles: readonly RunningRole[]): AbdmError {
  const known = [...new Set(roles.flatMap(({ names }) => names))];
  const others = known.length > 0 ? `there are ${known.join(', ')}` : `no role of abdm runs here`;
  return new AbdmError('USAGE', `nobody is called ${name} in ${controlDirectory()}: ${others}`);
}

function roleLines({ role, pid, names, status }: RunningRole): string[] {
  const title = `${role} ${names.join(', ')} (process ${pid})`;
  return role === 'intermediate'
    ? intermediateLines(title, status as unknown as IntermediateStatus)
    : migrationLines(title, status as unknown as Progress);
}

function migrationLines(title: string, progress: Progress): string[] {
  const { rateBytesPerS, nodes, vms = [], warnings = [], reason } = progress;
  const lines = [progressLine(title, { ...progress, vms: [] })];
  if (rateBytesPerS) lines[0] += `, at most ${formatBytes(rateBytesPerS)}/s`;
  lines.push(...vms.flatMap(guestText).map((text) => `  ${text}`));
  lines.push(...nodeLines(nodes), ...warnings.map((warning) => `  ${warning}`));
  if (reason) lines.push(`  is ending: ${reason.message} (${reason.code})`);
  return lines;
}

function intermediateLines(
  title: string,
  { freeBytes, memoryBytes, frames, migrations }: IntermediateStatus,
): string[] {
  return [
    `${title}: ${formatBytes(freeBytes)} of ${formatBytes(memoryBytes)} free, ${frames} frames`,
    ...migrations.map(({ id, frames, bytes, connections }) => {
      return `  migration ${id.slice(0, 8)}: ${frames} frames, ${formatBytes(bytes)}, ${connections} connections`;
    }),
  ];
}
