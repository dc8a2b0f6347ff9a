// What happens to bytes: a node that answers with others than it was given, and connections that break at every frame.
import { existsSync, rmSync } from 'node:fs';
import type { Fault, Run } from '../fault.js';
import { undisturbed } from '../fault.js';
import { Random } from '../random.js';
import { Scene, type SceneOptions } from '../scene.js';
import { Verdict } from '../verdict.js';

const HOW = ['flip', 'swap', 'old'] as const;

const tampered: Fault = {
  name: 'bytes-changed',
  promise:
    "a frame's bytes changed, swapped or old on one node: detected always; repaired from the other replica at R=2",
  scene: (_random, seed) => ({ nodes: 3, replicas: seed % 2 === 0 ? 1 : 2, proxied: true, imagePages: 3072 }),
  async run(run) {
    const { scene, verdict, seed, random, note } = run;
    const how = HOW[Math.floor(seed / 2) % HOW.length]!;
    for (const { proxy } of scene.nodes) await proxy!.set({ remembered: true });
    // An old frame is one of the same id of a migration before this one, of the same image to the same nodes.
    if (how === 'old') {
      await undisturbed(run);
      rmSync(scene.out, { force: true });
      await scene.startDestination();
    }
    const answer = 1 + random.below(12);
    await scene.proxies!.lie(how, answer);
    note(`${how} from answer ${answer}, R=${scene.options.replicas}`);
    scene.startSource();
    await scene.ended();
    const { tampered } = await scene.proxies!.counts();
    note(`${tampered} answers changed`);
    verdict.expect(tampered > 0, 'no answer was changed');
    if (scene.options.replicas > 1 || scene.destination.code === 0) verdict.completed(scene);
    else if (scene.source.code === 2) verdict.aborted(scene);
    else verdict.named(scene);
    verdict.expect(scene.destination.code === 0 || !existsSync(scene.out), 'an image that is not whole is there');
    if (scene.destination.code !== 3) await verdict.empty(scene.nodes, 2_000);
  },
};

const SMALL: SceneOptions = {
  nodes: 2,
  replicas: 1,
  proxied: true,
  imagePages: 448,
  sourceRate: null,
  destinationRate: '1MB',
};

/** Frames that pass in an undisturbed run, from hop to hop. */
async function countFrames(): Promise<number> {
  const random = new Random('reset');
  const scene = new Scene(random, SMALL);
  try {
    await scene.open();
    const verdict = new Verdict();
    await undisturbed({ seed: 0, random, scene, verdict, note: () => {} });
    if (verdict.broken.length > 0)
      throw new Error(`an undisturbed run is not as it should be: ${verdict.broken.join('; ')}`);
    return (await scene.proxies!.counts()).frames;
  } finally {
    await scene.close();
    scene.remove();
  }
}

const reset: Fault = {
  name: 'reset',
  promise: 'connection reset at every frame boundary of a small migration, one by one: completed each time',
  scene: () => SMALL,
  async seeds(runs) {
    const frames = await countFrames();
    // All of them in a full run, a few spread evenly in a sample.
    const count = runs >= 20 ? frames : Math.min(runs, frames);
    return Array.from({ length: count }, (_, i) => 1 + Math.floor((i * frames) / count));
  },
  async run({ scene, verdict, seed, note }: Run) {
    await scene.proxies!.resetAt(seed);
    scene.startSource();
    await scene.ended();
    const { frames, resets } = await scene.proxies!.counts();
    note(resets > 0 ? `reset behind frame ${seed} of ${frames}` : `only ${frames} frames passed`);
    verdict.completed(scene);
    await verdict.empty(scene.nodes, 2_000);
  },
};

export const BYTE_FAULTS: readonly Fault[] = [tampered, reset];
