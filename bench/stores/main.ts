// npm run bench:stores: what it costs us, on our side of the socket, that frames are kept at Valkey, Redis or memcached, against a node of ours, and against
// the client library alone. All take turns in every round.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { unavailable } from '../network/namespaces.js';
import type { Spread } from '../statistics.js';
import { measureJourneys } from './journeys.js';
import { measurePaths } from './path.js';

const USAGE = 'usage: npm run bench:stores -- [--rounds N] [--mib N] [--only path,journeys] [--json]';
const ROWS = ['path', 'journeys'];
/** Of CPU time, against a node of ours. */
const MOST = 1.5;

function whole(text: string, least: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least) throw new Error(`${text} is not a whole number from ${least} on`);
  return value;
}

function parse() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '8' },
      mib: { type: 'string', default: '512' },
      only: { type: 'string', default: ROWS.join() },
      json: { type: 'boolean', default: false },
    },
  });
  const only = values.only.split(',');
  const unknown = only.find((row) => !ROWS.includes(row));
  if (unknown) throw new Error(`no row is called ${unknown}`);
  const missing = only.includes('journeys') ? unavailable() : null;
  if (missing) throw new Error(`journeys cannot run here: ${missing}`);
  return { rounds: whole(values.rounds, 1), bytes: whole(values.mib, 16) * 2 ** 20, only, json: values.json };
}

let options: ReturnType<typeof parse>;
try {
  options = parse();
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
const { rounds, bytes, only, json } = options;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
// In memory, where there is such a place: no disk is measured.
const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'abdm-stores-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

const show = ({ low, median, high }: Spread, digits = 2) =>
  `${median.toFixed(digits)} (${low.toFixed(digits)}-${high.toFixed(digits)})`;

function print(line: { keeper: string }, words: readonly string[], ratios: readonly Spread[]): void {
  const holds = ratios.every(({ median }) => median <= MOST);
  if (json) return console.log(JSON.stringify({ ...line, most: MOST, holds }));
  const verdict = line.keeper === 'library' ? '' : `; promised ${MOST}: ${holds ? 'holds' : 'DOES NOT HOLD'}`;
  console.log(`${line.keeper.padEnd(14)}${words.join('; ')}${verdict}`);
}

if (json) {
  console.log(JSON.stringify({ type: 'machine', cpu: cpus()[0]?.model, node: process.version, rounds }));
} else {
  const machine = `${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}`;
  console.log(
    `${machine}; ${rounds} rounds, medians (quartiles); CPU s/GiB, and how many times that of a node of ours`,
  );
}
if (only.includes('path')) {
  for (const line of await measurePaths(directory, rounds)) {
    const put = `put ${show(line.put)}, ${show(line.putRatio)} times`;
    const get = `get ${show(line.get)}, ${show(line.getRatio)} times`;
    print(line, [put, get], [line.putRatio, line.getRatio]);
  }
}
if (only.includes('journeys')) {
  for (const line of await measureJourneys(directory, rounds, bytes, (text) => console.error(text))) {
    const times = `exit ${show(line.exitMs, 0)} ms, merge ${show(line.mergeMs, 0)} ms`;
    const source = `source ${show(line.source)}, ${show(line.sourceRatio)} times`;
    const destination = `destination ${show(line.destination)}, ${show(line.destinationRatio)} times`;
    print(line, [times, source, destination], [line.sourceRatio, line.destinationRatio]);
  }
}
