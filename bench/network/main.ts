// npm run bench:network: migrations over links of a known speed. What replication costs, how it compares with going straight to the destination, what
// one slow node does, and what sealing costs the source.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeMix } from '../mix.js';
import { defaultCongestionControl, unavailable } from './namespaces.js';
import { againstDirect, type Line, type Plan, replication, slowNode } from './rows.js';
import { type SealingLine, sealing } from './sealing.js';

const USAGE = 'usage: npm run bench:network -- [--quick] [--json] [--only replication,direct,slow,sealing]';
/** Slow enough that two cores do everything that six hosts have to do. */
const BITS_PER_S = 200e6;
/** For sealing: enough that its price stands out from that of a process that begins. */
const SEALED_BYTES = 2 ** 29;

const ROWS = ['replication', 'direct', 'slow', 'sealing'] as const;

function text(line: Line | SealingLine): string {
  if (line.type === 'sealing') {
    const { plain, sealed, ratio } = line;
    const cpu = `${plain.median.toFixed(2)} CPU s/GiB plain, ${sealed.median.toFixed(2)} sealed`;
    return `sealing                 ${cpu}: ${ratio.median.toFixed(2)} (${ratio.low.toFixed(2)}-${ratio.high.toFixed(2)}), promised ${line.most}: ${line.holds ? 'holds' : 'DOES NOT HOLD'}`;
  }
  const { row, point, exitMs, totalMs, ratios, promises } = line;
  const ms = ({ low, median, high }: Line['exitMs']) =>
    `${Math.round(median)} ms (${Math.round(low)}-${Math.round(high)})`;
  const parts = Object.entries(ratios).map(([figure, ratio]) => {
    const promise = promises.find((one) => one.figure === figure);
    return `${figure} ${ratio.toFixed(2)}${promise ? `, promised ${promise.most}: ${promise.holds ? 'holds' : 'DOES NOT HOLD'}` : ''}`;
  });
  return `${row.padEnd(24)}${point.padEnd(12)}exit ${ms(exitMs).padEnd(24)}total ${ms(totalMs).padEnd(24)}${parts.join('; ')}`;
}

let values: { quick: boolean; json: boolean; only?: string | undefined };
try {
  ({ values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      only: { type: 'string' },
    },
  }));
  const unknown = values.only?.split(',').find((row) => !(ROWS as readonly string[]).includes(row));
  if (unknown) throw new Error(`no row is called ${unknown}`);
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
const wanted = (row: (typeof ROWS)[number]) => values.only?.split(',').includes(row) ?? true;
const missing = unavailable();
if (missing && values.only !== 'sealing') {
  console.error(`bench:network cannot run here: ${missing}`);
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));

// In memory, where there is such a place: no disk is measured.
const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'abdm-network-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

const imageBytes = values.quick ? 2 ** 25 : 2 ** 27;
const image = join(directory, 'image');
await writeMix(image, imageBytes);
const keyFile = join(directory, 'key');
writeFileSync(keyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
const plan: Plan = {
  runs: values.quick ? 2 : 6,
  bitsPerS: BITS_PER_S,
  image,
  keyFile,
  say: (line) => process.stderr.write(`${line}\n`),
};
const print = (line: Line | SealingLine) => console.log(values.json ? JSON.stringify(line) : text(line));
const machine = {
  type: 'machine',
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  system: `${process.platform} ${release()}`,
  node: process.version,
  defaultCongestionControl: defaultCongestionControl(),
  imageBytes,
};
console.log(
  values.json
    ? JSON.stringify(machine)
    : `${machine.cpu}, ${machine.cores} cores, ${machine.system}, Node ${machine.node}`,
);
if (wanted('replication')) for (const line of await replication(plan)) print(line);
if (wanted('direct')) for (const line of await againstDirect(plan)) print(line);
if (wanted('slow')) for (const line of await slowNode(plan)) print(line);
if (wanted('sealing')) {
  const sealed = join(directory, 'sealed');
  await writeMix(sealed, SEALED_BYTES);
  print(await sealing({ ...plan, image: sealed }, SEALED_BYTES));
}
