// A sample of `npm run faults`: each row of its table, with one seed. The full run has twenty of each and more.
import { expect, test } from 'vitest';
import { FAULTS } from '../bench/faults/faults.js';
import { scale } from './engine.js';
import { rowsOf } from './rows.js';
import { missing } from './skipped.js';

const MAIN = 'faults/main.js';
const RUNS = scale(1);

const NAMES = FAULTS.filter(({ needs }) => !needs || !missing(needs)).map(({ name }) => name);

// Side by side: each is mostly a migration at a few megabytes a second.
test.concurrent.for(NAMES)(
  '%s has the outcome that is promised',
  { timeout: 180_000 * RUNS },
  async (name, context) => {
    const { code, rows, stderr } = await rowsOf(context, MAIN, '--only', name, '--runs', String(RUNS));
    expect(rows, stderr).toMatchObject([{ type: 'fault', fault: name, failed: [] }]);
    expect(code).toBe(0);
  },
);

test('a row that does not exist is named, with those that do', async (context) => {
  const { code, stderr } = await rowsOf(context, MAIN, '--only', 'meteor');
  expect(code).toBe(1);
  expect(stderr).toMatch(/meteor.*node-killed-r2/);
});
