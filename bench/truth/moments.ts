// When a kill comes: at a moment of a phase that guests and roles themselves show, so that it is what it is called on slow machines too.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Progress } from '../faults/role.js';
import type { Blow } from './plan.js';
import { isState, type LiveScene } from './scene.js';

/** Progress is told so often. */
const STEP_MS = 200;
const SETUP_MS = 500;
/** What follows a word from a guest follows at once: most moments are short after it. */
const AFTER_STOP_MS = 400;
const AFTER_LOADED_MS = 100;
/** Where it runs early, its pages are still on their way. */
const AFTER_RUNNING_MS = { early: 1_500, late: 200 };
const AFTER_EXIT_MS = 1_000;

const has = (share: number) => (progress: Progress) =>
  progress.totalBytes > 0 && progress.doneBytes >= share * progress.totalBytes;

/** Resolves when the moment has come; it may never come. The source has just been started. */
export async function moment({ phase, share, victim }: Blow, scene: LiveScene): Promise<void> {
  const { source, plan } = scene;
  const vm = scene.vms[victim]!;
  switch (phase) {
    case 'setup':
      return sleep(share * SETUP_MS);
    case 'moving':
      await reached(source.reaches(has(0.01 + share * 0.7)));
      return sleep(((share * 97) % 1) * STEP_MS);
    case 'stop':
      await reached(vm.here.event(isState('stopped')));
      return sleep(share ** 3 * AFTER_STOP_MS);
    case 'loaded':
      await reached(vm.there[0]!.event(isState('loaded')));
      return sleep(share ** 3 * AFTER_LOADED_MS);
    case 'running':
      await reached(vm.there[0]!.event(isState('running')));
      return sleep(share ** 2 * AFTER_RUNNING_MS[plan.mode === 'stop' || plan.mode === 'pre-copy' ? 'late' : 'early']);
    case 'exit':
      await reached(source.event(({ type, outcome }) => type === 'summary' && outcome === 'completed'));
      return sleep(share * AFTER_EXIT_MS);
  }
}

/** What ends without having come so far never does. */
async function reached(come: Promise<unknown>): Promise<void> {
  if (!(await come)) await new Promise(() => {});
}
