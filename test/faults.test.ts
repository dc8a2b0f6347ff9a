// A sample of `npm run faults`: each row of its table, with one seed. The full run has twenty of each and more.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { scale } from './engine.js';

const MAIN = fileURLToPath(new URL('../dist-bench/faults/main.js', import.meta.url));
const RUNS = scale(1);

async function faults(
  ...args: string[]
): Promise<{ code: number | null; rows: Record<string, unknown>[]; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, '--json', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
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

test('every fault has the outcome that is promised', { timeout: 600_000 * RUNS }, async () => {
  const { code, rows, stderr } = await faults('--runs', String(RUNS));
  for (const row of rows) expect(row, stderr).toMatchObject({ type: 'fault', failed: [] });
  expect(code).toBe(0);
  expect(rows.length).toBe(13);
});

test('a row that does not exist is named, with those that do', async () => {
  const { code, stderr } = await faults('--only', 'meteor');
  expect(code).toBe(1);
  expect(stderr).toMatch(/meteor.*node-killed-r2/);
});
