// abdm demo: the main job, shown on one machine. Three intermediates, a destination that is slower than the source, and a source, each a process
// of its own on loopback; the image is the memory of a process that was filled with real data. It leaves directly, then through the
// intermediates, in turn, and what arrives is compared with what left.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { AbdmError } from '../../../bindings/errors.js';
import { hashImage } from '../../image/hash.js';
import { openSource, parseImage } from '../../image/parse.js';
import { EXIT, onSignal } from '../exit.js';
import type { Output } from '../output.js';
import { progressLine } from '../progress.js';
import { formatBytes } from '../sizes.js';
import { RoleProcess } from './child.js';
import { Comparison, comparisonTable, demoSummary, type Run } from './report.js';
import { startWorkload, writeHeapFile } from './workload.js';

const INTERMEDIATES = 3;
const LIVE_MS = 200;

export interface DemoOptions {
  image?: string;
  size: number;
  rate: number;
  rounds: number;
}

export async function demo(output: Output, options: DemoOptions): Promise<number> {
  const stage = new Stage(output, options);
  let signalled = false;
  onSignal(() => {
    signalled = true;
    void stage.clear();
  });
  try {
    const comparison = await stage.play();
    output.stopLive();
    output.event(demoSummary(comparison));
    for (const line of comparisonTable(comparison)) output.say(line);
    return comparison.verified ? EXIT.completed : EXIT.lost;
  } catch (error) {
    if (signalled) throw new AbdmError('CANCELLED', 'cancelled');
    throw error;
  } finally {
    await stage.clear();
  }
}

/** The processes and files of a demo, and what it takes to clear them away. */
class Stage {
  readonly #output: Output;
  readonly #options: DemoOptions;
  readonly #clear: (() => Promise<unknown> | unknown)[] = [];
  #directory = '';

  constructor(output: Output, options: DemoOptions) {
    this.#output = output;
    this.#options = options;
  }

  async play(): Promise<Comparison> {
    const { rounds } = this.#options;
    this.#directory = await mkdtemp(join(tmpdir(), 'abdm-demo-'));
    this.#clear.push(() => rm(this.#directory, { recursive: true, force: true }));
    const image = this.#options.image ?? (await this.#fillImage());
    // A process stays stopped from here to the end, so that all migrations move the same bytes.
    const source = await openSource(parseImage(`demo=${image}`));
    this.#clear.push(() => source.close());
    this.#output.say(`image: ${image}, ${formatBytes(source.bytes)} in ${source.regions.length} regions`);
    const imageSha256 = await hashImage(source);
    const nodes = await this.#startIntermediates(source.bytes);

    const direct: Run[] = [];
    const through: Run[] = [];
    for (let round = 1; round <= rounds; round++) {
      direct.push(await this.#migrate(`direct ${round} of ${rounds}`, image, ['--direct']));
      const name = `through intermediates ${round} of ${rounds}`;
      through.push(await this.#migrate(name, image, ['--intermediates', nodes.join(',')]));
    }
    return new Comparison(imageSha256, direct, through);
  }

  /** Ends and removes everything, last things first. */
  async clear(): Promise<void> {
    for (let step = this.#clear.pop(); step; step = this.#clear.pop()) await step();
  }

  /** Starts a process with real data in its memory, or writes such data to a file where memory cannot be read. */
  async #fillImage(): Promise<string> {
    const { size } = this.#options;
    this.#output.liveLines(`filling ${formatBytes(size)} with real data`);
    if (process.platform !== 'linux') {
      const path = join(this.#directory, 'heap');
      await writeHeapFile(path, size);
      return `file:${path}`;
    }
    const workload = await startWorkload(size);
    this.#clear.push(() => workload.stop());
    return `process:${workload.pid}`;
  }

  async #startIntermediates(imageBytes: number): Promise<string[]> {
    const memory = Math.max(64 * 2 ** 20, Math.ceil(imageBytes * 1.05));
    const nodes = Array.from({ length: INTERMEDIATES }, () => {
      return new RoleProcess('intermediate', [
        '--listen',
        '127.0.0.1:0',
        '--memory',
        `${memory}`,
        '--announcements',
        'none',
      ]);
    });
    for (const node of nodes) this.#clear.push(() => node.stop());
    return Promise.all(nodes.map((node) => node.listening()));
  }

  async #migrate(name: string, image: string, how: readonly string[]): Promise<Run> {
    const path = join(this.#directory, 'merged');
    const rate = String(this.#options.rate);
    const destination = new RoleProcess('merge', [`demo=file:${path}`, '--listen', '127.0.0.1:0', '--rate', rate]);
    this.#clear.push(() => destination.stop());
    const to = await destination.listening();
    const source = new RoleProcess('eject', [`demo=${image}`, '--to', to, ...how]);
    this.#clear.push(() => source.stop());
    const live = setInterval(() => {
      const role = source.progress?.phase === 'dividing' ? source : destination;
      if (role.progress) this.#output.liveLines(progressLine(name, role.progress));
    }, LIVE_MS);
    try {
      // Whichever fails first says why.
      const [left, arrived] = await Promise.all([source.summary(), destination.summary()]);
      return { source: left, destination: arrived, sha256: await hashFile(path), to };
    } finally {
      clearInterval(live);
      await rm(path, { force: true });
    }
  }
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex');
}
