// npm run faults: every row of the table of faults, with real processes, at seeded random moments; each outcome is held against what is promised.
import { parseArgs } from 'node:util';
import { has } from '../stores/servers.js';
import type { Fault } from './fault.js';
import { FAULTS } from './faults.js';
import { endAll, type Row, runFault } from './runner.js';

const USAGE = 'usage: npm run faults -- [--runs N] [--seed S] [--only ROW,...] [--json]';

interface Options {
  readonly runs: number;
  readonly seed: number | null;
  readonly faults: readonly Fault[];
  readonly json: boolean;
}

function whole(text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${text} is not a whole number above 0`);
  return value;
}

function parse(): Options {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string' },
      seed: { type: 'string' },
      only: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const only = values.only?.split(',');
  const unknown = only?.find((name) => !FAULTS.some((fault) => fault.name === name));
  if (unknown) throw new Error(`no row is called ${unknown}: there are ${FAULTS.map(({ name }) => name).join(', ')}`);
  return {
    runs: whole(values.runs, 20),
    seed: values.seed === undefined ? null : whole(values.seed, 1),
    faults: FAULTS.filter(({ name }) => only?.includes(name) ?? true),
    json: values.json,
  };
}

function text({ fault, runs, asPromised, failed, logs }: Row): string {
  const verdict = failed.length === 0 ? 'as promised' : `FAILED with seeds ${failed.join(', ')}; logs in ${logs}`;
  return `${fault.padEnd(24)}${String(asPromised).padStart(3)} of ${String(runs).padEnd(3)} ${verdict}`;
}

let options: Options;
try {
  options = parse();
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    endAll();
    process.exit(1);
  });
}
for (const fault of options.faults) {
  if (fault.needs && !has(fault.needs)) {
    console.error(`${fault.name} is left out: ${fault.needs} is not installed`);
    continue;
  }
  const row = await runFault(fault, options.runs, options.seed, (line) => process.stderr.write(`${line}\n`));
  console.log(options.json ? JSON.stringify(row) : text(row));
  if (row.failed.length > 0) process.exitCode = 1;
}
