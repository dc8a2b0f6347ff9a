// npm run truth: live migrations of guests that know what every byte of their memory must be, with kills at seeded moments; each run is judged by what the
// guests themselves saw.
import { parseArgs } from 'node:util';
import { MODES } from './plan.js';
import { endAll } from './run.js';
import { type Row, runAll, seedsOf } from './runner.js';

const USAGE = 'usage: npm run truth -- [--runs N] [--seed S] [--only MODE] [--json]';

interface Options {
  readonly seeds: readonly number[];
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
  const { only } = values;
  const mode = MODES.find((one) => one === only) ?? null;
  if (only !== undefined && mode === null) throw new Error(`no mode is called ${only}: there are ${MODES.join(', ')}`);
  return { seeds: seedsOf(whole(values.runs, 200), whole(values.seed, 1), mode), json: values.json };
}

function text({ mode, kill, runs, asPromised, failed, logs }: Row): string {
  const verdict =
    failed.length === 0 ? 'as promised' : `FAILED with seeds ${failed.join(', ')}; logs in ${logs.join(', ')}`;
  return `${mode.padEnd(12)}${kill.padEnd(26)}${String(asPromised).padStart(3)} of ${String(runs).padEnd(3)} ${verdict}`;
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
for (const row of await runAll(options.seeds, (line) => process.stderr.write(`${line}\n`))) {
  console.log(options.json ? JSON.stringify(row) : text(row));
  if (row.failed.length > 0) process.exitCode = 1;
}
