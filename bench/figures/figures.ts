// What figures there are, and the points of each.
import { busy, IDLE, LIGHT, type Load, server } from './load.js';
import type { Planned, Setting, Shows } from './point.js';

export type TimeMeasure = 'exitTimeMs' | 'totalMigrationTimeMs';
const EXIT: readonly TimeMeasure[] = ['exitTimeMs'];
const BOTH: readonly TimeMeasure[] = ['exitTimeMs', 'totalMigrationTimeMs'];

export interface Figure {
  readonly figure: number;
  readonly title: string;
  /** What x is. */
  readonly x: string;
  readonly xs: readonly number[];
  /** The only point that --smoke runs. */
  readonly smoke: { readonly series: string; readonly x: number };
  readonly shows: Shows;
  /** Where it shows times: which. */
  readonly measures: readonly TimeMeasure[];
  series(size: Size): readonly Series[];
}

export interface Size {
  readonly vmBytes: number;
  /** Of the source's card. */
  readonly bitsPerS: number;
}

interface Series {
  readonly name: string;
  setting(x: number): Setting;
}

/** The destination's card by the source's: the original took memory from the destination instead, which slowed it down to these. */
export const PRESSURES = [1, 2, 3, 4, 6.5] as const;
const NODES = 3;
/** Of the source's link: 200 Mbit/s of a gigabit. */
const FIFTH = 5;

const SLOWER = "destination's link, of the source's";

const equal = (count: number, bitsPerS: number) => Array<number>(count).fill(bitsPerS);

function base({ vmBytes, bitsPerS }: Size): Setting {
  return {
    source: bitsPerS,
    nodes: equal(NODES, bitsPerS),
    destination: bitsPerS,
    mode: 'post-copy',
    direct: false,
    compress: 'lz4',
    replicas: 1,
    vms: 1,
    vmBytes,
    content: 'random',
    common: 0,
    load: IDLE,
  };
}

const direct = (setting: Setting): Setting => ({ ...setting, direct: true, nodes: [] });
const preCopy = (setting: Setting): Setting => ({ ...setting, mode: 'pre-copy' });

/** Ours and the baselines, over destinations of all speeds. Random bytes travel as they are, compressed or not: one baseline does for both. */
function underPressure(size: Size, load: Load): readonly Series[] {
  const raw = (x: number): Setting => ({ ...base(size), destination: size.bitsPerS / x, load });
  const mix = (x: number): Setting => ({ ...raw(x), content: 'mix' });
  const plain = (x: number): Setting => ({ ...mix(x), compress: 'none' });
  return [
    { name: 'ours, raw', setting: raw },
    { name: 'ours, mix', setting: mix },
    { name: 'direct post-copy, raw', setting: (x) => direct(raw(x)) },
    { name: 'direct pre-copy, raw', setting: (x) => preCopy(direct(raw(x))) },
    { name: 'direct post-copy, mix', setting: (x) => direct(mix(x)) },
    { name: 'direct pre-copy, mix', setting: (x) => preCopy(direct(mix(x))) },
    { name: 'direct post-copy, mix, plain', setting: (x) => direct(plain(x)) },
    { name: 'direct pre-copy, mix, plain', setting: (x) => preCopy(direct(plain(x))) },
  ];
}

export const FIGURES: readonly Figure[] = [
  {
    figure: 3,
    title: 'An idle guest leaves for a destination that is slower than the source',
    x: SLOWER,
    xs: PRESSURES,
    shows: 'times',
    measures: BOTH,
    smoke: { series: 'ours, raw', x: 6.5 },
    series: (size) => underPressure(size, IDLE),
  },
  {
    figure: 4,
    title: 'A busy guest leaves for a destination that is slower than the source',
    x: SLOWER,
    xs: PRESSURES,
    shows: 'times',
    measures: BOTH,
    smoke: { series: 'ours, mix', x: 6.5 },
    series: (size) => underPressure(size, busy(size.bitsPerS)),
  },
  {
    figure: 5,
    title: 'Several guests leave together for a destination that keeps up with three',
    x: 'guests',
    xs: [1, 2, 3, 4, 5],
    shows: 'times',
    measures: EXIT,
    smoke: { series: 'ours, in common', x: 2 },
    series: (size) => {
      const gang = (vms: number): Setting => ({ ...base(size), destination: (size.bitsPerS * 3) / 5, vms });
      return [
        { name: 'ours', setting: gang },
        { name: 'ours, in common', setting: (x) => ({ ...gang(x), common: 0.6 }) },
        { name: 'direct post-copy', setting: (x) => direct(gang(x)) },
      ];
    },
  },
  {
    figure: 6,
    title: 'More intermediates, each a fifth as fast as the source, beside a destination of 1/6.5',
    x: 'intermediates',
    xs: [0, 1, 2, 3, 4],
    shows: 'times',
    measures: EXIT,
    smoke: { series: 'ours', x: 2 },
    series: (size) => {
      const few = { ...base(size), destination: size.bitsPerS / 6.5 };
      const nodes = (x: number) => equal(x, size.bitsPerS / FIFTH);
      return [{ name: 'ours', setting: (x) => (x === 0 ? direct(few) : { ...few, nodes: nodes(x) }) }];
    },
  },
  {
    figure: 7,
    title: 'Copies of each frame',
    x: 'nodes that keep each frame',
    xs: [1, 2, 3],
    shows: 'times',
    measures: BOTH,
    smoke: { series: 'ours', x: 2 },
    series: (size) => {
      const four = { ...base(size), nodes: equal(4, size.bitsPerS), destination: size.bitsPerS / FIFTH };
      return [{ name: 'ours', setting: (replicas) => ({ ...four, replicas }) }];
    },
  },
  {
    figure: 8,
    title: 'How long a guest waits for a page that it touches, while the others are being gathered',
    x: SLOWER,
    xs: [FIFTH],
    shows: 'faults',
    measures: [],
    smoke: { series: 'busy', x: FIFTH },
    series: (size) => {
      const with_ = (load: Load) => (x: number) => ({ ...base(size), destination: size.bitsPerS / x, load });
      return [
        { name: 'idle', setting: with_(LIGHT) },
        { name: 'busy', setting: with_(server(size.bitsPerS)) },
      ];
    },
  },
  {
    figure: 9,
    title: 'What a busy guest does while it migrates',
    x: SLOWER,
    xs: [FIFTH],
    smoke: { series: 'ours, post-copy', x: FIFTH },
    shows: 'timeline',
    measures: [],
    series: (size) => {
      const load = server(size.bitsPerS);
      const post = (x: number): Setting => ({ ...base(size), destination: size.bitsPerS / x, load });
      return [
        { name: 'ours, post-copy', setting: post },
        { name: 'direct post-copy', setting: (x) => direct(post(x)) },
        { name: 'direct pre-copy', setting: (x) => preCopy(direct(post(x))) },
      ];
    },
  },
];

export interface Wanted {
  readonly figures: readonly number[];
  /** Only these x; null: all. */
  readonly points: readonly number[] | null;
  /** Only these series; null: all. */
  readonly series: readonly string[] | null;
  readonly smoke: boolean;
}

/** The points of a figure that are wanted. */
export function pointsOf({ figure, xs, smoke, series }: Figure, size: Size, wanted: Wanted): Planned[] {
  const here = wanted.smoke ? [smoke.x] : xs.filter((x) => wanted.points?.includes(x) ?? true);
  return here.flatMap((x) =>
    series(size)
      .filter(({ name }) => (wanted.smoke ? name === smoke.series : (wanted.series?.includes(name) ?? true)))
      .map(({ name, setting }) => ({ figure, series: name, x, setting: setting(x) })),
  );
}
