// One run: everybody is started, the VMs move, something happens to it, what can be put right is put right, and all that guests and roles saw is judged.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Role } from '../faults/role.js';
import { Verdict } from '../faults/verdict.js';
import { type Struck, strike } from './blows.js';
import { historyOf } from './history.js';
import { type Ending, type GuestEnd, judge, type PageRange, type RoleEnd, type Verified, type VmEnd } from './judge.js';
import { type Plan, planOf } from './plan.js';
import { isImages, LiveScene, type Vm } from './scene.js';

export interface Outcome {
  readonly plan: Plan;
  readonly note: string;
  readonly broken: readonly string[];
  readonly scene: LiveScene;
  /** From its first process to its last. */
  readonly tookMs: number;
}

/** Whatever happens, a run is over by then: every migration ends by a deadline. */
const RUN_MS = 150_000;
/** Frames are given back within this; those of a source that was killed when it has been missing for ten seconds. */
const EMPTY_MS = 2_000;
const ORPHANED_MS = 30_000;
/** A guest that goes on says so four times a second. */
const GOES_ON_MS = 3_000;
/** A node that was killed so long before the exit is found out before it. */
const NOTICED_MS = 2_500;

const open = new Set<LiveScene>();

/** Ends everything at once. */
export function endAll(): void {
  for (const scene of open) scene.kill();
}

/** The run of a seed. The directory of its scene stays. */
export async function run(seed: number): Promise<Outcome> {
  const plan = planOf(seed);
  const scene = new LiveScene(plan);
  writeFileSync(join(scene.dir, 'plan.json'), `${JSON.stringify(plan, null, 2)}\n`);
  open.add(scene);
  const began = performance.now();
  const verdict = new Verdict();
  const notes: string[] = [];
  const deadline = new AbortController();
  try {
    await Promise.race([
      play(scene, verdict, (note) => notes.push(note)),
      sleep(RUN_MS, undefined, { signal: deadline.signal }).then(() =>
        verdict.broken.push(`not over after ${RUN_MS} ms`),
      ),
    ]);
  } catch (error) {
    verdict.broken.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  deadline.abort();
  // What is still being judged after the deadline does not count any more.
  const broken = [...verdict.broken];
  broken.push(...(await scene.close()), ...leftBehind(scene));
  open.delete(scene);
  return { plan, note: notes.join(', '), broken, scene, tookMs: performance.now() - began };
}

async function play(scene: LiveScene, verdict: Verdict, note: (text: string) => void): Promise<void> {
  const { plan } = scene;
  await scene.open();
  if (plan.blow.kill === 'node-full') await scene.addNode(`${1 + Math.floor(plan.blow.how * 3)}M`);
  await sleep(plan.warmUpMs);
  const struck = await migrate(scene);
  note(struck.note);
  if (await recover(scene)) note('taken up again');
  const resumed = await resume(scene);
  if (resumed.size > 0) note('resumed by hand');
  note(said(scene));
  const ending = await collect(scene, struck, resumed);
  for (const broken of judge(ending)) verdict.broken.push(broken);
  // What waits to be taken up again stays where it is.
  if (ending.destination?.code === 3) return;
  const stopped = plan.blow.kill === 'node-stopped' ? scene.nodes[plan.blow.node] : null;
  const nodes = scene.living.filter((node) => node !== stopped);
  await verdict.empty(nodes, scene.killed(scene.source) ? ORPHANED_MS : EMPTY_MS);
}

/** How both ends ended, for people. */
function said({ source, destination }: LiveScene): string {
  const one = ({ name, code, summary }: Role) =>
    `${name} ${code ?? 'killed'}${summary?.reason ? ` ${summary.reason.code}` : ''}`;
  return [source, ...(destination ? [destination] : [])].map(one).join(', ');
}

/** From the source's start until both ends have ended, and whatever happens meanwhile has happened. */
async function migrate(scene: LiveScene): Promise<Struck> {
  const source = scene.startSource();
  let end!: () => void;
  const struck = strike(scene, new Promise((resolve) => (end = resolve)));
  const first = scene.destination;
  await Promise.race([source.ended, first?.ended]);
  // Told to end, it has paused, and the source waits for it.
  if (first?.code === 3 && !source.over) await scene.startDestination();
  await source.ended;
  if (scene.isParked) await scene.startDestination();
  for (;;) {
    const { destination } = scene;
    await scene.destinationEnded();
    if (!destination || !scene.killed(destination)) break;
    await struck;
    if (destination === scene.destination) break;
  }
  end();
  return struck;
}

/** What paused is gone on with as docs/operations.md says: nodes come back, and merge is started again with the same command. */
async function recover(scene: LiveScene): Promise<boolean> {
  const { source, destination, plan } = scene;
  const paused = destination?.code === 3 || (source.code === 3 && destination !== null && destination.code !== 0);
  if (!paused) return false;
  for (const { role } of scene.living) role.signal('SIGCONT');
  for (const vm of scene.vms) {
    const last = vm.there.at(-1)!;
    if (scene.killed(last) && hasNotRun(last)) vm.there.push(await scene.startIncoming(vm.thereSocket));
  }
  if (plan.way !== 'parked' || scene.isParked) await scene.startDestination();
  await scene.destinationEnded();
  return true;
}

/** A guest that stands still at the source, and that no destination will ever run: its operator lets it go on. */
async function resume(scene: LiveScene): Promise<Set<Vm>> {
  const resumed = new Set<Vm>();
  const { source, destination } = scene;
  if (!scene.killed(source) && source.code !== 3) return resumed;
  for (const vm of scene.vms) {
    if (vm.here.over || stateOf(vm.here) !== 'stopped' || !vm.there.every(hasNotRun)) continue;
    if (destination !== null && !isGivenUp(destination, vm.plan.name)) continue;
    if (await scene.ask(vm.hereSocket, 'resume')) resumed.add(vm);
  }
  return resumed;
}

/** The destination has said that it will never run this VM, whatever has become of others. */
function isGivenUp({ code, summary }: Role, name: string): boolean {
  if (!summary?.vms.length) return code === 2;
  const isLost = summary.lost?.some(({ vm }) => vm === name) ?? false;
  return !isLost && summary.vms.some((vm) => vm.name === name && vm.outcome === 'aborted');
}

async function collect(scene: LiveScene, struck: Struck, resumed: ReadonlySet<Vm>): Promise<Ending> {
  const { plan, source, destination } = scene;
  const seen = await Promise.all(
    scene.vms.map(async (vm) => ({
      vm,
      here: await look(scene, vm, vm.here, vm.hereSocket),
      there: await Promise.all(vm.there.map((role) => look(scene, vm, role, vm.thereSocket))),
    })),
  );
  const guests = scene.vms.flatMap(({ here, there }) => [here, ...there]);
  for (const role of guests) role.signal('SIGTERM');
  await Promise.all(guests.map(({ ended }) => ended));
  const end = (vm: Vm, which: string, role: Role, { state, ...rest }: Seen): GuestEnd => {
    const history = historyOf(`${vm.plan.name} ${which}`, role.events, scene.killedAtMs.get(role) ?? null);
    return { ...rest, history: { ...history, state } };
  };
  const vms = seen.map(
    ({ vm, here, there }): VmEnd => ({
      name: vm.plan.name,
      here: end(vm, 'here', vm.here, here),
      there: vm.there.map((role, i) => end(vm, 'there', role, there[i]!)),
      resumed: resumed.has(vm),
    }),
  );
  const { mode, way, replicas, blow } = plan;
  return {
    mode,
    way,
    replicas,
    kill: blow.kill,
    phase: blow.phase,
    came: struck.came,
    early: struck.came && (isEarly(scene) || ['setup', 'moving'].includes(blow.phase)),
    victim: blow.victim,
    vms,
    source: roleEnd(scene, source),
    // One that was started again and found nothing to do knows nothing of this.
    destination: destination?.events.some(isImages) ? roleEnd(scene, destination) : null,
  };
}

interface Seen extends Omit<GuestEnd, 'history'> {
  readonly state: GuestEnd['history']['state'];
}

/** What can be seen of a guest before it is ended too. */
async function look(scene: LiveScene, { plan }: Vm, role: Role, socket: string): Promise<Seen> {
  const state = stateOf(role);
  if (role.over || state === 'waiting' || state === 'left')
    return { state, alive: !role.over, goesOn: null, verified: null };
  const heard = role.events.length;
  const goesOn =
    plan.opsPerS > 0 && state === 'running'
      ? Promise.race([
          role
            .event(
              (event) =>
                event.type === 'operations' && Number(event.operations) > 0 && role.events.indexOf(event) >= heard,
            )
            .then((event) => event !== null),
          sleep(GOES_ON_MS, false),
        ])
      : null;
  const found = state === 'loaded' ? null : await scene.ask(socket, 'verify');
  return { state, alive: !role.over, goesOn: await goesOn, verified: found && verifiedOf(found) };
}

function verifiedOf(event: Readonly<Record<string, unknown>>): Verified {
  return { wrong: event.wrong as number, absent: event.absentRanges as readonly PageRange[] };
}

function stateOf(role: Role): Seen['state'] {
  return historyOf('', role.events, null).state;
}

function hasNotRun(role: Role): boolean {
  return historyOf('', role.events, null).ran.length === 0;
}

/** Whether the source stayed long enough to find out what had happened. */
function isEarly({ source, nodes, plan, killedAtMs }: LiveScene): boolean {
  const at = nodes[plan.blow.node] && killedAtMs.get(nodes[plan.blow.node]!.role);
  const exitMs = source.events.findLast(({ type }) => type === 'summary')?.heardMs;
  if (at === undefined || exitMs === undefined) return false;
  return performance.timeOrigin + source.startedAt + exitMs - at >= NOTICED_MS;
}

function roleEnd({ killedAtMs }: LiveScene, role: Role): RoleEnd {
  const { name, code, summary } = role;
  return {
    name,
    // A signal ends a process that has not got as far as handling it.
    killed: killedAtMs.has(role) || code === null,
    code,
    // What could not even begin has no summary.
    outcome: summary?.outcome ?? (code === 1 || code === 2 ? 'aborted' : null),
    vms: summary?.vms ?? [],
    lost: summary?.lost ?? [],
  };
}

/** Files that are there although everybody has ended; who was killed could not remove his. */
function leftBehind(scene: LiveScene): string[] {
  const killed = scene.vms.flatMap(({ plan, here, there }) => [
    ...(scene.killed(here) ? [`guests/${plan.name}-here`] : []),
    ...(there.some((role) => scene.killed(role)) ? [`guests/${plan.name}-there`] : []),
  ]);
  // What the same command goes on with: after it was killed, or paused, or had to name pages as lost that may come back with their nodes; or nobody came.
  const last = scene.destination;
  const goesOn =
    last !== null && (scene.killed(last) || last.code === 3 || last.code === 4 || !last.events.some(isImages));
  const isKept = (name: string) => goesOn && name.endsWith('.abdm');
  const left = scene.leftBehind().filter((name) => !killed.includes(name) && !isKept(name));
  return left.length === 0 ? [] : [`left behind: ${left.join(', ')}`];
}
