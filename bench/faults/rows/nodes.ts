// What happens to nodes: killed, stopped, cut off, slow, full, boasting.
import { type Fault, type Run, undisturbed } from '../fault.js';
import { BEFORE, moment, PHASES, type Phase } from '../moments.js';
import type { Scene } from '../scene.js';
import type { Node } from '../stage.js';

/** Frames are given back within this when all is over. */
const EMPTY_MS = 2_000;

async function kill({ scene, random, note }: Run, phase: Phase, node: Node): Promise<void> {
  await moment(phase, scene, random);
  note(`${phase}: ${node.role.name} killed`);
  node.role.signal('SIGKILL');
  await node.role.ended;
}

function living(scene: Scene): Node[] {
  return scene.nodes.filter(({ role }) => !role.over);
}

const killedWithReplica: Fault = {
  name: 'node-killed-r2',
  promise: 'one intermediate killed, R=2, any phase: completed and bit-exact, total at most 1.25 times undisturbed',
  scene: () => ({ nodes: 4, replicas: 2 }),
  limit: { figure: 'totalMs', ratio: 1.25, undisturbed },
  async run(run) {
    const { scene, verdict, seed, random } = run;
    scene.startSource();
    await kill(run, PHASES[seed % PHASES.length]!, random.pick(scene.nodes));
    await scene.ended();
    verdict.completed(scene);
    await verdict.empty(living(scene), EMPTY_MS);
  },
};

const killedBefore: Fault = {
  name: 'node-killed-r1-before',
  promise: 'one killed, R=1, before the exit: completed, sent again from the source',
  scene: () => ({ nodes: 3, replicas: 1 }),
  async run(run) {
    const { scene, verdict, seed, random } = run;
    scene.startSource();
    await kill(run, BEFORE[seed % BEFORE.length]!, random.pick(scene.nodes));
    await scene.ended();
    verdict.completed(scene);
    await verdict.empty(living(scene), EMPTY_MS);
  },
};

const killedAfter: Fault = {
  name: 'node-killed-r1-after',
  promise:
    'one killed, R=1, after the exit: never a wrong byte; paused-recoverable, or exit code 4 and the lost pages named',
  scene: () => ({ nodes: 3, replicas: 1 }),
  async run(run) {
    const { scene, verdict, random } = run;
    scene.startSource();
    await kill(run, 'after the exit', random.pick(scene.nodes));
    await scene.ended();
    await completedOrNamed(run);
    if (scene.destination.code !== 3) await verdict.empty(living(scene), EMPTY_MS);
  },
};

const twoKilled: Fault = {
  name: 'two-killed-r2',
  promise: 'two killed at R=2: completed, or paused-recoverable or lost and named; never silent',
  scene: () => ({ nodes: 4, replicas: 2 }),
  async run(run) {
    const { scene, verdict, random } = run;
    scene.startSource();
    const [first, second] = random.some(scene.nodes, 2) as [Node, Node];
    // In the order of the phases: a later moment is not waited for in vain.
    const [early, late] = [random.below(PHASES.length), random.below(PHASES.length)].sort((a, b) => a - b);
    await kill(run, PHASES[early!]!, first);
    await kill(run, PHASES[late!]!, second);
    await scene.ended();
    await completedOrNamed(run);
    if (scene.destination.code !== 3) await verdict.empty(living(scene), EMPTY_MS);
  },
};

async function completedOrNamed({ scene, verdict, note }: Run): Promise<void> {
  const { destination } = scene;
  note(destination.summary?.outcome === 'completed' ? 'completed' : `exit code ${destination.code}`);
  if (destination.code === 0) verdict.completed(scene);
  else verdict.named(scene);
}

const SILENCED = ['stopped', 'deaf', 'mute'] as const;

const stopped: Fault = {
  name: 'node-stopped',
  promise: 'one stopped (SIGSTOP) or cut off in one direction, R=2: rerouted within 5 s, completed',
  scene: () => ({ nodes: 4, replicas: 2, proxied: true }),
  async run(run) {
    const { scene, verdict, seed, random, note } = run;
    scene.startSource();
    const node = random.pick(scene.nodes);
    const how = SILENCED[seed % SILENCED.length]!;
    const phase = PHASES[Math.floor(seed / SILENCED.length) % PHASES.length]!;
    await moment(phase, scene, random);
    note(`${phase}: ${node.role.name} ${how}`);
    if (how === 'stopped') node.role.signal('SIGSTOP');
    else await node.proxy!.set({ deaf: how === 'deaf' ? 'up' : 'down' });
    await scene.ended();
    verdict.completed(scene);
    verdict.noStall(scene, 5_000);
    await verdict.empty(
      scene.nodes.filter((other) => other !== node),
      EMPTY_MS,
    );
  },
};

/** A frame takes the slow one a tenth of a second, the whole exit some thirty times that. */
const NODE_BYTES_PER_S = 20e6;

const slow: Fault = {
  name: 'node-slow',
  promise: 'one 10 times slower than the others: exit at most 1.15 times that of a run without it',
  scene: () => ({ nodes: 3, proxied: true, imagePages: 32_768, sourceRate: '20MB', destinationRate: '15MB' }),
  limit: {
    figure: 'exitMs',
    ratio: 1.15,
    async undisturbed(run) {
      for (const { proxy } of run.scene.nodes) await proxy!.set({ bytesPerS: NODE_BYTES_PER_S });
      await undisturbed(run);
    },
  },
  async run({ scene, verdict, note }) {
    for (const { proxy } of scene.nodes) await proxy!.set({ bytesPerS: NODE_BYTES_PER_S });
    const { role } = await scene.addNode('64M', { bytesPerS: NODE_BYTES_PER_S / 10 });
    note(`${role.name} is slow`);
    scene.startSource();
    await scene.ended();
    verdict.completed(scene);
    await verdict.empty(scene.nodes, EMPTY_MS);
  },
};

const full: Fault = {
  name: 'node-full',
  promise: 'one full, or announcing memory it has not: rerouted, completed',
  scene: (_random, seed) => ({ nodes: 3, replicas: 1 + (seed % 2), memory: '64M', proxied: true }),
  async run({ scene, verdict, seed, random, note }) {
    const boasting = Math.floor(seed / 2) % 2 === 1;
    const memory = `${1 + random.below(3)}M`;
    const { role, address } = await scene.addNode(memory, boasting ? { freeBytes: 2 ** 36 } : {});
    note(`${role.name} has ${memory}${boasting ? ' and says 64 GiB' : ''}, R=${scene.options.replicas}`);
    scene.startSource();
    await scene.ended();
    verdict.completed(scene);
    const kept = scene.source.summary?.nodes.find((node) => node.address === address)?.bytes ?? 0;
    verdict.expect(kept < 2 ** 22, `${role.name} is said to keep ${kept} bytes`);
    await verdict.empty(scene.nodes, EMPTY_MS);
  },
};

export const NODE_FAULTS: readonly Fault[] = [
  killedWithReplica,
  killedBefore,
  killedAfter,
  twoKilled,
  stopped,
  slow,
  full,
];
