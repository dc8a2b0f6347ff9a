// Points as plots: SVG, made by vega-lite, without a browser. What the original measured is drawn beside it with dots, as long as it would have taken for
// memory of this size over this link.
import * as vega from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import type { Figure, TimeMeasure } from './figures.js';
import { CURVES, scaleOf } from './paper.js';
import type { Point } from './point.js';
import { allowedMs, lineMs } from './promises.js';

const WIDTH = 430;
const HEIGHT = 300;

const TITLES: Readonly<Record<TimeMeasure, string>> = {
  exitTimeMs: 'exit time, s',
  totalMigrationTimeMs: 'total migration time, s',
};

const LINE = 'its bytes at line rate';
const ALLOWED = 'what the links allow';

/** How a series looks: its colour says how it travels, and its line whose it is. */
export function styleOf(series: string): { readonly color: string; readonly dash: readonly number[] } {
  const original = series.startsWith('original');
  const dash = original ? [1, 3] : /plain/.test(series) ? [8, 4] : [];
  const light = /mix|in common|deduplicated|idle/.test(series);
  if (series === LINE || series === ALLOWED) return { color: '#888888', dash: [2, 2] };
  if (/pre-copy/.test(series)) return { color: light ? '#e7969c' : '#ad2f38', dash };
  if (/direct post-copy|original post-copy/.test(series)) return { color: light ? '#e6b566' : '#b97a10', dash };
  return { color: light ? '#6fa8dc' : '#1f5fa8', dash };
}

/** One plot: points of one figure, of one size, over one link. */
export async function plot(figure: Figure, points: readonly Point[]): Promise<string> {
  const { spec } = compile(specOf(figure, points));
  const view = new vega.View(vega.parse(spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

function specOf(figure: Figure, points: readonly Point[]): TopLevelSpec {
  if (figure.shows === 'faults') return faultSpec(points);
  return figure.shows === 'timeline' ? timelineSpec(points) : timeSpec(figure, points);
}

interface Row {
  readonly series: string;
  readonly x: number;
  readonly y: number;
  /** Of the runs; absent where it is not ours. */
  readonly low?: number;
  readonly high?: number;
}

/** What is plotted of a figure that shows times, in seconds. */
export function rowsOf(figure: number, measure: TimeMeasure, points: readonly Point[]): Row[] {
  const measured = points.map((point): Row => {
    const { series, x, spread } = point;
    const { min, max } = spread[measure]!;
    return { series, x, y: point[measure] / 1000, low: min / 1000, high: max / 1000 };
  });
  const scale = scaleOf(points[0]!.setting.vmBytes, points[0]!.setting.source);
  const original = CURVES.filter((curve) => curve.figure === figure && curve.measures.includes(measure)).flatMap(
    ({ series, points }) => points.map(({ x, seconds }): Row => ({ series, x, y: seconds * scale })),
  );
  return [...measured, ...original, ...(measure === 'exitTimeMs' ? limits(figure, points) : [])];
}

/** As fast as it could be: over the source's link, and where the others are slow, over those. */
function limits(figure: number, points: readonly Point[]): Row[] {
  const byX = new Map(points.map((point) => [point.x, point]));
  return [...byX].flatMap(([x, point]) => {
    const line = { series: LINE, x, y: lineMs(point) / 1000 };
    return figure === 6 ? [line, { series: ALLOWED, x, y: allowedMs(point) / 1000 }] : [line];
  });
}

function legend(rows: readonly { readonly series: string }[]) {
  const domain = [...new Set(rows.map(({ series }) => series))];
  const styles = domain.map(styleOf);
  const scale = <T>(range: T[]) => ({ domain, range });
  const look = { title: null, orient: 'right', symbolType: 'stroke', symbolSize: 500, labelLimit: 260 } as const;
  return {
    color: { field: 'series', type: 'nominal', scale: scale(styles.map(({ color }) => color)), legend: look },
    strokeDash: { field: 'series', type: 'nominal', scale: scale(styles.map(({ dash }) => [...dash])), legend: look },
  } as const;
}

const CONFIG = {
  $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
  background: 'white',
  config: {
    font: 'system-ui, sans-serif',
    view: { stroke: '#bbbbbb' },
    axis: { gridColor: '#eeeeee', titleFontWeight: 'normal' },
    legend: { labelFontSize: 11 },
  },
} as const;

function timeSpec({ figure, x, xs, measures }: Figure, points: readonly Point[]): TopLevelSpec {
  const panels = measures.map((measure) => ({ measure, rows: rowsOf(figure, measure, points) }));
  const look = legend(panels.flatMap(({ rows }) => rows));
  const ratio = figure === 3 || figure === 4;
  const axis = {
    values: [...xs],
    title: x,
    // A slower destination has a larger x: 6.5 is 1/6.5.
    ...(ratio && { labelExpr: "datum.value === 1 ? '1' : '1/' + datum.value" }),
    ...(!ratio && { format: 'd' }),
  };
  return {
    ...CONFIG,
    hconcat: panels.map(({ measure, rows }) => ({
      width: WIDTH,
      height: HEIGHT,
      data: { values: rows },
      encoding: {
        x: { field: 'x', type: 'quantitative', axis, scale: { zero: false, nice: false, padding: 12 } },
        ...look,
      },
      layer: [
        {
          mark: { type: 'line' },
          encoding: {
            y: { field: 'y', type: 'quantitative', title: TITLES[measure], scale: { type: scaleOfY(figure) } },
          },
        },
        {
          mark: { type: 'point', filled: true, size: 22 },
          encoding: { y: { field: 'y', type: 'quantitative' }, strokeDash: { value: [] } },
        },
        {
          transform: [{ filter: 'isValid(datum.low)' }],
          mark: { type: 'rule', strokeWidth: 1 },
          encoding: {
            y: { field: 'low', type: 'quantitative' },
            y2: { field: 'high' },
            strokeDash: { value: [] },
          },
        },
      ],
    })),
    resolve: { scale: { color: 'shared', strokeDash: 'shared' } },
  } as TopLevelSpec;
}

/** From seconds to minutes where destinations are slow: only their ratios can be seen beside each other. */
function scaleOfY(figure: number): 'log' | 'linear' {
  return figure === 5 || figure === 7 ? 'linear' : 'log';
}

function faultSpec(points: readonly Point[]): TopLevelSpec {
  const rows = points.flatMap(({ series, faults }) =>
    (faults?.quantiles ?? []).map(([share, ms]) => ({ series, share, ms: Math.max(ms, 0.1) })),
  );
  return {
    ...CONFIG,
    width: WIDTH,
    height: HEIGHT,
    data: { values: rows },
    mark: { type: 'line', interpolate: 'step-after' },
    encoding: {
      x: { field: 'ms', type: 'quantitative', scale: { type: 'log' }, title: 'milliseconds until the page was there' },
      y: { field: 'share', type: 'quantitative', axis: { format: '%' }, title: 'share of faults' },
      ...legend(rows),
    },
  } as TopLevelSpec;
}

function timelineSpec(points: readonly Point[]): TopLevelSpec {
  const rows = points.flatMap(({ series, timeline = [] }) =>
    timeline.map(({ atS, operationsPerS }) => ({ series, atS, operationsPerS })),
  );
  return {
    ...CONFIG,
    width: 2 * WIDTH,
    height: HEIGHT,
    data: { values: rows },
    mark: { type: 'line', strokeWidth: 1.3 },
    encoding: {
      x: { field: 'atS', type: 'quantitative', title: 'seconds since the migration began' },
      y: { field: 'operationsPerS', type: 'quantitative', title: 'operations a second' },
      ...legend(rows),
    },
  } as TopLevelSpec;
}
