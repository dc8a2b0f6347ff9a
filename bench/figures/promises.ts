// What is promised of the figures, worked out from their points: each promise from the points of one size over one link, and only where all that it
// compares has been measured.
import { groupsOf, type Point } from './point.js';

/** One line of --json. */
export interface Promised {
  readonly type: 'promise';
  readonly figure: number;
  readonly vmBytes: number;
  readonly bitsPerS: number;
  readonly promise: string;
  /** The worst of what was measured, and where that was. */
  readonly value: number;
  readonly at: string;
  /** Among how many. */
  readonly of: number;
  /** What it may be at most, or at least. */
  readonly limit: number;
  readonly atLeast: boolean;
  readonly holds: boolean;
}

interface Judged {
  readonly promise: string;
  readonly limit: number;
  readonly atLeast?: boolean;
  readonly values: readonly { readonly at: string; readonly value: number }[];
}

const WORST = 6.5;
const GANG = 5;
/** Beside what its execution state takes on the link: that of these guests is small enough to be left out. */
const DOWNTIME_MS = 100;

export function promisesOf(points: readonly Point[]): Promised[] {
  return groupsOf(points).flatMap((group) => {
    const { figure, setting } = group[0]!;
    const of = { figure, vmBytes: setting.vmBytes, bitsPerS: setting.source };
    return judge(figure, new Group(group)).flatMap((judged) => promisedOf(of, judged));
  });
}

function promisedOf(
  group: Pick<Promised, 'figure' | 'vmBytes' | 'bitsPerS'>,
  { promise, limit, atLeast = false, values }: Judged,
): Promised[] {
  if (values.length === 0) return [];
  const worse = (a: number, b: number) => (atLeast ? a < b : a > b);
  const { value, at } = values.reduce((worst, one) => (worse(one.value, worst.value) ? one : worst));
  const holds = atLeast ? value >= limit : value <= limit;
  return [{ type: 'promise', ...group, promise, value, at, of: values.length, limit, atLeast, holds }];
}

/** Points of one figure, by series and x. */
class Group {
  readonly #points: readonly Point[];

  constructor(points: readonly Point[]) {
    this.#points = points;
  }

  get all(): readonly Point[] {
    return this.#points;
  }

  of(series: string): readonly Point[] {
    return this.#points.filter((point) => point.series === series);
  }

  at(series: string, x: number): Point | undefined {
    return this.of(series).find((point) => point.x === x);
  }

  /** A value for each point of a series; undefined leaves it out. */
  each(series: string, value: (point: Point) => number | undefined): Judged['values'] {
    return this.of(series).flatMap((point) => valueAt(point, value(point)));
  }
}

function valueAt({ series, x }: Point, value: number | null | undefined): Judged['values'] {
  return value == null ? [] : [{ at: `${series}, ${x}`, value }];
}

/** What its bytes take at the rate of the source's line. */
export const lineMs = ({ imageBytes, lineBytesPerS }: Point) => (imageBytes / lineBytesPerS) * 1000;

function judge(figure: number, group: Group): Judged[] {
  if (figure === 3 || figure === 4)
    return [...pressure(group), ...(figure === 4 ? againstPreCopy(group) : []), downtime(group)];
  if (figure === 5) return [...gangs(group), downtime(group)];
  if (figure === 6) return [...steps(group), downtime(group)];
  if (figure === 8) return [...faults(group), downtime(group)];
  if (figure === 9) return [share(group), downtime(group)];
  return [downtime(group)];
}

function pressure(group: Group): Judged[] {
  const raw = group.of('ours, raw');
  const exits = raw.map(({ exitTimeMs }) => exitTimeMs);
  const apart = (Math.max(...exits) - Math.min(...exits)) / Math.min(...exits);
  const ownTotal = (content: string) =>
    group.each(`ours, ${content}`, ({ x, totalMigrationTimeMs }) => {
      const direct = ['post-copy', 'pre-copy'].map((mode) => group.at(`direct ${mode}, ${content}`, x));
      const best = Math.min(...direct.map((point) => point?.totalMigrationTimeMs ?? Number.POSITIVE_INFINITY));
      return direct.every(Boolean) ? totalMigrationTimeMs / best : undefined;
    });
  return [
    {
      promise: 'exit, raw, by its bytes at line rate',
      limit: 1.03,
      values: group.each('ours, raw', (point) => point.exitTimeMs / lineMs(point)),
    },
    {
      promise: 'exits, raw, lie apart',
      limit: 0.03,
      values: raw.length > 1 ? [{ at: raw.map(({ x }) => x).join(', '), value: apart }] : [],
    },
    {
      promise: 'exit, mix, by its bytes at line rate',
      limit: 0.33,
      values: group.each('ours, mix', (point) => point.exitTimeMs / lineMs(point)),
    },
    {
      promise: 'total by the better direct migration with the same compression',
      limit: 1.05,
      values: [...ownTotal('raw'), ...ownTotal('mix')],
    },
    {
      promise: 'exit of direct post-copy with the same compression by ours, at 1/6.5',
      limit: 6,
      atLeast: true,
      values: ['raw', 'mix'].flatMap((content) =>
        times(group.at(`direct post-copy, ${content}`, WORST), group.at(`ours, ${content}`, WORST)),
      ),
    },
  ];
}

/** How many times as long the exit of `other` takes. */
function times(other: Point | undefined, ours: Point | undefined): Judged['values'] {
  return other && ours ? valueAt(ours, other.exitTimeMs / ours.exitTimeMs) : [];
}

function againstPreCopy(group: Group): Judged[] {
  return [
    {
      promise: 'exit of plain direct pre-copy by ours, at 1/6.5',
      limit: 12,
      atLeast: true,
      values: [
        // Random bytes travel as they are.
        ...times(group.at('direct pre-copy, raw', WORST), group.at('ours, raw', WORST)),
        ...times(group.at('direct pre-copy, mix, plain', WORST), group.at('ours, mix', WORST)),
      ],
    },
  ];
}

function gangs(group: Group): Judged[] {
  const one = group.at('ours', 1);
  const together = group.at('ours, in common', GANG);
  return [
    {
      promise: 'exit by that of one guest, a guest',
      limit: 1.05,
      values: one
        ? group.each('ours', ({ x, exitTimeMs }) => (x > 1 ? exitTimeMs / (x * one.exitTimeMs) : undefined))
        : [],
    },
    {
      promise: 'exit of five that have pages in common, by five times that of one',
      limit: 0.55,
      values: one && together ? valueAt(together, together.exitTimeMs / (GANG * one.exitTimeMs)) : [],
    },
  ];
}

function steps(group: Group): Judged[] {
  return [
    {
      promise: 'exit over four intermediates by its bytes at line rate',
      limit: 1.05,
      values: group.each('ours', (point) => (point.x === 4 ? point.exitTimeMs / lineMs(point) : undefined)),
    },
    {
      promise: 'exit by what the links allow',
      limit: 1.1,
      values: group.each('ours', (point) => point.exitTimeMs / allowedMs(point)),
    },
  ];
}

/** What its bytes take over all links together: the source's, or those that it sends to if these carry less. */
export function allowedMs(point: Point): number {
  const { source, nodes, destination } = point.setting;
  const receiving = nodes.reduce((sum, bitsPerS) => sum + bitsPerS, destination);
  return lineMs(point) * Math.max(1, source / receiving);
}

function faults(group: Group): Judged[] {
  const figures = (value: (point: Point) => number | undefined) =>
    ['idle', 'busy'].flatMap((series) => group.each(series, value));
  return [
    { promise: 'milliseconds of a fault, 99 of 100', limit: 20, values: figures(({ faults }) => faults?.p99Ms) },
    { promise: 'milliseconds of a fault, all', limit: 200, values: figures(({ faults }) => faults?.maxMs) },
    {
      promise: 'operations of the busy guest by those undisturbed',
      limit: 0.6,
      atLeast: true,
      values: group.each('busy', ({ guestShare }) => guestShare ?? undefined),
    },
  ];
}

function share(group: Group): Judged {
  return {
    promise: 'operations of the busy guest by those undisturbed',
    limit: 0.6,
    atLeast: true,
    values: group.each('ours, post-copy', ({ guestShare }) => guestShare ?? undefined),
  };
}

function downtime({ all }: Group): Judged {
  return {
    promise: 'milliseconds that a guest stands still in post-copy',
    limit: DOWNTIME_MS,
    values: all.flatMap((point) =>
      point.setting.mode === 'post-copy' ? valueAt(point, point.spread.downtimeMs?.max) : [],
    ),
  };
}
