// One `abdm ... --json`, or another program, as a process of its own: its events as they come, all of its words in a log, and its end.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Status, Summary } from '#abdm/host/summary.js';
import { ROOT } from '../root.js';

const MAIN = fileURLToPath(new URL('dist/host/cli/main.js', ROOT));

/** An object that a role printed, and when it was heard: milliseconds since it was started. */
export type Event = { type: string; heardMs: number } & Record<string, unknown>;

/** A progress event. */
export type Progress = Event & Status;

/** A summary, with what later versions of it may add. */
export type RoleSummary = Summary & { lost?: { vm: string; ranges: [number, number][] }[] };

export class Role {
  readonly name: string;
  readonly events: Event[] = [];
  readonly startedAt = performance.now();
  /** Resolves when it has ended and all that it said has been heard. */
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;
  #over = false;
  #wakes: (() => void)[] = [];

  /** Starts `abdm`, behind a `launcher` if there is one; what it says goes to `log` too. */
  constructor(
    name: string,
    args: readonly string[],
    log: string,
    env: NodeJS.ProcessEnv = {},
    launcher: readonly string[] = [],
  ) {
    this.name = name;
    const command = [...launcher, process.execPath, MAIN, ...args, '--json'];
    this.#child = spawn(command[0]!, command.slice(1), {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    const file = createWriteStream(log);
    file.write(`abdm ${args.join(' ')}\n`);
    const lines = createInterface({ input: this.#child.stdout! });
    lines.on('line', (line) => {
      const heardMs = Math.round(performance.now() - this.startedAt);
      file.write(`${heardMs} ${line}\n`);
      this.events.push({ ...(JSON.parse(line) as Event), heardMs });
      this.#wake();
    });
    this.#child.stderr!.on('data', (text) => file.write(text));
    this.ended = Promise.all([once(this.#child, 'close'), once(lines, 'close')]).then(() => {
      this.#over = true;
      file.end(`ended: ${this.#child.exitCode ?? this.#child.signalCode}\n`);
      this.#wake();
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get over(): boolean {
    return this.#over;
  }

  /** Its exit code; null while it runs, or if a signal ended it. */
  get code(): number | null {
    return this.#child.exitCode;
  }

  get summary(): RoleSummary | null {
    return (this.events.findLast(({ type }) => type === 'summary') as unknown as RoleSummary) ?? null;
  }

  get progress(): Progress | null {
    return (this.events.findLast(({ type }) => type === 'progress') as Progress | undefined) ?? null;
  }

  /** The first event of which this is true; null if it ends without. */
  async event(wanted: (event: Event) => boolean): Promise<Event | null> {
    for (;;) {
      const found = this.events.find(wanted);
      if (found || this.#over) return found ?? null;
      await new Promise<void>((resolve) => this.#wakes.push(resolve));
    }
  }

  /** Until its progress is so; false if it ends before. */
  async reaches(wanted: (progress: Progress) => boolean): Promise<boolean> {
    return (await this.event((event) => event.type === 'progress' && wanted(event as Progress))) !== null;
  }

  /** HOST:PORT where it listens. */
  async address(): Promise<string> {
    const event = await this.event(({ type }) => type === 'listening');
    if (!event) throw new Error(`${this.name} ended before it listened`);
    return event.address as string;
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.#over) this.#child.kill(signal);
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }
}
