// The figures: what is asked for, what is worked out from runs, what is promised of it, and how it is drawn. One small run of all of it where there is root.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FIGURES, pointsOf } from '../../bench/figures/figures.js';
import { ratePerS, timelineOf } from '../../bench/figures/guests.js';
import { parseOptions } from '../../bench/figures/options.js';
import { CURVES, scaleOf } from '../../bench/figures/paper.js';
import { plot, rowsOf } from '../../bench/figures/plots.js';
import { type Planned, type Point, pointOf, spreadOf, type Took } from '../../bench/figures/point.js';
import { promisesOf } from '../../bench/figures/promises.js';
import { renderReport } from '../../bench/figures/report.js';
import {
  describeMachine,
  type Invocation,
  mergeResults,
  pointsIn,
  readResults,
  writeResults,
} from '../../bench/figures/results.js';
import { unavailable } from '../../bench/network/namespaces.js';
import { tempDir } from '../host/temp.js';
import { skipped } from '../skipped.js';

const SIZE = { vmBytes: 2 ** 30, bitsPerS: 1e9 };
const ALL = { figures: [], points: null, series: null, smoke: false };
const LINE = 119.5e6;
const figure = (number: number) => FIGURES.find((one) => one.figure === number)!;

function took(exitTimeMs: number, more: Partial<Took> = {}): Took {
  return {
    exitTimeMs,
    totalMigrationTimeMs: exitTimeMs,
    wireBytes: 2 ** 30,
    downtimeMs: 20,
    guestShare: null,
    faultMs: [],
    timeline: [],
    ...more,
  };
}

/** A point of figure `number` whose runs took this. */
function made(number: number, series: string, x: number, runs: readonly Took[], size = SIZE): Point {
  const planned = pointsOf(figure(number), size, ALL).find((one) => one.series === series && one.x === x);
  return pointOf(planned!, runs, LINE, figure(number).shows);
}

/** As good as the network allows: `times` says what takes longer than that. */
function ideal({ figure: number, series, x, setting }: Planned, times = 1): Point {
  const wire = setting.vms * (1 - setting.common) + setting.common;
  const ratio = setting.content === 'random' ? 1 : setting.compress === 'lz4' ? 0.31 : 0.6;
  const bytes = wire * ratio * setting.vmBytes;
  const receiving = setting.nodes.reduce((sum, bitsPerS) => sum + bitsPerS, setting.destination);
  const [exitMs, totalMs] = [Math.min(setting.source, receiving), Math.min(setting.source, setting.destination)].map(
    (bitsPerS) => (bytes / (LINE * (bitsPerS / setting.source))) * 1000,
  );
  const again = setting.mode === 'pre-copy' && setting.load.name === 'busy' ? 2.6 : 1;
  const busy = setting.load.operationsPerS > 0;
  const run = (i: number): Took => ({
    exitTimeMs: exitMs! * again * times * (1 + (i - 2.5) / 400),
    totalMigrationTimeMs: totalMs! * again * times * (1 + (i - 2.5) / 400),
    wireBytes: bytes * again,
    downtimeMs: 12 + i,
    guestShare: busy ? 0.8 : null,
    faultMs: busy ? Array.from({ length: 200 }, (_, n) => 2 + n / 20) : [],
    timeline: Array.from({ length: 40 }, (_, n) => ({ atS: n - 3, operationsPerS: n < 3 ? 2000 : 1500 + n })),
  });
  return pointOf(
    { figure: number, series, x, setting },
    Array.from({ length: 6 }, (_, i) => run(i)),
    LINE,
    figure(number).shows,
  );
}

function invocation(points: readonly Point[], command = 'npm run figures'): Invocation {
  return { command, date: '2026-01-01T00:00:00.000Z', machine: describeMachine('cubic', 0.25), points };
}

const planned = (number: number) => pointsOf(figure(number), SIZE, ALL);
const everything = FIGURES.flatMap(({ figure }) => planned(figure).map((one) => ideal(one)));

describe('options', () => {
  test('say which points of which size', () => {
    expect(parseOptions([])).toMatchObject({
      wanted: { figures: [3, 4, 5, 6, 7, 8, 9], points: null, series: null, smoke: false },
      size: { vmBytes: 2 ** 30, bitsPerS: 1e9 },
      runs: 6,
      json: false,
      out: 'docs/figures',
      merge: false,
      report: null,
    });
    const some = parseOptions(['--only', '3,5', '--points', '1,6.5', '--size', '256M', '--link', '500', '--runs', '2']);
    expect(some).toMatchObject({
      wanted: { figures: [3, 5], points: [1, 6.5] },
      size: { vmBytes: 2 ** 28, bitsPerS: 5e8 },
      runs: 2,
    });
    const xs = FIGURES.filter(({ figure }) => some.wanted.figures.includes(figure)).flatMap((one) =>
      pointsOf(one, some.size, some.wanted).map(({ figure, x }) => `${figure}: ${x}`),
    );
    expect(new Set(xs)).toEqual(new Set(['3: 1', '3: 6.5', '5: 1']));
    const { wanted, size } = parseOptions(['--only', '5', '--series', 'ours', '--series', 'direct post-copy']);
    expect(new Set(pointsOf(figure(5), size, wanted).map(({ series }) => series))).toEqual(
      new Set(['ours', 'direct post-copy']),
    );
  });

  test('of --smoke: one small point of each figure, and no files unless asked for', () => {
    const { wanted, size, runs, out } = parseOptions(['--smoke']);
    expect({ runs, out }).toEqual({ runs: 1, out: null });
    const points = FIGURES.flatMap((one) => pointsOf(one, size, wanted));
    expect(points.map(({ figure }) => figure)).toEqual([3, 4, 5, 6, 7, 8, 9]);
    for (const { setting } of points) expect(setting.vmBytes).toBe(2 ** 23);
    expect(parseOptions(['--smoke', '--out', 'x']).out).toBe('x');
  });

  test.each([
    [['--only', '2'], /figure 2/],
    [['--only', '3,x'], /x/],
    [['--only', '7', '--points', '6.5'], /figure 7 has none/],
    [['--points', ''], /--points/],
    [['--only', '7', '--series', 'ours, raw'], /figure 7 has none of these series: it has "ours"/],
    [['--smoke', '--series', 'ours'], /--smoke/],
    [['--runs', '0'], /--runs 0/],
    [['--runs', '1.5'], /whole/],
    [['--size', '100K'], /64K/],
    [['--size', 'big'], /size/],
    [['--smoke', '--points', '1'], /--smoke/],
    [['--report', 'x', '--runs', '1'], /--report/],
    [['--speed', '1'], /speed/],
  ])('%j are refused', (args, message) => {
    expect(() => parseOptions(args)).toThrow(message);
  });
});

describe('points', () => {
  test('have the mean of their runs, and how far these lie apart', () => {
    expect(spreadOf([2, 4, 9])).toEqual({ sd: Math.sqrt(13), min: 2, max: 9 });
    expect(spreadOf([7])).toEqual({ sd: 0, min: 7, max: 7 });
    const lineMs = (2 ** 30 / LINE) * 1000;
    const point = made(3, 'ours, raw', 2, [took(lineMs, { downtimeMs: 10 }), took(lineMs / 0.5, { downtimeMs: 40 })]);
    expect(point).toMatchObject({ type: 'point', figure: 3, series: 'ours, raw', x: 2, runs: 2, imageBytes: 2 ** 30 });
    expect(point.exitTimeMs).toBeCloseTo(1.5 * lineMs);
    expect(point.lineRateFraction).toBeCloseTo(0.75);
    expect(point.downtimeMs).toBe(25);
    expect(point.spread.downtimeMs).toMatchObject({ min: 10, max: 40 });
    expect(point.guestShare).toBeNull();
    expect(point.faults).toBeNull();
  });

  test('count the faults of all runs together', () => {
    const faultMs = Array.from({ length: 99 }, () => 5);
    const point = made(8, 'busy', 5, [took(1, { faultMs }), took(1, { faultMs: [...faultMs, 50, 400] })]);
    expect(point.faults).toMatchObject({ count: 200, p50Ms: 5, maxMs: 400 });
    expect(point.faults!.quantiles!.at(-1)).toEqual([1, 400]);
    expect(made(4, 'ours, raw', 1, [took(1, { faultMs })]).faults).not.toHaveProperty('quantiles');
  });

  test('show the run in the middle, not the best one', () => {
    const runs = [0.9, 0.2, 0.7].map((guestShare, i) =>
      took(1, { guestShare, timeline: [{ atS: 0, operationsPerS: i }] }),
    );
    const point = made(9, 'ours, post-copy', 5, runs);
    expect(point.timeline).toEqual([{ atS: 0, operationsPerS: 2 }]);
    expect(point.guestShare).toBeCloseTo(0.6);
    expect(made(4, 'ours, raw', 1, runs)).not.toHaveProperty('timeline');
  });
});

describe('guests', () => {
  const one = (atMs: number, operations: number) => ({ atMs, ms: 250, operations, faultMs: [] });

  test('are counted from moment to moment', () => {
    const all = [one(1250, 100), one(1500, 50), one(2000, 10)];
    expect(ratePerS(all, 1000, 1500)).toBeCloseTo(300);
    expect(ratePerS(all, 1125, 1375)).toBeCloseTo((50 + 25) / 0.25);
    // It stood still from 1500 to 1750, which counts.
    expect(ratePerS(all, 1500, 2000)).toBeCloseTo(20);
    expect(timelineOf([one(2000, 10), one(1250, 100)], 1000)).toEqual([
      { atS: 0.125, operationsPerS: 400 },
      { atS: 0.875, operationsPerS: 40 },
    ]);
  });
});

describe('promises', () => {
  const verdicts = (points: readonly Point[]) =>
    Object.fromEntries(promisesOf(points).map(({ figure, promise, holds }) => [`${figure} ${promise}`, holds]));

  test('hold where all is as fast as the links', () => {
    const found = promisesOf(everything);
    expect(found.filter(({ holds }) => !holds)).toEqual([]);
    expect(new Set(found.map(({ figure }) => figure))).toEqual(new Set([3, 4, 5, 6, 7, 8, 9]));
    expect(found.length).toBe(5 + 1 + 6 + 1 + 2 + 1 + 2 + 1 + 1 + 3 + 1 + 1 + 1);
  });

  test('do not where a single point is not', () => {
    const slower = (is: (one: Planned) => boolean, times: number) =>
      FIGURES.flatMap(({ figure }) => planned(figure).map((one) => ideal(one, is(one) ? times : 1)));
    const broken = (points: readonly Point[]) =>
      Object.entries(verdicts(points)).flatMap(([promise, holds]) => (holds ? [] : [promise]));
    const at = (figure: number, series: string, x: number) => (one: Planned) =>
      one.figure === figure && one.series === series && one.x === x;
    expect(broken(slower(at(3, 'ours, raw', 4), 1.04))).toEqual([
      '3 exit, raw, by its bytes at line rate',
      '3 exits, raw, lie apart',
    ]);
    expect(broken(slower(at(4, 'ours, mix', 1), 1.1))).toEqual([
      '4 exit, mix, by its bytes at line rate',
      '4 total by the better direct migration with the same compression',
    ]);
    expect(broken(slower(at(4, 'direct pre-copy, mix, plain', 6.5), 0.2))).toEqual([
      '4 exit of plain direct pre-copy by ours, at 1/6.5',
    ]);
    expect(broken(slower(at(3, 'direct post-copy, mix', 6.5), 0.9))).toEqual([
      '3 total by the better direct migration with the same compression',
      '3 exit of direct post-copy with the same compression by ours, at 1/6.5',
    ]);
    expect(broken(slower(at(5, 'ours', 4), 1.06))).toEqual(['5 exit by that of one guest, a guest']);
    expect(broken(slower(at(5, 'ours, in common', 5), 1.1))).toEqual([
      '5 exit of five that have pages in common, by five times that of one',
    ]);
    expect(broken(slower(at(6, 'ours', 2), 1.11))).toEqual(['6 exit by what the links allow']);
  });

  test('of a guest are about its worst run, its faults, and how much it still does', () => {
    const faultMs = [...Array.from({ length: 98 }, () => 5), 25, 210];
    const points = [
      made(8, 'busy', 5, [took(1, { faultMs, guestShare: 0.59, downtimeMs: 10 }), took(1, { downtimeMs: 101 })]),
      made(9, 'ours, post-copy', 5, [took(1, { guestShare: 0.5 })]),
      // No promise is made of it.
      made(9, 'direct pre-copy', 5, [took(1, { guestShare: 0.1, downtimeMs: 300 })]),
    ];
    expect(promisesOf(points).map(({ figure, value, at, holds }) => [figure, value, at, holds])).toEqual([
      [8, expect.closeTo(26.85), 'busy, 5', false],
      [8, 210, 'busy, 5', false],
      [8, 0.59, 'busy, 5', false],
      [8, 101, 'busy, 5', false],
      [9, 0.5, 'ours, post-copy, 5', false],
      [9, 20, 'ours, post-copy, 5', true],
    ]);
  });

  test('are about one size each, and only about what was measured', () => {
    const small = made(3, 'ours, raw', 1, [took(1)], { vmBytes: 2 ** 20, bitsPerS: 1e9 });
    const promises = promisesOf([small, made(3, 'ours, raw', 1, [took(10_000)])]);
    expect(promises.map(({ promise, vmBytes, holds }) => [promise, vmBytes, holds])).toEqual([
      ['exit, raw, by its bytes at line rate', 2 ** 30, false],
      ['milliseconds that a guest stands still in post-copy', 2 ** 30, true],
      ['exit, raw, by its bytes at line rate', 2 ** 20, true],
      ['milliseconds that a guest stands still in post-copy', 2 ** 20, true],
    ]);
  });
});

describe('results', () => {
  test('are written and read, with what is promised beside them', () => {
    const path = join(tempDir(), 'results.json');
    const results = { invocations: [invocation(everything)] };
    writeResults(path, results);
    expect(readResults(path)).toEqual(JSON.parse(JSON.stringify(results)));
    expect(JSON.parse(readFileSync(path, 'utf8')).promises).toEqual(JSON.parse(JSON.stringify(promisesOf(everything))));
    writeFileSync(path, '{}');
    expect(() => readResults(path)).toThrow(/not written by/);
  });

  test('of several commands are merged: a point that was measured anew takes the old one’s place', () => {
    const before = { invocations: [invocation(everything, 'before')] };
    const anew = made(3, 'ours, raw', 1, [took(1)]);
    const larger = made(3, 'ours, raw', 1, [took(2)], { vmBytes: 2 ** 31, bitsPerS: 1e9 });
    const merged = mergeResults(before, invocation([anew, larger], 'after'));
    expect(merged.invocations.map(({ command }) => command)).toEqual(['before', 'after']);
    expect(pointsIn(merged).length).toBe(everything.length + 1);
    const same = pointsIn(merged).filter(({ figure, series, x }) => figure === 3 && series === 'ours, raw' && x === 1);
    expect(same).toEqual([anew, larger]);
    // Another size, or another link, is another point.
    const slower = made(3, 'ours, raw', 1, [took(2)], { vmBytes: 2 ** 30, bitsPerS: 1e8 });
    expect(pointsIn(mergeResults(before, invocation([larger, slower]))).length).toBe(everything.length + 2);
    // What has nothing left is gone.
    const again = mergeResults({ invocations: [invocation([anew], 'old')] }, invocation([anew], 'new'));
    expect(again.invocations.map(({ command }) => command)).toEqual(['new']);
  });
});

describe('plots', () => {
  test('have the original beside ours, by size and link', () => {
    expect(scaleOf(5 * 2 ** 30, 1e9)).toBe(1);
    expect(scaleOf(2 ** 30, 5e8)).toBeCloseTo(0.4);
    const points = everything.filter(({ figure }) => figure === 3);
    const exits = rowsOf(3, 'exitTimeMs', points);
    const originalAt = (rows: readonly { series: string; x: number; y: number }[], series: string, x: number) =>
      rows.filter((row) => row.series === series && row.x === x).map(({ y }) => y * 5);
    expect(originalAt(exits, 'original pre-copy', 6.5)).toEqual([expect.closeTo(328)]);
    expect(originalAt(exits, 'original', 1)).toEqual([expect.closeTo(49.3)]);
    expect(originalAt(rowsOf(3, 'totalMigrationTimeMs', points), 'original', 6.5)).toEqual([expect.closeTo(359)]);
    const own = points.find(({ series, x }) => series === 'ours, mix' && x === 3)!;
    expect(exits).toContainEqual({
      series: 'ours, mix',
      x: 3,
      y: own.exitTimeMs / 1000,
      low: own.spread.exitTimeMs!.min / 1000,
      high: own.spread.exitTimeMs!.max / 1000,
    });
    for (const { figure: number, points } of CURVES) for (const { x } of points) expect(figure(number).xs).toContain(x);
  });

  test.each(FIGURES.map(({ figure }) => figure))('of figure %i are SVG, with every series', async (number) => {
    const points = everything.filter((point) => point.figure === number);
    const svg = await plot(figure(number), points);
    expect([svg.slice(0, 5), svg.slice(-6), /NaN|undefined/.exec(svg)]).toEqual(['<svg ', '</svg>', null]);
    const drawn = [...points, ...CURVES.filter((curve) => curve.figure === number)].map(({ series }) => series);
    expect(drawn.filter((series) => !svg.includes(`>${series}</text>`))).toEqual([]);
  });
});

test('the report is one file that needs nothing else', async () => {
  const smaller = made(3, 'ours, raw', 1, [took(9999)], { vmBytes: 2 ** 28, bitsPerS: 1e9 });
  const html = await renderReport({
    invocations: [invocation(everything, 'npm run figures -- --out <here>'), invocation([smaller])],
  });
  expect(/<script|<link|<img|@import|url\(http|src=/.exec(html)).toBeNull();
  expect([...html.matchAll(/<svg /g)].length).toBe(FIGURES.length + 1);
  const words = [
    'npm run figures -- --out &lt;here&gt;',
    'congestion control cubic, a load of 0.25',
    'multiplied by 0.200',
    'Guests of 256 MiB',
    'DOES NOT HOLD',
  ];
  expect(words.filter((word) => !html.includes(word))).toEqual([]);
});

describe('npm run figures', () => {
  const MAIN = fileURLToPath(new URL('../../dist-bench/figures/main.js', import.meta.url));

  /** Starts it with a place of its own for what it writes, so that what it leaves behind can be seen. */
  function start(...args: string[]) {
    const temp = tempDir();
    const child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: temp },
    });
    onTestFinished(() => void child.kill('SIGTERM'));
    const said = { stdout: '', stderr: '' };
    for (const from of ['stdout', 'stderr'] as const)
      child[from].setEncoding('utf8').on('data', (text: string) => {
        said[from] += text;
      });
    return { child, said, temp, ended: once(child, 'close') };
  }

  /** Namespaces, files in memory, logs and processes of a run that has ended. */
  function leftBehind(pid: number, temp: string): string[] {
    const spaces = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }).split('\n');
    const shared = readdirSync('/dev/shm').filter((name) => name.startsWith(`abdm-figures-${pid}-`));
    const commands = readdirSync('/proc').flatMap((name) => {
      const path = `/proc/${name}/cmdline`;
      return /^\d+$/.test(name) && existsSync(path) ? [readFileSync(path, 'utf8').replaceAll('\0', ' ')] : [];
    });
    return [
      ...spaces.filter((name) => name.startsWith(`abdm-${pid}-`)),
      ...shared,
      ...readdirSync(temp),
      ...commands.filter((command) => command.includes(`/dev/shm/abdm-figures-${pid}-`)),
    ];
  }

  test('--smoke: a live point of each figure', { timeout: 300_000 }, async ({ skip }) => {
    const reason = unavailable();
    if (reason) return skipped(skip, reason);
    const out = tempDir();
    const { child, said, temp, ended } = start('--smoke', '--json', '--out', out);
    await ended;
    expect(child.exitCode, said.stderr).toBe(0);
    const lines = said.stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const points = lines.filter(({ type }) => type === 'point') as unknown as Point[];
    expect(points.map(({ figure }) => figure)).toEqual([3, 4, 5, 6, 7, 8, 9]);
    for (const point of points) {
      expect(point).toMatchObject({ runs: 1, series: expect.any(String), x: expect.any(Number) });
      for (const ms of [point.exitTimeMs, point.totalMigrationTimeMs, point.lineRateFraction, point.wireBytes])
        expect(ms).toBeGreaterThan(0);
    }
    const at = (figure: number) => points.find((point) => point.figure === figure)!;
    // Random bytes travel whole, the mix in less (what the guest wrote is no duplicate any more); and a destination of 1/6.5 is left before it has all.
    expect(at(3).wireBytes).toBeGreaterThan(at(3).imageBytes);
    expect(at(4).wireBytes).toBeLessThan(0.7 * at(4).imageBytes);
    expect(at(3).totalMigrationTimeMs).toBeGreaterThan(at(3).exitTimeMs);
    expect(at(8).faults!.count).toBeGreaterThan(0);
    expect(at(9).timeline!.length).toBeGreaterThan(5);
    expect(lines.length).toBe(points.length);
    expect(readResults(join(out, 'results.json')).invocations[0]!.points).toEqual(points);
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('</html>');
    expect(leftBehind(child.pid!, temp)).toEqual([]);
  });

  test('leaves nothing behind when it is interrupted', { timeout: 120_000 }, async ({ skip }) => {
    const reason = unavailable();
    if (reason) return skipped(skip, reason);
    const { child, said, temp, ended } = start('--smoke', '--only', '3', '--runs', '9');
    await new Promise<void>((resolve) => child.stderr.on('data', () => said.stderr.includes('run 1:') && resolve()));
    // In the middle of the second run.
    await sleep(2000);
    child.kill('SIGINT');
    await ended;
    expect(child.exitCode, said.stderr).toBe(1);
    // Those who were killed are gone a moment later.
    await expect.poll(() => leftBehind(child.pid!, temp), { timeout: 5000 }).toEqual([]);
  });

  test('draws what was measured anew', async () => {
    const path = join(tempDir(), 'results.json');
    writeResults(path, { invocations: [invocation(everything)] });
    const { child, said, ended } = start('--report', path);
    await ended;
    expect(child.exitCode, said.stderr).toBe(0);
    expect(readFileSync(join(path, '..', 'report.html'), 'utf8')).toBe(await renderReport(readResults(path)));
  });

  test('says what it can do when it is asked for something else', async () => {
    const { child, said, ended } = start('--only', '12');
    await ended;
    expect(child.exitCode).toBe(1);
    expect(said.stderr).toMatch(/no figure 12(.|\n)*usage:/);
  });
});
