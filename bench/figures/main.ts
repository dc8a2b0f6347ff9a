// npm run figures: the paper's figures, and what it did not measure: live guests, processes on hosts of their own, links of a known speed.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import { formatMs } from '#abdm/host/cli/sizes.js';
import { unavailable } from '../network/namespaces.js';
import { estimateS } from './estimate.js';
import { FIGURES, pointsOf } from './figures.js';
import { measure, measureLine } from './measure.js';
import { type Options, parseOptions, USAGE } from './options.js';
import { groupsOf, type Point } from './point.js';
import { type Promised, promisesOf } from './promises.js';
import { number, renderReport } from './report.js';
import {
  describeMachine,
  type Invocation,
  mergeResults,
  pointsIn,
  type Results,
  readResults,
  writeResults,
} from './results.js';
import { World } from './world.js';

const UNDISTURBED_MS = { full: 3000, smoke: 600 };
const LINE_TIMES = { full: 3, smoke: 1 };

/** As a shell takes it. */
const quoted = (arg: string) => (/[^\w.,:/=-]/.test(arg) ? `'${arg}'` : arg);
const say = (text: string) => void process.stderr.write(`${text}\n`);

function text(line: Point | Promised): string {
  if (line.type === 'promise') {
    const { promise, value, at, of, limit, atLeast, holds } = line;
    const verdict = holds ? 'holds' : 'DOES NOT HOLD';
    return `figure ${line.figure}  ${promise}: ${number(value)} (${at}; worst of ${of}), promised ${atLeast ? 'at least' : 'at most'} ${limit}: ${verdict}`;
  }
  const { figure, series, x, exitTimeMs, totalMigrationTimeMs, lineRateFraction, spread } = line;
  const s = (ms: number) => (ms / 1000).toFixed(2);
  const exit = `exit ${s(exitTimeMs)} s (${s(spread.exitTimeMs!.min)}-${s(spread.exitTimeMs!.max)})`;
  const total = `total ${s(totalMigrationTimeMs)} s`;
  return `figure ${figure}  ${series.padEnd(40)}${String(x).padEnd(5)}${exit.padEnd(30)}${total.padEnd(18)}line rate / exit ${lineRateFraction.toFixed(2)}`;
}

async function writeFiles(directory: string, results: Results): Promise<void> {
  mkdirSync(directory, { recursive: true });
  writeResults(join(directory, 'results.json'), results);
  writeFileSync(join(directory, 'report.html'), await renderReport(results));
}

async function runAll(options: Options, args: readonly string[]): Promise<void> {
  const { wanted, size, runs, json, out, merge } = options;
  const figures = FIGURES.filter(({ figure }) => wanted.figures.includes(figure));
  const planned = figures.map((figure) => ({ figure, points: pointsOf(figure, size, wanted) }));
  const settings = planned.flatMap(({ points }) => points.map(({ setting }) => setting));
  const before = out && merge && existsSync(join(out, 'results.json')) ? readResults(join(out, 'results.json')) : null;
  const world = new World();
  const seconds = settings.reduce((sum, setting) => sum + runs * estimateS(setting), 0);
  say(`${settings.length} points, ${runs} runs of each: about ${formatMs(seconds * 1000)}`);
  // Some seconds a gigabyte, where memory has to be brought back.
  world.takeRoom(settings);

  const pace = wanted.smoke ? 'smoke' : 'full';
  const loadBefore = loadavg()[0]!;
  const { bytesPerS, congestionControl } = await measureLine(size.bitsPerS, LINE_TIMES[pace]);
  const points: Point[] = [];
  const invocation: Invocation = {
    command: ['npm run figures', ...(args.length > 0 ? ['--', ...args.map(quoted)] : [])].join(' '),
    date: new Date().toISOString(),
    machine: describeMachine(congestionControl, loadBefore),
    points,
  };
  const print = (line: Point | Promised) => console.log(json ? JSON.stringify(line) : text(line));
  const course = { runs, undisturbedMs: UNDISTURBED_MS[pace], lineBytesPerS: bytesPerS, say };
  let results: Results = before ?? { invocations: [] };
  for (const { figure, points: ofFigure } of planned) {
    const measured = await measure(ofFigure, figure.shows, world, course);
    world.closeNetworks();
    for (const point of measured) print(point);
    points.push(...measured);
    results = mergeResults(before ?? { invocations: [] }, invocation);
    // What was measured before counts too, where it is of the same figure. Of guests as small as those of --smoke nothing is promised.
    const group = groupsOf(pointsIn(results)).filter((group) => group.some((point) => measured.includes(point)));
    if (!wanted.smoke) for (const promised of promisesOf(group.flat())) print(promised);
    if (out !== null) await writeFiles(out, results);
  }
  if (out !== null) say(`written: ${join(out, 'results.json')}, ${join(out, 'report.html')}`);
}

const args = process.argv.slice(2);
let options: Options;
try {
  options = parseOptions(args);
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
try {
  if (options.report !== null) {
    const directory = options.out ?? dirname(options.report);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'report.html'), await renderReport(readResults(options.report)));
  } else {
    const missing = unavailable();
    if (missing) throw new Error(`figures cannot be measured here: ${missing}`);
    await runAll(options, args);
  }
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
