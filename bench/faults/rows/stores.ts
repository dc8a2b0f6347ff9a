// What happens to stores: a primary of a cluster of Valkey is killed, and a replica takes its place, if it has one.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Server } from '../../stores/servers.js';
import type { Fault, Run } from '../fault.js';
import { moment, type Phase } from '../moments.js';

/** What is left is removed by then. */
const EMPTY_MS = 5_000;
/** Before a cluster notices that a server is not there. */
const RESTART_MS = 1_500;
const SCENE = { imagePages: 12_288, sourceRate: '8MB', destinationRate: '3MB' };

async function killPrimary({ scene, random, note }: Run, phase: Phase): Promise<Server> {
  await moment(phase, scene, random);
  const { cluster } = scene;
  const which = random.below(cluster!.primaries.length);
  const primary = cluster!.primaries[which]!;
  note(`R=${scene.options.replicas}, ${scene.options.clusterReplicas} replicas, ${phase}: primary ${which} killed`);
  await primary.kill();
  return primary;
}

/** Nothing is left where somebody answers. */
async function empty({ scene, verdict }: Run): Promise<void> {
  const by = performance.now() + EMPTY_MS;
  for (;;) {
    const left = await scene.cluster!.left();
    if (left === 0) return;
    if (performance.now() > by) return verdict.expect(false, `${left} values are left after ${EMPTY_MS} ms`);
    await sleep(50);
  }
}

/** How many copies are confirmed, and how many replicas each primary has. */
interface Copies {
  readonly replicas: number;
  readonly clusterReplicas: number;
}

/** Seeds in turn. */
const pick = <T>(turns: readonly T[], seed: number) => turns[(seed - 1) % turns.length]!;

const SPARE: Copies = { replicas: 2, clusterReplicas: 2 };
const COPIED: Copies = { replicas: 2, clusterReplicas: 1 };
const REPLICATED: Copies = { replicas: 1, clusterReplicas: 1 };
const ALONE: Copies = { replicas: 1, clusterReplicas: 0 };

const SCATTERED = [SPARE, REPLICATED, SPARE, ALONE];

const killedMidScatter: Fault = {
  name: 'store-killed-scatter',
  promise:
    'primary of a cluster killed while the source scatters: completed where replicas can take over, else aborted',
  needs: 'valkey-server',
  scene: (_random, seed) => ({ ...SCENE, ...pick(SCATTERED, seed) }),
  async run(run) {
    const { scene, verdict, seed } = run;
    scene.startSource();
    await killPrimary(run, 'scatter');
    await scene.ended();
    if (pick(SCATTERED, seed) === ALONE) return verdict.aborted(scene);
    verdict.completed(scene);
    await empty(run);
  },
};

const GATHERED = [
  { copies: COPIED, restarts: false },
  { copies: REPLICATED, restarts: false },
  { copies: ALONE, restarts: true },
  { copies: ALONE, restarts: false },
];

const killedMidGather: Fault = {
  name: 'store-killed-gather',
  promise:
    'primary of a cluster killed after the exit: completed at R=2; else completed, or paused, or the lost pages named',
  needs: 'valkey-server',
  scene: (_random, seed) => ({ ...SCENE, ...pick(GATHERED, seed).copies }),
  async run(run) {
    const { scene, verdict, seed, random, note } = run;
    const { copies, restarts } = pick(GATHERED, seed);
    scene.startSource();
    const primary = await killPrimary(run, 'after the exit');
    if (restarts) {
      await sleep(random.next() * RESTART_MS);
      await primary.start();
      note('started again, empty');
    }
    await scene.ended();
    const { destination } = scene;
    if (copies.replicas > 1 || destination.code === 0) {
      verdict.completed(scene);
      await empty(run);
      return;
    }
    note(`exit code ${destination.code}`);
    // What has all its keys again, and never had some of them, has lost those.
    if (restarts) verdict.expect(destination.code === 4, `exit code ${destination.code}, not 4`);
    verdict.named(scene);
  },
};

export const STORE_FAULTS: readonly Fault[] = [killedMidScatter, killedMidGather];
