// npm run demo:qemu: somebody plays a media stream that a guest serves, while the guest moves to a host whose card is slow: by QEMU itself, and by abdm.
import { parseArgs } from 'node:util';
import { formatBytes, formatMs, parseSize } from '#abdm/host/cli/sizes.js';
import { prepare } from './prepare.js';
import { run, type Took, type Way } from './run.js';
import { Site } from './scene.js';

const USAGE =
  'usage: npm run demo:qemu -- [--mode post-copy|pre-copy|hybrid|stop] [--limit 50MB] [--size 512M] [--json]';
const MODES = ['post-copy', 'pre-copy', 'hybrid', 'stop'] as const;

interface Wanted {
  readonly mode: (typeof MODES)[number];
  readonly limitBytesPerS: number;
  readonly guestBytes: number;
  readonly json: boolean;
}

function parse(): Wanted {
  const { values } = parseArgs({
    options: {
      mode: { type: 'string', default: 'post-copy' },
      limit: { type: 'string', default: '50MB' },
      size: { type: 'string', default: '512M' },
      json: { type: 'boolean', default: false },
    },
  });
  const mode = MODES.find((name) => name === values.mode);
  if (!mode) throw new Error(`no mode is called ${values.mode}`);
  return { mode, limitBytesPerS: parseSize(values.limit), guestBytes: parseSize(values.size), json: values.json };
}

const isTerminal = process.stderr.isTTY === true;
const say = (text: string) => void process.stderr.write(isTerminal ? `\r\x1b[K${text}\n` : `${text}\n`);
/** A line that the next one takes the place of. */
const show = (text: string) => void (isTerminal && process.stderr.write(`\r\x1b[K${text}`));

const nameOf = ({ by, mode }: Way) => `${by} ${mode}`;

async function move(way: Way, site: Site, wanted: Wanted, scene: ReturnType<typeof prepare>): Promise<Took> {
  let step = '';
  const took = await run(
    {
      way,
      guests: [{ bytes: wanted.guestBytes, setPages: 32, pagesPerS: 100, noise: false, seed: 0, commonPercent: 0 }],
      replicas: 2,
      hasStream: true,
      watchMs: 0,
      kill: null,
      onStep: (next) => {
        step = next;
        show(`  ${nameOf(way)}: the guest ${step}`);
      },
      onHeard: (heard) => {
        if (heard.type === 'second') show(`  ${nameOf(way)}: the guest ${step}, ${formatBytes(heard.bytes)} played`);
        if (heard.type === 'silence' && heard.ms >= 100)
          say(`  ${nameOf(way)}: the stream was silent for ${heard.ms} ms`);
      },
    },
    { ...scene, site },
  );
  say(`  ${nameOf(way)}: the source is free after ${formatMs(took.exitMs)}`);
  return took;
}

function table(all: readonly (readonly [Way, Took])[]): string[] {
  const rows: string[][] = [['', ...all.map(([way]) => nameOf(way))]];
  const row = (name: string, value: (took: Took) => string) => rows.push([name, ...all.map(([, took]) => value(took))]);
  row('source free after', ({ exitMs }) => formatMs(exitMs));
  row('all is there after', ({ totalMs }) => formatMs(totalMs));
  row('left the source', ({ wireBytes }) => formatBytes(wireBytes));
  row('guest stood still for', ({ downtimeMs }) => `${Math.round(downtimeMs)} ms`);
  row('longest stall after', ({ stallMs }) => `${Math.round(stallMs)} ms`);
  row('stream silent for', ({ stream }) => `${Math.round(stream!.silenceMs)} ms`);
  row('played', ({ stream }) => formatBytes(stream!.bytes));
  row('SHA-256 heard', ({ stream }) => `${stream!.sha256.slice(0, 12)}...`);
  row('SHA-256 served', ({ stream }) => `${stream!.expectedSha256.slice(0, 12)}...`);
  row('stream', ({ stream }) => (stream!.isRight ? 'right' : 'WRONG'));
  row("the guest's memory", ({ verify }) => `VERIFY ${verify}`);
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  return rows.map(
    (cells) => `  ${cells.map((cell, i) => (i ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))).join('  ')}`,
  );
}

let wanted: Wanted;
try {
  wanted = parse();
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
try {
  const scene = prepare();
  const { mode, limitBytesPerS, guestBytes, json } = wanted;
  say(
    `A guest of ${formatBytes(guestBytes)} streams over HTTP; it moves to a host that takes in ${formatBytes(limitBytesPerS)} a second.`,
  );
  const site = new Site(limitBytesPerS * 8);
  const ways: Way[] = [
    { by: 'stock', mode: 'pre-copy' },
    { by: 'stock', mode: 'post-copy' },
    { by: 'abdm', mode },
  ];
  const all: [Way, Took][] = [];
  for (const way of ways) all.push([way, await move(way, site, wanted, scene)]);
  for (const line of table(all)) say(line);
  if (json) for (const [way, took] of all) console.log(JSON.stringify({ type: 'demo', way: nameOf(way), ...took }));
  const [, ours] = all.at(-1)!;
  process.exitCode = ours.verify === 'OK' && ours.stream!.isRight ? 0 : 4;
} catch (error) {
  say((error as Error).message);
  process.exitCode = 1;
}
