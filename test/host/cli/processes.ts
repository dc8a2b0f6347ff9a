// The command as its users run it: processes of their own, real sockets, real files. Everything is ended and removed by `cleanUp`.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { generateKey } from '#abdm/host/wire/security.js';

const MAIN = fileURLToPath(new URL('../../../dist/host/cli/main.js', import.meta.url));

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Events of --json. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON, as a user's script reads it
  events: any[];
  // biome-ignore lint/suspicious/noExplicitAny: likewise
  summary: any;
  stderr: string;
}

const running = new Set<Abdm>();
const directories: string[] = [];
let runtime: string | undefined;

/** What roles get to know of their environment: a place for control sockets that no other test sees, and nobody to announce themselves to. */
export function surroundings(): Record<string, string | undefined> {
  runtime ??= directory();
  return { ...process.env, XDG_RUNTIME_DIR: runtime, ABDM_ANNOUNCEMENTS: 'none' };
}

/** A directory of the test's own. */
export function directory(): string {
  const made = mkdtempSync(join(tmpdir(), 'abdm-test-'));
  directories.push(made);
  return made;
}

/** Ends what the test left running, and removes its files. Fails if a process has to be killed. */
export async function cleanUp(): Promise<void> {
  await Promise.all([...running].map((abdm) => abdm.stop()));
  for (const made of directories.splice(0)) rmSync(made, { recursive: true, force: true });
  runtime = undefined;
}

/** A HOST:PORT that nobody listens at. */
export async function freeAddress(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

/** A key of a cluster, in a file. */
export function clusterKey(): string {
  const path = join(directory(), 'cluster.key');
  writeFileSync(path, generateKey(), { mode: 0o600 });
  return path;
}

/** One `abdm ... --json`. */
export class Abdm {
  readonly child: ChildProcess;
  readonly done: Promise<Outcome>;
  readonly #outcome: Outcome = { code: null, signal: null, events: [], summary: undefined, stderr: '' };
  readonly #waiting = new Set<() => void>();
  #signals = 0;

  constructor(args: readonly string[], env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [MAIN, ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...surroundings(), ...env },
    });
    running.add(this);
    let partial = '';
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (partial + text).split('\n');
      partial = lines.pop()!;
      for (const line of lines) this.#outcome.events.push(JSON.parse(line));
      for (const wake of this.#waiting) wake();
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#outcome.stderr += text;
    });
    this.done = once(this.child, 'close').then(([code, signal]) => {
      running.delete(this);
      const last = this.#outcome.events.at(-1);
      Object.assign(this.#outcome, { code, signal, summary: last?.type === 'summary' ? last : undefined });
      for (const wake of this.#waiting) wake();
      // Whoever ends by himself, and was not hurried, sums up, or says why there is nothing to sum up.
      if (['eject', 'merge'].includes(args[0]!) && signal === null && this.#signals < 2) {
        expect(['summary', 'error']).toContain(last?.type);
      }
      return this.#outcome;
    });
  }

  /** The first event of which this is true. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON, as a user's script reads it
  async event(wanted: (event: any) => boolean): Promise<any> {
    for (;;) {
      const found = this.#outcome.events.find(wanted);
      if (found) return found;
      if (this.child.exitCode !== null) throw new Error(`ended first: ${this.#outcome.stderr}`);
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }

  async address(): Promise<string> {
    return (await this.event(({ type }) => type === 'listening')).address;
  }

  signal(signal: NodeJS.Signals): void {
    this.#signals++;
    this.child.kill(signal);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Outcome> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.signal(signal);
    return this.done;
  }
}

/** So many intermediates; their processes, and the value for --intermediates. */
export async function intermediates(
  count: number,
  memory = '256M',
  env: Record<string, string> = {},
): Promise<{ nodes: Abdm[]; list: string }> {
  const nodes = Array.from({ length: count }, () => {
    return new Abdm(['intermediate', '--listen', '127.0.0.1:0', '--memory', memory], env);
  });
  return { nodes, list: (await Promise.all(nodes.map((node) => node.address()))).join(',') };
}
