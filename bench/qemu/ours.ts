// A migration by abdm: three intermediates, merge on the destination, eject on the source. Guests leave together.
import { join } from 'node:path';
import type { Role, RoleSummary } from '../faults/role.js';
import { NODES, type Scene } from './scene.js';
import { now } from './serial.js';
import type { Times } from './stock.js';

const PORT = 7000;

export type OurMode = 'stop' | 'pre-copy' | 'post-copy' | 'hybrid';

export interface Options {
  readonly mode: OurMode;
  readonly replicas: number;
  /** What is done to the nodes meanwhile; called when the source begins. */
  disturb?(nodes: readonly Role[]): Promise<void>;
}

/** @throws {Error} if it does not complete; says why. */
export async function ours(scene: Scene, options: Options): Promise<Times> {
  const nodes = await startNodes(scene);
  const merge = startMerge(scene, ['--listen', at(scene, 'destination')]);
  const to = await merge.address();
  const eject = await startEject(scene, nodes, options, ['--to', to]);
  const [left] = await Promise.all([leave(scene, eject), began(scene).then(() => options.disturb?.(nodes))]);
  await completed(merge);
  return { ...left, endedAtMs: heardAt(merge) };
}

/** Leaves without a destination; that is started when nothing of the source is left. */
export async function parked(scene: Scene, options: Options): Promise<Times> {
  const nodes = await startNodes(scene);
  const vmKey = join(scene.directory, 'vm.key');
  const eject = await startEject(scene, nodes, options, ['--park', '--vm-key', vmKey]);
  const left = await leave(scene, eject);
  for (const vm of scene.vms) await scene.expect(vm);
  const addresses = await Promise.all(nodes.map((node) => node.address()));
  const merge = startMerge(scene, ['--parked', '--vm-key', vmKey, '--intermediates', addresses.join()]);
  await completed(merge);
  return { ...left, endedAtMs: heardAt(merge) };
}

const at = (scene: Scene, host: string) => `${scene.site.network.address(host)}:${PORT}`;

/** Until it has left: the command's word, and the end of the sources' QEMUs. */
async function leave(scene: Scene, eject: Role): Promise<Omit<Times, 'endedAtMs'>> {
  await completed(eject);
  const exits = await Promise.all(scene.vms.map(({ here }) => here.ended));
  const startedAtMs = performance.timeOrigin + eject.startedAt;
  return { startedAtMs, beganAtMs: await began(scene), exitAtMs: Math.max(...exits) };
}

/** When the first of the guests was told to migrate. */
async function began({ vms }: Scene): Promise<number> {
  return Math.min(...(await Promise.all(vms.map(({ here }) => here.happened('MIGRATION', 'setup')))));
}

async function startNodes(scene: Scene): Promise<Role[]> {
  const bytes = scene.vms.reduce((sum, { plan }) => sum + 2 * plan.bytes, 0);
  const nodes = NODES.map((name) =>
    scene.start(name, name, ['intermediate', '--listen', at(scene, name), '--memory', String(bytes)]),
  );
  for (const node of nodes) await node.address();
  return nodes;
}

function startMerge(scene: Scene, args: readonly string[]): Role {
  const images = scene.vms.map(({ name, there }) => `${name}=qemu:${there!.monitor}`);
  return scene.start('destination', 'merge', ['merge', ...images, ...args]);
}

async function startEject(
  scene: Scene,
  nodes: readonly Role[],
  { mode, replicas }: Options,
  args: readonly string[],
): Promise<Role> {
  const images = scene.vms.map(({ name, here }) => `${name}=qemu:${here.monitor}`);
  const addresses = await Promise.all(nodes.map((node) => node.address()));
  const how = ['--mode', mode, '--replicas', String(replicas), '--intermediates', addresses.join()];
  return scene.start('source', 'eject', ['eject', ...images, ...how, ...args]);
}

function heardAt({ summary, startedAt }: Role): number {
  const heardMs = (summary as unknown as { heardMs?: number } | null)?.heardMs;
  return heardMs === undefined ? now() : performance.timeOrigin + startedAt + heardMs;
}

async function completed(role: Role): Promise<RoleSummary> {
  await role.ended;
  const { summary } = role;
  if (summary?.outcome === 'completed' && role.code === 0) return summary;
  const reason = summary?.reason ?? role.events.at(-1) ?? null;
  throw new Error(`abdm ${role.name} did not complete (exit code ${role.code}): ${JSON.stringify(reason)}`);
}
