// A sample of `npm run faults`: each row of its table, with one seed. The full run has twenty of each and more.
import { expect, test } from 'vitest';
import { scale } from './engine.js';
import { rowsOf } from './rows.js';
import { missing } from './skipped.js';

const MAIN = 'faults/main.js';
const RUNS = scale(1);

test('every fault has the outcome that is promised', { timeout: 600_000 * RUNS }, async () => {
  const { code, rows, stderr } = await rowsOf(MAIN, '--runs', String(RUNS));
  for (const row of rows) expect(row, stderr).toMatchObject({ type: 'fault', failed: [] });
  expect(code).toBe(0);
  expect(rows.length).toBe(missing('valkey-server') ? 13 : 15);
});

test('a row that does not exist is named, with those that do', async () => {
  const { code, stderr } = await rowsOf(MAIN, '--only', 'meteor');
  expect(code).toBe(1);
  expect(stderr).toMatch(/meteor.*node-killed-r2/);
});
