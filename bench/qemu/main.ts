// npm run qemu: unmodified QEMU guests leave a host, by QEMU itself and by abdm, in turn over the same links.
import { availableParallelism, cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { parseSize } from '#abdm/host/cli/sizes.js';
import { keepMemory } from '../reservoir.js';
import type { OurMode } from './ours.js';
import { prepare } from './prepare.js';
import { type Line, measureRow, ROWS, type RowName } from './rows.js';

const USAGE = `usage: npm run qemu -- [--only ${ROWS.join(',')}] [--mode MODE,...] [--limit 50MB] [--runs 6] [--size 512M] [--noise] [--seed N] [--json]`;
const MODES: readonly OurMode[] = ['post-copy', 'pre-copy', 'hybrid', 'stop'];
const SMALLEST = 192 * 2 ** 20;
/** What a run takes of memory, in guests: two here, two there, as much in abdm's roles, and what the kernel has of sockets. */
const RUN_MEMORY = 8;

interface Wanted {
  readonly rows: readonly RowName[];
  readonly modes: readonly OurMode[];
  readonly limitBytesPerS: number;
  readonly runs: number;
  readonly guestBytes: number;
  readonly noise: boolean;
  readonly seed: number;
  readonly json: boolean;
}

function named<T extends string>(text: string | undefined, all: readonly T[], what: string): readonly T[] {
  const names = (text?.split(',') ?? all) as T[];
  const unknown = names.find((name) => !all.includes(name));
  if (unknown) throw new Error(`no ${what} is called ${unknown}`);
  return names;
}

function parse(): Wanted {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      mode: { type: 'string' },
      limit: { type: 'string', default: '50MB' },
      runs: { type: 'string', default: '6' },
      size: { type: 'string', default: '512M' },
      noise: { type: 'boolean', default: false },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  });
  const [runs, seed, guestBytes] = [Number(values.runs), Number(values.seed), parseSize(values.size)];
  if (!Number.isSafeInteger(runs) || runs < 1) throw new Error('--runs: at least 1');
  if (!Number.isSafeInteger(seed)) throw new Error('--seed: a whole number');
  if (guestBytes < SMALLEST || guestBytes % 2 ** 20 !== 0) throw new Error('--size: at least 192M, in whole MiB');
  return {
    rows: named(values.only, ROWS, 'row'),
    modes: named(values.mode, MODES, 'mode'),
    limitBytesPerS: parseSize(values.limit),
    ...{ runs, seed, guestBytes },
    noise: values.noise,
    json: values.json,
  };
}

function text(line: Line): string {
  const { row, point, runs, figures, verifyOk, streamRight, promises, wrong } = line;
  const ms = ({ low, median, high }: { low: number; median: number; high: number }) =>
    `${Math.round(median)} (${Math.round(low)}-${Math.round(high)})`;
  const { exitMs, totalMs, downtimeMs, stallMs, silenceMs, wireBytes, streamSilenceMs } = figures;
  const stream = streamRight === null ? '' : `  stream silent ${ms(streamSilenceMs)}, right ${streamRight} of ${runs}`;
  const head = `${row.padEnd(10)}${point.padEnd(18)}exit ${ms(exitMs)}  total ${ms(totalMs)}  down ${ms(downtimeMs)}  stall ${ms(stallMs)}  silent ${ms(silenceMs)} ms  ${(wireBytes.median / 1e6).toFixed(0)} MB${stream}  VERIFY OK ${verifyOk} of ${runs}`;
  const judged = promises.map(({ promise, value, most, least, holds }) => {
    const limit = most !== null ? `at most ${most}` : `at least ${least}`;
    return `    ${promise}: ${value.toFixed(2)}, promised ${limit}: ${holds ? 'holds' : 'DOES NOT HOLD'}`;
  });
  return [head, ...judged, ...wrong.slice(0, 5).map((what) => `    ${what}`)].join('\n');
}

let wanted: Wanted;
try {
  wanted = parse();
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
try {
  const { json, rows, ...how } = wanted;
  const plan = { ...how, scene: prepare(), say: (line: string) => void process.stderr.write(`${line}\n`) };
  keepMemory(RUN_MEMORY * how.guestBytes);
  const cpu = cpus()[0]?.model.trim() ?? 'unknown';
  const [cores, system] = [availableParallelism(), `${process.platform} ${release()}`];
  const machine = { type: 'machine', cpu, cores, system, node: process.version, ...how };
  console.log(json ? JSON.stringify(machine) : `${cpu}, ${cores} cores, ${system}, Node ${process.version}`);
  for (const row of rows) {
    for (const line of await measureRow(row, plan)) {
      if (json) console.log(JSON.stringify(line));
      else if (line.type === 'qemu') console.log(text(line));
      else console.log(`control   ${line.control.padEnd(18)}${line.isFound ? 'found' : 'NOT FOUND'}`);
      if (line.type === 'control' ? !line.isFound : line.promises.some(({ holds }) => !holds)) process.exitCode = 1;
    }
  }
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
