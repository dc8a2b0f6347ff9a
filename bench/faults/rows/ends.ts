// What happens to the ends: the source and the destination killed, and migrations that are called off.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from '../fault.js';
import { BEFORE, moment, PHASES } from '../moments.js';

/** A migration whose source is gone is dropped ten seconds later; a destination that waits for it gives up then. */
const ORPHANED_MS = 30_000;

const sourceKilled: Fault = {
  name: 'source-killed',
  promise: 'source killed before the exit: aborted, nothing left behind; after it: completed',
  scene: (_random, seed) => ({ nodes: 3, replicas: 1 + (seed % 2) }),
  async run({ scene, verdict, seed, random, note }) {
    const source = scene.startSource();
    const { destination } = scene;
    const when = (['before', 'around', 'after'] as const)[seed % 3]!;
    if (when === 'before') await moment(random.pick(BEFORE), scene, random);
    else if (when === 'around') await moment('switch-over', scene, random);
    else await source.event(({ type }) => type === 'summary');
    note(`${when} the exit`);
    const exited = source.summary !== null;
    verdict.expect(exited || !source.over, `source: ended by itself with exit code ${source.code}`);
    source.signal('SIGKILL');
    await scene.ended();
    const completed = when === 'after' || exited || (when === 'around' && destination.code === 0);
    if (completed) {
      verdict.outcome(destination, 0, 'completed');
      verdict.arrived(scene);
    } else {
      verdict.outcome(destination, 2, 'aborted');
      verdict.nothingArrived(scene);
    }
    await verdict.empty(scene.nodes, completed ? 2_000 : ORPHANED_MS);
  },
};

const destinationRestarted: Fault = {
  name: 'destination-restarted',
  promise: 'destination killed mid-merge, started again: completed from the intermediates',
  scene: (_random, seed) => ({ nodes: 3, replicas: 1 + (seed % 2) }),
  async run({ scene, verdict, seed, random, note }) {
    scene.startSource();
    const phase = seed % 4 < 2 ? 'gather' : 'after the exit';
    await moment(phase, scene, random);
    const { destination } = scene;
    const { doneBytes = 0, totalBytes = 0 } = destination.progress ?? {};
    note(`${phase}: killed with ${doneBytes} of ${totalBytes} bytes merged`);
    destination.signal('SIGKILL');
    await destination.ended;
    await sleep(random.next() * 1_500);
    if (destination.code === null) await scene.startDestination();
    else note('it had ended before');
    await scene.ended();
    verdict.completed(scene);
    await verdict.empty(scene.nodes, 2_000);
  },
};

const CANCEL_PHASES = PHASES.slice(0, 3);

const cancel: Fault = {
  name: 'cancel',
  promise: 'cancel at 50 random moments: source untouched, no frame left after 2 s',
  scene: (_random, seed) => ({ nodes: 3, replicas: 1 + (seed % 2), withProcess: process.platform === 'linux' }),
  seeds: (runs) => Array.from({ length: runs >= 20 ? Math.max(50, runs) : runs }, (_, i) => i + 1),
  async run({ scene, verdict, seed, random, note }) {
    const before = readFileSync(scene.image);
    const source = scene.startSource();
    const phase = CANCEL_PHASES[seed % CANCEL_PHASES.length]!;
    await moment(phase, scene, random);
    const by = random.pick(['SIGINT', 'SIGTERM', 'abdm cancel'] as const);
    note(`${phase}: ${by}`);
    if (by !== 'abdm cancel') source.signal(by);
    else {
      const command = scene.start('cancel', ['cancel', 'a']);
      await command.ended;
      // It may have come before there was anything to cancel, or after.
      if (command.code !== 0) {
        note('cancel found nothing');
        source.signal('SIGINT');
      }
    }
    const cancelledAt = performance.now();
    await source.ended;
    if (source.code === 0) {
      note('the exit came first');
      await scene.ended();
      verdict.completed(scene);
    } else {
      // A signal ends a process that has not got as far as handling it.
      const tooEarly = source.events.length === 0 && source.code === null;
      verdict.expect(tooEarly || source.code === 2, `source: exit code ${source.code}, not 2`);
      const { summary } = source;
      verdict.expect(
        !summary || summary.reason?.code === 'CANCELLED',
        `source: reason ${summary?.reason?.code}, not CANCELLED`,
      );
      await scene.ended();
      verdict.outcome(scene.destination, 2, 'aborted');
      verdict.nothingArrived(scene);
    }
    verdict.expect(before.equals(readFileSync(scene.image)), 'the image at the source was changed');
    verdict.expect(await scene.processAnswers(), 'the process at the source does not answer any more');
    await verdict.empty(scene.nodes, Math.max(0, cancelledAt + 2_000 - performance.now()));
  },
};

export const END_FAULTS: readonly Fault[] = [sourceKilled, destinationRestarted, cancel];
