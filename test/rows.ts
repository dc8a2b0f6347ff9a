// A program of bench/ that prints rows of JSON, in a process of its own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';

export interface Printed {
  readonly code: number | null;
  readonly rows: readonly Record<string, unknown>[];
  readonly stderr: string;
}

/** Runs dist-bench/NAME to its end, or to that of this test, which may run beside others. */
export async function rowsOf({ onTestFinished }: TestContext, name: string, ...args: string[]): Promise<Printed> {
  const main = fileURLToPath(new URL(`../dist-bench/${name}`, import.meta.url));
  const child = spawn(process.execPath, [main, '--json', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGTERM'));
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  await once(child, 'close');
  const rows = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
  return { code: child.exitCode, rows, stderr };
}
