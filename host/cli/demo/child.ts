// A role as a process of its own: this same command with --json, its events read line by line.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { AbdmError } from '../../../bindings/errors.js';
import type { Summary } from '../../summary.js';
import type { Progress } from '../progress.js';

const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));

type Event = { type: string } & Record<string, unknown>;

export class RoleProcess {
  /** The last progress event. */
  progress: Progress | null = null;
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #listening: Promise<string>;
  readonly #exited: Promise<void>;
  #summary: Summary | null = null;
  #stderr = '';

  constructor(name: string, args: readonly string[]) {
    this.#name = name;
    // The child ends when its parent does: nothing keeps its pipes open then, and nothing stays behind.
    this.#child = spawn(process.execPath, [MAIN, name, ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-2000);
    });
    const lines = createInterface({ input: this.#child.stdout! });
    this.#exited = Promise.all([once(this.#child, 'exit'), once(lines, 'close')]).then(() => {});
    this.#listening = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        const event = JSON.parse(line) as Event;
        if (event.type === 'listening') resolve(event.address as string);
        else if (event.type === 'progress') this.progress = event as unknown as Progress;
        else if (event.type === 'summary') this.#summary = event as unknown as Summary;
      });
      this.#exited.then(() => reject(this.#failure()), reject);
    });
    // Only those who wait for it want to know.
    this.#listening.catch(() => {});
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** HOST:PORT, as soon as it listens. @throws {AbdmError} if it ends before. */
  listening(): Promise<string> {
    return this.#listening;
  }

  /** Its summary, when it has ended. @throws {AbdmError} if it ends without, or did not complete. */
  async summary(): Promise<Summary> {
    await this.#exited;
    if (this.#summary?.outcome !== 'completed') throw this.#failure();
    return this.#summary;
  }

  /** Ends it if it is still there. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGTERM');
    await this.#exited;
  }

  #failure(): AbdmError {
    const reason = this.#summary?.reason?.message ?? this.#stderr.trim();
    return new AbdmError('PEER_GONE', `abdm ${this.#name} failed: ${reason || `exit code ${this.#child.exitCode}`}`);
  }
}
