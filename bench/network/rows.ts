// The rows of `npm run bench:network`: points that are measured in turn, A B C A B C, and what is promised of them.
import { type Spread, spread } from '../statistics.js';
import { lineBytesPerS } from './link.js';
import { migrate, type Setting, type Took } from './migration.js';
import { type Host, Network } from './namespaces.js';

/** One line of --json. */
export interface Line {
  readonly type: 'network';
  readonly row: string;
  readonly point: string;
  readonly runs: number;
  /** Median and quartiles. */
  readonly exitMs: Spread;
  readonly totalMs: Spread;
  readonly wireBytes: number;
  /** Of medians, against what `promises` names. */
  readonly ratios: Readonly<Record<string, number>>;
  readonly promises: readonly { readonly figure: string; readonly most: number; readonly holds: boolean }[];
  /** What the source's link carries on its own, and how it is shaped; null on loopback. */
  readonly link: {
    readonly bitsPerS: number;
    readonly tcpBytesPerS: number;
    readonly congestionControl: string;
  } | null;
}

export interface Plan {
  readonly runs: number;
  readonly bitsPerS: number;
  readonly image: string;
  readonly keyFile: string;
  say(text: string): void;
}

interface Point {
  readonly name: string;
  readonly setting: Setting;
}

const NODES = 4;

/** A source, so many nodes and a destination; of each, how fast. */
function hosts(source: number, nodes: readonly number[], destination: number): Host[] {
  const named = nodes.map((bitsPerS, i) => ({ name: `node${i + 1}`, bitsPerS }));
  return [{ name: 'source', bitsPerS: source }, ...named, { name: 'destination', bitsPerS: destination }];
}

const equal = (count: number, bitsPerS: number) => Array<number>(count).fill(bitsPerS);

/** All points in turn. */
async function measure(points: readonly Point[], { runs, say }: Plan): Promise<Map<string, Took[]>> {
  const took = new Map<string, Took[]>(points.map(({ name }) => [name, []]));
  for (let run = 0; run < runs; run++) {
    // Who begins changes from round to round.
    for (let i = 0; i < points.length; i++) {
      const { name, setting } = points[(run + i) % points.length]!;
      const one = await migrate(setting);
      took.get(name)!.push(one);
      say(`${name}: exit ${Math.round(one.exitMs)} ms, total ${Math.round(one.totalMs)} ms`);
    }
  }
  return took;
}

const exitOf = ({ exitMs }: Took) => exitMs;
const totalOf = ({ totalMs }: Took) => totalMs;
const median = (took: readonly Took[], figure: (one: Took) => number) => spread(took.map(figure)).median;

function lineOf(
  row: string,
  point: string,
  took: readonly Took[],
  link: Line['link'],
  limits: readonly { figure: string; ratio: number; most?: number }[],
): Line {
  return {
    type: 'network',
    row,
    point,
    runs: took.length,
    exitMs: spread(took.map(exitOf)),
    totalMs: spread(took.map(totalOf)),
    wireBytes: median(took, ({ wireBytes }) => wireBytes),
    ratios: Object.fromEntries(limits.map(({ figure, ratio }) => [figure, Number(ratio.toFixed(3))])),
    promises: limits.flatMap(({ figure, ratio, most }) =>
      most === undefined ? [] : [{ figure, most, holds: ratio <= most }],
    ),
    link,
  };
}

/** What R copies cost: the source's link carries each frame once, whatever R is. */
export async function replication(plan: Plan): Promise<Line[]> {
  const { bitsPerS, image, keyFile } = plan;
  const network = new Network(hosts(bitsPerS, equal(NODES, bitsPerS), bitsPerS / 5));
  try {
    const link = await linkOf(network, bitsPerS);
    const points = [1, 2, 3].map((replicas) => {
      return { name: `R=${replicas}`, setting: { network, nodes: NODES, replicas, keyFile, image } };
    });
    const took = await measure(points, plan);
    const first = took.get('R=1')!;
    return points.map(({ name }) => {
      const own = took.get(name)!;
      return lineOf('replication', name, own, link, [
        {
          figure: 'exit / R=1',
          ratio: median(own, exitOf) / median(first, exitOf),
          ...(name === 'R=2' && { most: 1.15 }),
        },
        { figure: 'total / R=1', ratio: median(own, totalOf) / median(first, totalOf) },
      ]);
    });
  } finally {
    network.close();
  }
}

/** Through intermediates against straight to the destination, which is as fast as the source, or a fifth as fast. */
export async function againstDirect(plan: Plan): Promise<Line[]> {
  const { bitsPerS, image, keyFile } = plan;
  const lines: Line[] = [];
  for (const [row, share] of [
    ['destination as fast', 1],
    ['destination at a fifth', 0.2],
  ] as const) {
    const network = new Network(hosts(bitsPerS, equal(NODES, bitsPerS), bitsPerS * share));
    try {
      const link = await linkOf(network, bitsPerS);
      const points = [
        { name: 'direct', setting: { network, nodes: 0, keyFile, image } },
        { name: 'scattered', setting: { network, nodes: NODES, keyFile, image } },
      ];
      const took = await measure(points, plan);
      const [direct, scattered] = [took.get('direct')!, took.get('scattered')!];
      const atLineRateMs = (median(scattered, ({ wireBytes }) => wireBytes) / link.tcpBytesPerS) * 1000;
      const exit = median(scattered, exitOf);
      const exits =
        share === 1
          ? [{ figure: 'exit / direct', ratio: exit / median(direct, exitOf), most: 1.05 }]
          : [{ figure: 'exit / line', ratio: exit / atLineRateMs, most: 1.05 }];
      const total = {
        figure: 'total / direct',
        ratio: median(scattered, totalOf) / median(direct, totalOf),
        most: 1.05,
      };
      lines.push(lineOf(row, 'direct', direct, link, []), lineOf(row, 'scattered', scattered, link, [...exits, total]));
    } finally {
      network.close();
    }
  }
  return lines;
}

/** One node a tenth as fast as the others, against a run without it. */
export async function slowNode(plan: Plan): Promise<Line[]> {
  const { bitsPerS, image, keyFile } = plan;
  const network = new Network(hosts(bitsPerS, [...equal(3, bitsPerS), bitsPerS / 10], bitsPerS / 5));
  try {
    const link = await linkOf(network, bitsPerS);
    const points = [
      { name: 'without it', setting: { network, nodes: 3, keyFile, image } },
      { name: 'with it', setting: { network, nodes: 4, keyFile, image } },
    ];
    const took = await measure(points, plan);
    const [without, with_] = [took.get('without it')!, took.get('with it')!];
    const ratio = median(with_, exitOf) / median(without, exitOf);
    return [
      lineOf('slow node', 'without it', without, link, []),
      lineOf('slow node', 'with it', with_, link, [{ figure: 'exit / without', ratio, most: 1.15 }]),
    ];
  } finally {
    network.close();
  }
}

async function linkOf(network: Network, bitsPerS: number): Promise<NonNullable<Line['link']>> {
  const tcpBytesPerS = await lineBytesPerS(network, 'source', 'node1');
  return { bitsPerS, tcpBytesPerS: Math.round(tcpBytesPerS), congestionControl: network.congestionControl };
}
