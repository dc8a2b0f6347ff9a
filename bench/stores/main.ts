// npm run bench:stores: what it costs us, on our side of the socket, that frames are kept at Valkey, Redis or memcached, against a node of ours on the same
// links. Every figure is of a parked VM that is taken in when its source has ended, so that all frames pass the store; sides take turns in every round.
// Pages are not compressed, so that what is done with frames weighs as much as it can.
//
// A process that starts costs what it costs: CPU figures are what a large image takes beyond a tiny one.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeMix } from '../mix.js';
import { Network, unavailable } from '../network/namespaces.js';
import { type Spread, spread } from '../statistics.js';
import { journey, SIDES, type Side } from './journey.js';
import { has } from './servers.js';

const USAGE = 'usage: npm run bench:stores -- [--runs N] [--mib N] [--json]';
const BITS_PER_S = 1e9;
const GIB = 2 ** 30;
/** Of CPU time, against a node of ours. */
const MOST = 1.5;

/** Of one round. */
interface Figures {
  readonly exitMs: number;
  readonly mergeMs: number;
  /** CPU seconds per GiB of image. */
  readonly source: number;
  readonly destination: number;
}

function whole(text: string, least: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least) throw new Error(`${text} is not a whole number from ${least} on`);
  return value;
}

function parse() {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '6' },
      mib: { type: 'string', default: '512' },
      json: { type: 'boolean', default: false },
    },
  });
  return { runs: whole(values.runs, 1), bytes: whole(values.mib, 16) * 2 ** 20, json: values.json };
}

const text = ({ low, median, high }: Spread, digits: number) =>
  `${median.toFixed(digits)} (${low.toFixed(digits)}-${high.toFixed(digits)})`;

let options: ReturnType<typeof parse>;
try {
  options = parse();
  const missing = unavailable();
  if (missing) throw new Error(`it cannot run here: ${missing}`);
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
const { runs, bytes, json } = options;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
// In memory, where there is such a place: no disk is measured.
const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'abdm-stores-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
const [image, tiny, key] = ['image', 'tiny', 'key'].map((name) => join(directory, name)) as [string, string, string];
await writeMix(image, bytes);
writeFileSync(tiny, new Uint8Array(2 ** 16));
writeFileSync(key, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });

const programs: Record<Side, string | null> = {
  intermediate: null,
  valkey: 'valkey-server',
  redis: 'redis-server',
  memcached: 'memcached',
};
const sides = SIDES.filter((side) => programs[side] === null || has(programs[side]!));
const rounds: Partial<Record<Side, Figures>>[] = [];
const network = new Network(['source', 'store', 'destination'].map((name) => ({ name, bitsPerS: BITS_PER_S })));
for (let run = 0; run < runs; run++) {
  const round: Partial<Record<Side, Figures>> = {};
  for (let i = 0; i < sides.length; i++) {
    // Who begins changes from round to round.
    const side = sides[(run + i) % sides.length]!;
    const start = await journey(network, side, tiny, key);
    const { exitMs, mergeMs, sourceCpuS, destinationCpuS } = await journey(network, side, image, key);
    const source = (sourceCpuS - start.sourceCpuS) / (bytes / GIB);
    const destination = (destinationCpuS - start.destinationCpuS) / (bytes / GIB);
    round[side] = { exitMs, mergeMs, source, destination };
    const cpu = `${source.toFixed(2)} and ${destination.toFixed(2)} CPU s/GiB`;
    console.error(`${side}: exit ${Math.round(exitMs)} ms, merge ${Math.round(mergeMs)} ms, ${cpu}`);
  }
  rounds.push(round);
}

const machine = `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, Node ${process.version}`;
if (!json)
  console.log(
    `${machine}, ${bytes / 2 ** 20} MiB, ${runs} rounds; of CPU s/GiB and of its ratio to a node of ours: median (quartiles)`,
  );
for (const side of sides) {
  const of = (figure: (one: Figures) => number) => spread(rounds.map((round) => figure(round[side]!)));
  const ratio = (role: 'source' | 'destination') =>
    spread(rounds.map((round) => round[side]![role] / round.intermediate![role]));
  const line = {
    type: 'store',
    side,
    runs,
    imageBytes: bytes,
    exitMs: of(({ exitMs }) => exitMs),
    mergeMs: of(({ mergeMs }) => mergeMs),
    source: of(({ source }) => source),
    destination: of(({ destination }) => destination),
    sourceRatio: ratio('source'),
    destinationRatio: ratio('destination'),
    most: MOST,
    holds: ratio('source').median <= MOST && ratio('destination').median <= MOST,
  };
  if (json) console.log(JSON.stringify(line));
  else {
    const times = `exit ${text(line.exitMs, 0)} ms, merge ${text(line.mergeMs, 0)} ms`;
    const left = `source ${text(line.source, 2)}, ${text(line.sourceRatio, 2)} times`;
    const arrived = `destination ${text(line.destination, 2)}, ${text(line.destinationRatio, 2)} times`;
    const verdict = `promised ${MOST}: ${line.holds ? 'holds' : 'DOES NOT HOLD'}`;
    console.log(`${side.padEnd(14)}${times}\n              ${left}; ${arrived}; ${verdict}`);
  }
}
