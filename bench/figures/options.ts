// What can be said on the command line of `npm run figures`.
import { parseArgs } from 'node:util';
import { parseSize } from '#abdm/host/cli/sizes.js';
import { FIGURES, type Size, type Wanted } from './figures.js';

export const USAGE = `usage: npm run figures -- [--only 3,4,...] [--points X,...] [--series NAME ...] [--size 1G] [--link 1000] [--runs 6] [--json] [--out DIR] [--merge]
       npm run figures -- --smoke [--json]           one small point of each figure, in less than a minute; writes files with --out only
       npm run figures -- --report results.json      draws report.html beside it anew
  --only    figures ${FIGURES.map(({ figure }) => figure).join(', ')}
  --points  only these x: 1, 6.5 for a destination's link of 1 and 1/6.5, numbers of guests, of intermediates, of copies
  --series  only this one, by its name in the report; may be given more than once
  --size    memory of each guest      --link  of the source's card, in Mbit/s; all others in proportion
  --out     where results.json and report.html go (docs/figures)
  --merge   keeps what results.json has, but for the points that are measured anew`;

export interface Options {
  readonly wanted: Wanted;
  readonly size: Size;
  readonly runs: number;
  readonly json: boolean;
  /** Null: no files are written. */
  readonly out: string | null;
  readonly merge: boolean;
  /** Draw this anew; nothing is run. */
  readonly report: string | null;
}

const DEFAULT_OUT = 'docs/figures';
const SMOKE = { size: '8M', link: '200', runs: '1' };
const FULL = { size: '1G', link: '1000', runs: '6' };

/** @throws {Error} if there is anything that makes no sense. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      points: { type: 'string' },
      series: { type: 'string', multiple: true },
      size: { type: 'string' },
      link: { type: 'string' },
      runs: { type: 'string' },
      smoke: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
      merge: { type: 'boolean', default: false },
      report: { type: 'string' },
    },
  });
  const { only, points, series, smoke, json, out, merge, report } = values;
  if (smoke && (points ?? series) !== undefined)
    throw new Error('--smoke has points of its own: neither --points nor --series can go with it');
  const measuring = only ?? points ?? series ?? values.size ?? values.link ?? values.runs;
  if (report !== undefined && (measuring !== undefined || smoke || merge))
    throw new Error('--report draws what has been measured: only --out goes with it');
  const otherwise = smoke ? SMOKE : FULL;
  const wanted = {
    figures: only === undefined ? FIGURES.map(({ figure }) => figure) : numbers('--only', only),
    points: points === undefined ? null : numbers('--points', points),
    series: series ?? null,
    smoke,
  };
  const size = {
    vmBytes: wholePages(parseSize(values.size ?? otherwise.size)),
    bitsPerS: number('--link', values.link ?? otherwise.link) * 1e6,
  };
  check(wanted, size);
  return {
    wanted,
    size,
    runs: whole('--runs', values.runs ?? otherwise.runs),
    json,
    out: out ?? (smoke || report !== undefined ? null : DEFAULT_OUT),
    merge,
    report: report ?? null,
  };
}

function check({ figures, points, series }: Wanted, size: Size): void {
  for (const figure of figures) {
    const found = FIGURES.find((one) => one.figure === figure);
    if (!found) throw new Error(`there is no figure ${figure}: ${FIGURES.map((one) => one.figure).join(', ')}`);
    if (points && !found.xs.some((x) => points.includes(x)))
      throw new Error(`figure ${figure} has none of these points: it has ${found.xs.join(', ')}`);
    const names = found.series(size).map(({ name }) => name);
    if (series && !names.some((name) => series.includes(name)))
      throw new Error(
        `figure ${figure} has none of these series: it has ${names.map((name) => `"${name}"`).join(', ')}`,
      );
  }
}

/** Guests have whole extents of 16 pages. */
function wholePages(bytes: number): number {
  if (bytes % 65_536 !== 0) throw new Error('--size must be a multiple of 64K');
  return bytes;
}

function numbers(name: string, text: string): number[] {
  return text.split(',').map((one) => number(name, one, 0));
}

function number(name: string, text: string, least = 1): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= least && value < Number.POSITIVE_INFINITY))
    throw new Error(`${name} ${text}: no such number is possible`);
  return value;
}

function whole(name: string, text: string): number {
  const value = number(name, text);
  if (!Number.isInteger(value)) throw new Error(`${name} ${text}: it must be a whole number`);
  return value;
}
