// Things that tests make and must not leave behind: directories and child processes.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';

/** A fresh directory, removed when the test ends. */
export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'abdm-test-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

export interface Child {
  pid: number;
  process: ChildProcess;
  /** Resolves when it has ended. */
  ended: Promise<void>;
  /** The first line that it printed. */
  line: string;
}

/** Runs a program, waits for its first line of output (unless `quiet`), and kills it when the test ends. */
export async function child(
  command: string,
  args: string[],
  env: NodeJS.ProcessEnv = {},
  quiet = false,
): Promise<Child> {
  const started = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } });
  const ended = new Promise<void>((resolve) => started.once('exit', () => resolve()));
  onTestFinished(async () => {
    started.kill('SIGKILL');
    await ended;
  });
  let line = '';
  if (!quiet) {
    line = await new Promise<string>((resolve, reject) => {
      createInterface(started.stdout).once('line', resolve);
      started.once('error', reject);
      ended.then(() => reject(new Error('the child ended before it was ready')));
    });
  }
  return { pid: started.pid!, process: started, ended, line };
}

/** A Node process that runs `script` and then waits; the script prints a line when it is ready. */
export function nodeChild(script: string): Promise<Child> {
  return child(process.execPath, ['-e', `${script}; setInterval(() => {}, 1000)`]);
}

/** Runs `work` without root's rights, when the tests have them: root is refused nothing. */
export async function unprivileged(work: () => unknown): Promise<void> {
  const root = process.geteuid?.() === 0;
  if (root) process.seteuid!(65534);
  try {
    await work();
  } finally {
    if (root) process.seteuid!(0);
  }
}
