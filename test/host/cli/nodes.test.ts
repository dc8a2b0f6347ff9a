// abdm nodes as a process: what it prints for people and for programs, and how it ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import { countsText, nodeLines } from '#abdm/host/cli/nodes.js';
import { type Intermediate, startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { announcement, group, Mouth, openIndex } from '../mam/ether.js';
import { until } from '../wire/pair.js';

const started: Intermediate[] = [];

afterEach(async () => {
  await Promise.all(started.splice(0).map((node) => node.close()));
});

async function start(place: string): Promise<Intermediate> {
  const announcements = [place];
  const node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64e6, announcements, security: OPEN });
  started.push(node);
  return node;
}

/** The command in a process of its own. */
class Nodes {
  readonly ended: Promise<void>;
  readonly process: ChildProcess;
  err = '';
  #out = '';

  constructor(options: { announcements: string[]; watch?: boolean; json?: boolean }) {
    const module = (name: string) => pathToFileURL(`dist/host/cli/${name}.js`).href;
    const script = `
      import { nodes } from '${module('nodes')}';
      import { Output } from '${module('output')}';
      const options = ${JSON.stringify(options)};
      const output = new Output(options.json === true);
      process.exitCode = await nodes(output, options).catch((error) => (output.error(error), 2));`;
    this.process = spawn(process.execPath, ['--input-type=module', '-e', script]);
    this.process.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#out += text;
    });
    this.process.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.err += text;
    });
    this.ended = once(this.process, 'close').then(() => {});
    onTestFinished(async () => {
      this.process.kill('SIGKILL');
      await this.ended;
    });
  }

  /** What it has printed for programs. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON, as a user's script reads it
  get events(): any[] {
    const whole = this.#out.split('\n').slice(0, -1);
    return whole.map((line) => JSON.parse(line));
  }
}

describe('abdm nodes', () => {
  it('prints a line a node for programs, then how many, and what was not believed', async () => {
    const place = group();
    const nodes = [await start(place), await start(place)].sort((a, b) => (a.address < b.address ? -1 : 1));
    const printed = new Nodes({ announcements: [place], json: true });
    const mouth = await Mouth.at(place);
    const chatter = setInterval(() => void mouth.say(new Uint8Array(1)), 100);
    await printed.ended;
    clearInterval(chatter);
    expect(printed.process.exitCode).toBe(0);
    const known = { type: 'node', state: 'up', memoryBytes: 64e6, freeBytes: 64e6 };
    expect(printed.events).toEqual([
      ...nodes.map(({ id, address }) => expect.objectContaining({ ...known, id, address })),
      { type: 'nodes', nodes: 2, counts: expect.objectContaining({ forged: 0 }) },
    ]);
    expect(printed.events.at(-1).counts.malformed).toBeGreaterThan(0);
  });

  it('says so when nobody announces', async () => {
    const place = group();
    const printed = new Nodes({ announcements: [place] });
    await printed.ended;
    expect(printed.process.exitCode).toBe(2);
    expect(printed.err).toContain(`no intermediate announces itself at ${place}: do intermediates run with the same`);
  });

  it('watches nodes come, go and fall silent until it is ended', async () => {
    const place = group();
    const printed = new Nodes({ announcements: [place], watch: true, json: true });
    const node = await start(place);
    const states = (address: string) =>
      printed.events.flatMap((event) => (event.address === address ? [event.state] : []));
    await until(() => states(node.address).includes('up'));
    const mouth = await Mouth.at(place);
    await mouth.announce({ address: '127.0.0.1:7001' }, null);
    await until(() => states('127.0.0.1:7001').includes('suspect'));
    started.pop();
    await node.close();
    await until(() => states(node.address).includes('gone'));
    printed.process.kill('SIGTERM');
    await printed.ended;
    expect(printed.process.exitCode).toBe(0);
    expect(states('127.0.0.1:7001')).toEqual(['up', 'suspect']);
    expect(states(node.address)).toEqual(['up', 'gone']);
    expect(printed.events.at(-1)).toMatchObject({ type: 'nodes', nodes: 1 });
  });

  it('aligns what people read, and names what was not believed', async () => {
    const place = group();
    const index = await openIndex({ security: OPEN, announcements: [place] });
    const mouth = await Mouth.at(place);
    await mouth.announce({ address: '127.0.0.1:7' }, null);
    await mouth.announce({ address: '127.0.0.1:7000', freeBytes: 12 }, null);
    await mouth.say(new Uint8Array(3));
    await mouth.announce({ clockMs: announcement().clockMs - 40_000 }, null);
    await until(() => index.counts.stale === 1);
    index.suspect('127.0.0.1:7');
    const lines = nodeLines(index.nodes());
    expect(lines[0]).toMatch(
      /^127\.0\.0\.1:7 {5}suspect {2}5\.0 GB free of 16\.0 GB {2}load 0\.25 {2}3 connections {2}heard 0\.\d s ago$/,
    );
    expect(lines[1]).toMatch(/^127\.0\.0\.1:7000 {2}up {7}12 B free of 16\.0 GB {4}load /);
    expect(countsText(index.counts)).toBe(
      'announcements not believed: 1 stale: more than 30 s off the clock of this host; 1 malformed',
    );
    expect(nodeLines([])).toEqual([]);
  });
});
