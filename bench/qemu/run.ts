// One run: guests start and write, leave by one way or another, and are asked whether they are what they were. What it took.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Played } from './listener.js';
import type { GuestPlan } from './machine.js';
import { type OurMode, ours, parked } from './ours.js';
import { Scene, type SceneOptions, type Vm } from './scene.js';
import { longestSilenceMs, now } from './serial.js';
import { type StockMode, stock, type Times } from './stock.js';
import type { Heard } from './stream.js';

export type Way =
  | { readonly by: 'stock'; readonly mode: StockMode }
  | { readonly by: 'abdm'; readonly mode: OurMode }
  | { readonly by: 'parked'; readonly mode: OurMode };

export interface Course {
  readonly way: Way;
  /** Of each guest. */
  readonly guests: readonly Omit<GuestPlan, 'attachment'>[];
  readonly replicas: number;
  /** Somebody plays what the first one streams. */
  readonly hasStream: boolean;
  /** How long guests go on afterwards, checking all of their memory in rounds. */
  readonly watchMs: number;
  /** Which node is killed, and when after the beginning; null: none. */
  readonly kill: { readonly node: number; readonly afterMs: number } | null;
  /** Told of what the player hears, and of what happens, as it comes. */
  onHeard?(heard: Heard): void;
  onStep?(step: 'starts' | 'moves' | 'is there' | 'is asked'): void;
}

export interface Took {
  /** From when the sources' QEMUs are told to migrate until they are gone. */
  readonly exitMs: number;
  /** The same from when the command is started. */
  readonly commandMs: number;
  readonly totalMs: number;
  /** From the stop at the source until it runs at the destination; the longest of all guests. */
  readonly downtimeMs: number;
  /** The longest time that a guest was held up, by its own clock, which stands still with it. */
  readonly stallMs: number;
  /** The longest silence of a guest, by a clock outside: downtime and stalls. */
  readonly silenceMs: number;
  /** What left the source's card. */
  readonly wireBytes: number;
  /** OK: every page of every guest is what was written to it last, and none was started anew. */
  readonly verify: 'OK' | 'FAIL';
  readonly wrong: readonly string[];
  readonly stream: (Played & { readonly silenceMs: number }) | null;
}

/** Of running undisturbed, before and after. */
const SETTLE_MS = 1500;
/** Answers to what a guest is asked come by then, or it is not well. */
const ANSWER_MS = 120_000;

/** For a whole run, beyond the watching. */
const RUN_MS = 600_000;
/** So much of what is wrong is told. */
const TOLD = 10;

/** @throws {Error} if the migration does not complete; the directory that it names has the logs. */
export async function run(course: Course, options: SceneOptions): Promise<Took> {
  const scene = new Scene(options);
  let isWell = false;
  try {
    const late = sleep(RUN_MS + course.watchMs, null, { ref: false });
    const took = await Promise.race([play(course, scene), late]);
    if (!took) throw new Error('it does not come to an end');
    isWell = true;
    return took;
  } catch (error) {
    throw new Error(`${(error as Error).message}; logs: ${scene.directory}`, { cause: error });
  } finally {
    await scene.close(!isWell);
  }
}

async function play(course: Course, scene: Scene): Promise<Took> {
  const { way, guests, hasStream, watchMs } = course;
  course.onStep?.('starts');
  for (const guest of guests) {
    const vm = await scene.addGuest(guest, hasStream);
    if (way.by !== 'parked') await scene.expect(vm);
  }
  const [first] = scene.vms;
  if (hasStream) await scene.play(first!, course.onHeard);
  await sleep(SETTLE_MS);

  const { network } = scene.site;
  course.onStep?.('moves');
  const before = network.sentBytes('source');
  const times = await move(course, scene);
  const wireBytes = network.sentBytes('source') - before;
  course.onStep?.('is there');
  const downtimes = scene.vms.map(({ here, there }) => downtime(here, there!));
  await sleep(SETTLE_MS);

  course.onStep?.('is asked');
  const [fromMs, toMs] = [times.beganAtMs - 200, now()];
  const stallMs = Math.max(...scene.vms.map(({ there }) => there!.serial.longestStallMs));
  const silences = scene.vms.map(({ here, there }) => longestSilenceMs([here.serial, there!.serial], fromMs, toMs));
  const streamSilenceMs = first!.listener?.longestSilenceMs(fromMs, toMs) ?? 0;
  const wrong = (await Promise.all(scene.vms.map((vm) => check(vm, watchMs)))).flat();
  const played = (await first!.listener?.stop()) ?? null;
  return {
    exitMs: times.exitAtMs - times.beganAtMs,
    commandMs: times.exitAtMs - times.startedAtMs,
    totalMs: times.endedAtMs - times.beganAtMs,
    downtimeMs: Math.max(...(await Promise.all(downtimes))),
    stallMs,
    silenceMs: Math.max(...silences),
    wireBytes,
    verify: wrong.length === 0 ? 'OK' : 'FAIL',
    wrong,
    stream: played && { ...played, silenceMs: streamSilenceMs },
  };
}

async function move({ way, replicas, kill }: Course, scene: Scene): Promise<Times> {
  if (way.by === 'stock') {
    const [vm] = scene.vms;
    return stock(way.mode, vm!.here, vm!.there!, scene.site.network.address('destination'));
  }
  const options = { mode: way.mode, replicas };
  if (way.by === 'parked') return parked(scene, options);
  return ours(scene, {
    ...options,
    disturb: async (nodes) => {
      if (!kill) return;
      await sleep(kill.afterMs);
      nodes[kill.node]!.signal('SIGKILL');
    },
  });
}

async function downtime(here: Vm['here'], there: NonNullable<Vm['there']>): Promise<number> {
  return (await there.happened('RESUME')) - (await here.happened('STOP'));
}

/** What is wrong with a guest: asked at once, and watched for a time. */
async function check({ here, there }: Vm, watchMs: number): Promise<string[]> {
  const { serial } = there!;
  const answer = async (wanted: RegExp, skip: number) => {
    const late = sleep(ANSWER_MS, null, { ref: false });
    const line = await Promise.race([serial.line(wanted, skip), late]);
    return line ? [] : [`it does not answer: ${wanted}`];
  };
  const asked = serial.lines.length;
  serial.tell('v');
  const wrong = await answer(/ABDM VERIFY/, asked);
  if (watchMs > 0 && wrong.length === 0) {
    serial.tell('r');
    await sleep(watchMs);
    wrong.push(...(await answer(/ABDM ROUND/, serial.lines.length)));
  }
  const boots = serial.lines.filter(({ text }) => text.includes('ABDM BOOT')).map(() => 'it was started anew');
  return [...wrong, ...boots, ...here.serial.wrong, ...serial.wrong].slice(0, TOLD);
}
