// The rows of `npm run qemu`: what is measured against what, and what is promised of it. The points of a row take turns, A B C A B C, and begin in turn.
import { Random } from '../faults/random.js';
import { type Spread, spread } from '../statistics.js';
import { type Control, controls } from './controls.js';
import type { GuestPlan } from './machine.js';
import type { OurMode } from './ours.js';
import { type Course, run, type Took, type Way } from './run.js';
import { type SceneOptions, Site } from './scene.js';

export const ROWS = ['limit', 'unlimited', 'modes', 'nodes', 'parked', 'pair', 'controls'] as const;
export type RowName = (typeof ROWS)[number];

export interface Plan {
  readonly runs: number;
  readonly limitBytesPerS: number;
  readonly guestBytes: number;
  readonly modes: readonly OurMode[];
  readonly noise: boolean;
  readonly seed: number;
  readonly scene: Omit<SceneOptions, 'site'>;
  say(text: string): void;
}

/** One line of --json. */
export interface Line {
  readonly type: 'qemu';
  readonly row: RowName;
  readonly point: string;
  readonly runs: number;
  /** Median and quartiles of the runs that completed. */
  readonly figures: Readonly<Record<Figure, Spread>>;
  /** Of the guests' own word. */
  readonly verifyOk: number;
  readonly streamRight: number | null;
  /** What went wrong, run by run. */
  readonly wrong: readonly string[];
  readonly promises: readonly Promised[];
}

export interface Promised {
  readonly promise: string;
  readonly value: number;
  readonly most: number | null;
  readonly least: number | null;
  readonly holds: boolean;
}

type Figure =
  | 'exitMs'
  | 'commandMs'
  | 'totalMs'
  | 'downtimeMs'
  | 'stallMs'
  | 'silenceMs'
  | 'wireBytes'
  | 'streamSilenceMs';
const FIGURES: readonly Figure[] = [
  ...(['exitMs', 'commandMs', 'totalMs', 'downtimeMs', 'stallMs', 'silenceMs', 'wireBytes'] as const),
  'streamSilenceMs',
];

/** A guest that writes to 32 pages only, whose own work hides no stall; and one that writes 8 MB a second to 64 MiB. */
const calm = ({ guestBytes, noise }: Plan) => guest(guestBytes, 32, 100, noise);
const busy = ({ guestBytes, noise }: Plan) => guest(guestBytes, 16_384, 2000, noise);
/** Of the time that its memory takes uncompressed: what remains of it. */
const MOVE_SHARE = 0.6;
/** How long guests are watched after they have moved busily. */
const WATCH_MS = 20_000;
/** Of two guests that leave together. */
const COMMON_PERCENT = 60;

function guest(bytes: number, setPages: number, pagesPerS: number, noise: boolean): Omit<GuestPlan, 'attachment'> {
  return { bytes, setPages, pagesPerS, noise, seed: 0, commonPercent: 0 };
}

interface Point {
  readonly name: string;
  readonly course: (turn: number) => Course;
}

interface Outcomes {
  readonly took: Took[];
  readonly failures: string[];
}

const STOCK: readonly Way[] = [
  { by: 'stock', mode: 'pre-copy' },
  { by: 'stock', mode: 'post-copy' },
];

const nameOf = ({ by, mode }: Way) => `${by} ${mode}`;

function course(way: Way, guests: Course['guests'], more: Partial<Course> = {}): Course {
  return { way, guests, replicas: 2, hasStream: false, watchMs: 0, kill: null, ...more };
}

/** All points in turn. */
async function measure(points: readonly Point[], limit: number | null, plan: Plan): Promise<Map<string, Outcomes>> {
  const all = new Map<string, Outcomes>(points.map(({ name }) => [name, { took: [], failures: [] }]));
  const site = new Site(limit === null ? null : limit * 8);
  try {
    for (let turn = 0; turn < plan.runs; turn++) {
      for (let i = 0; i < points.length; i++) {
        const { name, course } = points[(turn + i) % points.length]!;
        const outcomes = all.get(name)!;
        try {
          const took = await run(course(turn), { ...plan.scene, site });
          outcomes.took.push(took);
          plan.say(`${name}: ${briefly(took)}`);
        } catch (error) {
          outcomes.failures.push((error as Error).message);
          plan.say(`${name}: ${(error as Error).message}`);
        }
      }
    }
    return all;
  } finally {
    site.close();
  }
}

function briefly({ exitMs, totalMs, downtimeMs, stallMs, silenceMs, wireBytes, verify, wrong, stream }: Took): string {
  const ms = (value: number) => `${Math.round(value)} ms`;
  const heard = stream ? `, stream silent for ${ms(stream.silenceMs)}${stream.isRight ? '' : ' AND WRONG'}` : '';
  const figures = `exit ${ms(exitMs)}, total ${ms(totalMs)}, down ${ms(downtimeMs)}, stall ${ms(stallMs)}, silent ${ms(silenceMs)}`;
  return `${figures}, ${(wireBytes / 1e6).toFixed(0)} MB${heard}, VERIFY ${verify}${wrong.length > 0 ? `: ${wrong.slice(0, 3).join('; ')}` : ''}`;
}

function lineOf(row: RowName, point: string, { took, failures }: Outcomes, promises: readonly Promised[] = []): Line {
  const of: Record<Figure, (took: Took) => number> = {
    exitMs: ({ exitMs }) => exitMs,
    commandMs: ({ commandMs }) => commandMs,
    totalMs: ({ totalMs }) => totalMs,
    downtimeMs: ({ downtimeMs }) => downtimeMs,
    stallMs: ({ stallMs }) => stallMs,
    silenceMs: ({ silenceMs }) => silenceMs,
    wireBytes: ({ wireBytes }) => wireBytes,
    streamSilenceMs: ({ stream }) => stream?.silenceMs ?? Number.NaN,
  };
  const streams = took.flatMap(({ stream }) => (stream ? [stream] : []));
  return {
    type: 'qemu',
    row,
    point,
    runs: took.length + failures.length,
    figures: Object.fromEntries(FIGURES.map((figure) => [figure, spread(took.map(of[figure]))])) as Line['figures'],
    verifyOk: took.filter(({ verify }) => verify === 'OK').length,
    streamRight: streams.length > 0 ? streams.filter(({ isRight }) => isRight).length : null,
    wrong: [...took.flatMap(({ wrong }) => wrong), ...failures],
    promises,
  };
}

const median = ({ took }: Outcomes, of: (took: Took) => number) => spread(took.map(of)).median;
const atMost = (promise: string, value: number, most: number): Promised => ({
  ...{ promise, value, most, least: null, holds: value <= most },
});
const atLeast = (promise: string, value: number, least: number): Promised => ({
  ...{ promise, value, most: null, least, holds: value >= least },
});

/** Stock and ours over the same links, while a client plays what the guest streams. */
async function against(row: 'limit' | 'unlimited', plan: Plan): Promise<Line[]> {
  const ways: Way[] = [...STOCK, ...plan.modes.map((mode): Way => ({ by: 'abdm', mode }))];
  const points = ways.map((way) => ({
    name: nameOf(way),
    course: () => course(way, [calm(plan)], { hasStream: true }),
  }));
  const all = await measure(points, row === 'limit' ? plan.limitBytesPerS : null, plan);
  const [pre, post] = STOCK.map((way) => all.get(nameOf(way))!) as [Outcomes, Outcomes];
  return ways.map((way) => {
    const name = nameOf(way);
    const own = all.get(name)!;
    if (way.by === 'stock') return lineOf(row, name, own);
    return lineOf(row, name, own, way.mode === 'post-copy' ? promisesOf(row, own, pre, post) : []);
  });
}

function promisesOf(row: 'limit' | 'unlimited', own: Outcomes, pre: Outcomes, post: Outcomes): Promised[] {
  const [exit, total] = [median(own, ({ exitMs }) => exitMs), median(own, ({ totalMs }) => totalMs)];
  const stockExit = median(post, ({ exitMs }) => exitMs);
  const stockTotal = median(post, ({ totalMs }) => totalMs);
  if (row === 'unlimited') {
    return [
      atMost("exit / stock post-copy's", exit / stockExit, 1.1),
      atMost("total / stock post-copy's", total / stockTotal, 1.25),
    ];
  }
  const silence = (outcomes: Outcomes) => median(outcomes, ({ stream }) => stream!.silenceMs);
  return [
    atLeast("stock post-copy's exit / exit", stockExit / exit, 6),
    atLeast("stock pre-copy's exit / exit", median(pre, ({ exitMs }) => exitMs) / exit, 6),
    atMost("total / stock post-copy's", total / stockTotal, 1.03),
    atMost(
      'longest stall, ms',
      median(own, ({ stallMs }) => stallMs),
      100,
    ),
    atMost("stream's silence beyond stock post-copy's, ms", silence(own) - silence(post), 50),
  ];
}

const allOk = (row: RowName, point: string, outcomes: Outcomes): Line => {
  const line = lineOf(row, point, outcomes);
  return { ...line, promises: [atLeast('VERIFY OK', line.verifyOk, line.runs)] };
};

/** A busy guest in each mode. */
async function modes(plan: Plan): Promise<Line[]> {
  const ways: Way[] = [...STOCK, ...plan.modes.map((mode): Way => ({ by: 'abdm', mode }))];
  const points = ways.map((way) => ({
    name: nameOf(way),
    course: () => course(way, [busy(plan)], { watchMs: WATCH_MS }),
  }));
  const all = await measure(points, plan.limitBytesPerS, plan);
  return ways.map((way) =>
    way.by === 'stock'
      ? lineOf('modes', nameOf(way), all.get(nameOf(way))!)
      : allOk('modes', nameOf(way), all.get(nameOf(way))!),
  );
}

/** One of three nodes dies at a seeded moment; every page has two copies. */
async function nodes(plan: Plan): Promise<Line[]> {
  const expectedMs = (MOVE_SHARE * plan.guestBytes * 1000) / plan.limitBytesPerS;
  const course_ = (turn: number) => {
    const random = new Random('qemu', plan.seed + turn);
    const kill = { node: random.below(3), afterMs: random.next() * expectedMs };
    return course({ by: 'abdm', mode: 'post-copy' }, [busy(plan)], { kill });
  };
  const all = await measure([{ name: 'node killed', course: course_ }], plan.limitBytesPerS, plan);
  return [allOk('nodes', 'node killed', all.get('node killed')!)];
}

async function parkedRow(plan: Plan): Promise<Line[]> {
  const way: Way = { by: 'parked', mode: 'stop' };
  const points = [{ name: 'parked', course: () => course(way, [busy(plan)]) }];
  const all = await measure(points, plan.limitBytesPerS, plan);
  return [allOk('parked', 'parked', all.get('parked')!)];
}

/** Two guests with the same kernel and the same files: together, and each on its own. */
async function pair(plan: Plan): Promise<Line[]> {
  const way: Way = { by: 'abdm', mode: 'post-copy' };
  const [one, other] = [1, 2].map((seed) => ({ ...calm(plan), seed, commonPercent: COMMON_PERCENT }));
  const points = [
    { name: 'one', course: () => course(way, [one!]) },
    { name: 'the other', course: () => course(way, [other!]) },
    { name: 'together', course: () => course(way, [one!, other!]) },
  ];
  const all = await measure(points, plan.limitBytesPerS, plan);
  const bytes = (name: string) => median(all.get(name)!, ({ wireBytes }) => wireBytes);
  const ratio = bytes('together') / (bytes('one') + bytes('the other'));
  return points.map(({ name }) => {
    const line = allOk('pair', name, all.get(name)!);
    if (name !== 'together') return line;
    return { ...line, promises: [...line.promises, atMost('bytes on the wire / of the two apart', ratio, 0.75)] };
  });
}

/** @returns lines, or what became of negative controls. */
export async function measureRow(row: RowName, plan: Plan): Promise<(Line | ({ type: 'control' } & Control))[]> {
  switch (row) {
    case 'limit':
    case 'unlimited':
      return against(row, plan);
    case 'modes':
      return modes(plan);
    case 'nodes':
      return nodes(plan);
    case 'parked':
      return parkedRow(plan);
    case 'pair':
      return pair(plan);
    case 'controls': {
      const site = new Site(null);
      try {
        const found = await controls(calm(plan), { ...plan.scene, site });
        return found.map((control) => ({ type: 'control', ...control }));
      } finally {
        site.close();
      }
    }
  }
}
