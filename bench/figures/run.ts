// One run: guests, nodes and both ends as processes on hosts of their own; what it took, and whether all that it promised is true.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Role, RoleSummary } from '../faults/role.js';
import { historyOf } from '../truth/history.js';
import { owners } from '../truth/judge.js';
import { operationsOf, ratePerS, timelineOf } from './guests.js';
import { loadArgs } from './load.js';
import type { Setting, Took } from './point.js';
import { nodeName, type Processes, type World } from './world.js';

const PORT = 7000;

export interface RunOptions {
  /** For its logs. */
  readonly name: string;
  /** Of the first guest; the others' follow. */
  readonly seed: number;
  /** How long busy guests run before they leave. */
  readonly undisturbedMs: number;
  /** After this it has failed. */
  readonly deadlineMs: number;
}

interface Vm {
  readonly name: string;
  readonly here: Role;
  readonly there: Role;
  readonly socketHere: string;
  readonly socketThere: string;
}

/** @throws {Error} if it did not complete, or if anything is wrong with the guests; says where the logs are. */
export async function run(setting: Setting, world: World, options: RunOptions): Promise<Took> {
  const content = setting.content === 'mix' ? await world.mix(setting.vmBytes) : 'random';
  const processes = world.run(options.name, world.network(setting));
  const over = new AbortController();
  const late = sleep(options.deadlineMs, undefined, { signal: over.signal }).then(() => {
    throw new Error(`not over after ${Math.round(options.deadlineMs / 1000)} s`);
  });
  try {
    const took = await Promise.race([migrate(setting, processes, content, options), late]);
    await processes.close();
    processes.removeLogs();
    return took;
  } catch (error) {
    world.keepLogs();
    throw new Error(`${options.name}: ${(error as Error).message}; logs: ${processes.logs}`, { cause: error });
  } finally {
    over.abort();
    late.catch(() => {});
    await processes.close();
  }
}

async function migrate(
  setting: Setting,
  processes: Processes,
  content: string,
  { seed, undisturbedMs }: RunOptions,
): Promise<Took> {
  const { network } = processes;
  const { nodes, mode, direct, compress, replicas, load } = setting;
  const at = (host: string) => `${network.address(host)}:${PORT}`;
  const vms = Array.from({ length: setting.vms }, (_, i) => startVm(setting, processes, content, i, seed + i));
  const memory = String(2 * setting.vms * setting.vmBytes);
  const keepers = nodes.map((_, i) => {
    const host = nodeName(i);
    return processes.start(host, host, ['intermediate', '--listen', at(host), '--memory', memory]);
  });
  const incoming = vms.map(({ name, socketThere }) => `${name}=guest:${socketThere}`);
  await Promise.all(vms.flatMap(({ here, there }) => [heard(here, 'listening'), heard(there, 'listening')]));
  const destination = processes.start('destination', 'merge', ['merge', ...incoming, '--listen', at('destination')]);
  const addresses = await Promise.all(keepers.map((keeper) => keeper.address()));
  const to = await destination.address();
  if (load.operationsPerS > 0) await sleep(undisturbedMs);

  const leaving = vms.map(({ name, socketHere }) => `${name}=guest:${socketHere}`);
  const via = direct ? ['--direct'] : ['--intermediates', addresses.join(), '--replicas', String(replicas)];
  const how = ['--to', to, '--mode', mode, '--compress', compress, ...via];
  const startedAtMs = Date.now();
  const source = processes.start('source', 'eject', ['eject', ...leaving, ...how]);
  const [left, arrived] = await Promise.all([completed(source), completed(destination)]);
  const endedAtMs = heardAt(destination);
  await Promise.all(vms.map((vm) => verify(vm, processes)));

  const wrong = left.vms.find((vm) => vm.mode !== mode);
  if (wrong) throw new Error(`${wrong.name} left by ${wrong.mode}, not ${mode}`);
  const all = vms.map(({ here, there }) => ({ here: operationsOf(here), there: operationsOf(there) }));
  const beganAtMs = heardAt(source) - left.exitTimeMs!;
  // In post-copy it is the gathering that disturbs: from when it stopped.
  const fromMs = mode === 'pre-copy' ? beganAtMs : stoppedAt(vms[0]!.here);
  const [first] = all;
  const before = ratePerS(first!.here, startedAtMs - undisturbedMs, startedAtMs);
  const meanwhile = [...first!.here, ...first!.there];
  return {
    exitTimeMs: left.exitTimeMs!,
    totalMigrationTimeMs: arrived.totalMigrationTimeMs!,
    wireBytes: left.wireBytes.source!,
    downtimeMs: Math.max(...left.vms.map(({ downtimeMs }) => downtimeMs!)),
    guestShare: before > 0 ? ratePerS(meanwhile, fromMs, endedAtMs) / before : null,
    faultMs: all.flatMap(({ there }) => there.flatMap(({ faultMs }) => faultMs)),
    timeline: timelineOf(
      meanwhile.filter(({ atMs, ms }) => atMs - ms < endedAtMs),
      beganAtMs,
    ),
  };
}

function startVm(setting: Setting, processes: Processes, content: string, index: number, seed: number): Vm {
  const name = `vm${index + 1}`;
  const { vmBytes, common, load } = setting;
  const socketHere = join(processes.memory, `${name}-here`);
  const socketThere = join(processes.memory, `${name}-there`);
  const made = ['--memory', String(vmBytes), '--seed', String(seed), '--content', content, '--common', String(common)];
  const backing = ['--backing', processes.memory];
  const here = ['--socket', socketHere, ...made, ...loadArgs(load, vmBytes), ...backing];
  const there = ['--socket', socketThere, '--incoming', ...backing];
  return {
    name,
    here: processes.guest('source', `${name}-here`, here),
    there: processes.guest('destination', `${name}-there`, there),
    socketHere,
    socketThere,
  };
}

async function heard(role: Role, type: string): Promise<void> {
  if (!(await role.event((event) => event.type === type))) throw new Error(`${role.name} ended before it was ${type}`);
}

/** When its summary was heard, in milliseconds since 1970. */
function heardAt({ startedAt, summary }: Role): number {
  return performance.timeOrigin + startedAt + (summary as unknown as { heardMs: number }).heardMs;
}

async function completed(role: Role): Promise<RoleSummary> {
  await role.ended;
  const { summary } = role;
  if (summary?.outcome === 'completed' && role.code === 0) return summary;
  const reason = summary?.reason ?? role.events.at(-1) ?? null;
  throw new Error(`${role.name} did not complete (exit code ${role.code}): ${JSON.stringify(reason)}`);
}

function stoppedAt(guest: Role): number {
  return guest.events.find(({ type, state }) => type === 'state' && state !== 'running')!.atMs as number;
}

/** Every page at the destination holds what it must, and never did both guests run. */
async function verify({ name, here, there, socketThere }: Vm, processes: Processes): Promise<void> {
  const asked = processes.guest('destination', `${name}-verify`, ['--socket', socketThere, '--ask', 'verify']);
  await asked.ended;
  const found = asked.events.find(({ type }) => type === 'verify');
  const broken = found?.wrong === 0 && found.absent === 0 ? [] : [JSON.stringify(found ?? asked.events.at(-1))];
  const histories = [];
  for (const guest of [here, there]) {
    guest.signal('SIGTERM');
    await guest.ended;
    histories.push(historyOf(guest.name, guest.events, null));
  }
  broken.push(...histories.flatMap(({ wrong }) => wrong), ...owners(histories));
  if (histories[1]!.ran.length === 0) broken.push(`${there.name} never ran`);
  if (broken.length > 0) throw new Error(`${name} is not what it must be: ${broken.join('; ')}`);
}
