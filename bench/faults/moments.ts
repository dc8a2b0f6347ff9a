// When a fault comes: a seeded moment of a seeded phase. Phases are recognised from what the roles say of their progress, so that they are what they are
// called on slow machines too.
//
//   setup         the source was started, and no page has left
//   scatter       the source divides
//   switch-over   its last pages leave, and it tells the destination that this was all
//   gather        the destination merges, whatever the source does
//   after the exit   the source has gone
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from './random.js';
import type { Progress, Role } from './role.js';
import type { Scene } from './scene.js';

export const PHASES = ['setup', 'scatter', 'switch-over', 'gather', 'after the exit'] as const;
export type Phase = (typeof PHASES)[number];

/** Before the exit, that is. */
export const BEFORE: readonly Phase[] = ['setup', 'scatter'];

/** Progress is told so often. */
const STEP_MS = 200;
/** From the source's start until its first page leaves, or somewhat less. */
const SETUP_MS = 500;
const SWITCH_OVER_MS = 300;

const has = (share: number) => (progress: Progress) =>
  progress.totalBytes > 0 && progress.doneBytes >= share * progress.totalBytes;

/** Until the moment has come. The source has just been started. */
export async function moment(phase: Phase, scene: Scene, random: Random): Promise<void> {
  const { source, destination } = scene;
  const share = random.next();
  switch (phase) {
    case 'setup':
      await Promise.race([sleep(share * SETUP_MS), source.reaches(({ phase }) => phase === 'dividing')]);
      return;
    case 'scatter':
      await source.reaches(has(0.01 + share * 0.7));
      await sleep(random.next() * STEP_MS);
      return;
    case 'switch-over':
      await source.reaches(has(0.85));
      await sleep(share * SWITCH_OVER_MS);
      return;
    case 'gather':
      await Promise.race([destination.reaches(has(0.01 + share * 0.85)), failed(source)]);
      await sleep(random.next() * STEP_MS);
      return;
    case 'after the exit': {
      await source.ended;
      const { doneBytes = 0, totalBytes = 1 } = destination.progress ?? {};
      const merged = doneBytes / totalBytes;
      await destination.reaches(has(merged + share * 0.8 * (1 - merged)));
      return;
    }
  }
}

/** Resolves if it ends otherwise than well: what others do later does not come then. */
async function failed(source: Role): Promise<void> {
  await source.ended;
  if (source.code === 0) await new Promise(() => {});
}
