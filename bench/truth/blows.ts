// What happens to a run, and what follows from it for those who put it right again: an operator who starts a destination that died with the same command.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Role } from '../faults/role.js';
import { moment } from './moments.js';
import type { KillName } from './plan.js';
import type { LiveScene } from './scene.js';

/** How a blow went. */
export interface Struck {
  /** It met something that could be disturbed. */
  readonly came: boolean;
  /** For people. */
  readonly note: string;
}

type Strike = (scene: LiveScene) => Promise<Struck>;

/**
 * Strikes when the moment has come, and resolves when nothing more is to be done; if the run is over before, it never came.
 * @param over resolves when the run has ended by itself.
 */
export async function strike(scene: LiveScene, over: Promise<void>): Promise<Struck> {
  const { blow } = scene.plan;
  const missed = over.then(() => null);
  const come = await Promise.race([missed, moment(blow, scene).then(() => true)]);
  return come ? STRIKES[blow.kill](scene) : { came: false, note: 'came too late' };
}

const STRIKES: Record<KillName, Strike> = {
  none: async () => ({ came: true, note: 'undisturbed' }),
  'node-full': async () => ({ came: true, note: 'one is full' }),
  'node-killed': async (scene) => {
    const { role } = scene.nodes[scene.plan.blow.node]!;
    await scene.slay(role);
    return { came: true, note: `${role.name} killed` };
  },
  'node-stopped': async (scene) => {
    const { node, how, lastsMs } = scene.plan.blow;
    const { role } = scene.nodes[node]!;
    role.signal('SIGSTOP');
    if (how < 0.5) return { came: true, note: `${role.name} stopped` };
    await sleep(lastsMs);
    role.signal('SIGCONT');
    return { came: true, note: `${role.name} stopped for ${lastsMs} ms` };
  },
  'source-killed': async (scene) => slay(scene, scene.source),
  'destination-killed': async (scene) => {
    const { lastsMs, how } = scene.plan.blow;
    const { source } = scene;
    const struck = await slay(scene, scene.destination!);
    if (!struck.came) return struck;
    // At once or soon, while the source waits for it; or when it has gone.
    if (how < 0.3) await source.ended;
    else await Promise.race([sleep(how < 0.5 ? lastsMs / 10 : lastsMs), source.ended]);
    if (source.over && source.code !== 0 && source.code !== 3) return { ...struck, note: `${struck.note} for good` };
    const after = source.over ? 'when the source had gone' : 'while the source was there';
    await scene.startDestination();
    return { ...struck, note: `${struck.note}, started again ${after}` };
  },
  'source-guest-killed': async (scene) => slay(scene, scene.vms[scene.plan.blow.victim]!.here),
  'destination-guest-killed': async (scene) => slay(scene, scene.vms[scene.plan.blow.victim]!.there[0]!),
  'link-cut': async (scene) => {
    const { how, lastsMs } = scene.plan.blow;
    const frozen = how < 0.4;
    await scene.link!.set(frozen ? { frozen } : { cut: true });
    await sleep(lastsMs);
    await scene.link!.set({});
    return { came: true, note: `link ${frozen ? 'frozen' : 'cut'} for ${lastsMs} ms` };
  },
  'cancel-source': async (scene) => cancel(scene, scene.source, 'here'),
  'cancel-destination': async (scene) => cancel(scene, scene.destination!, 'there'),
};

async function slay(scene: LiveScene, role: Role): Promise<Struck> {
  if (role.over) return { came: false, note: `${role.name} had ended` };
  await scene.slay(role);
  return { came: true, note: `${role.name} killed` };
}

async function cancel(scene: LiveScene, role: Role, host: 'here' | 'there'): Promise<Struck> {
  if (role.over) return { came: false, note: `${role.name} had ended` };
  const { how } = scene.plan.blow;
  const note = `${role.name} cancelled`;
  if (how < 0.5) {
    role.signal(how < 0.25 ? 'SIGINT' : 'SIGTERM');
    return { came: true, note: `${note} by a signal` };
  }
  const command = scene.start('cancel', ['cancel', scene.vms[0]!.plan.name], host);
  await command.ended;
  return { came: true, note: `${note}: exit code ${command.code}` };
}
