// A part of `npm run qemu`: a guest moves by abdm over three intermediates, and finds whatever is done to its memory afterwards.
import { expect, it } from 'vitest';
import { unavailable } from '../../../bench/network/namespaces.js';
import { needsGuest } from '../../host/qemu/guest/guest.js';
import { rowsOf } from '../../rows.js';
import { skipped } from '../../skipped.js';

it('a guest that moved says FAIL for a flipped bit, an old page, swapped pages', {
  timeout: 240_000,
}, async (context) => {
  const { skip } = context;
  needsGuest(skip);
  const missing = unavailable();
  if (missing) skipped(skip, missing);
  const { code, rows, stderr } = await rowsOf(context, 'qemu/main.js', '--only', 'controls', '--size', '192M');
  expect(stderr).toBe('');
  expect(rows.slice(1)).toEqual(
    ['flipped bit', 'stale page', 'swapped pages'].map((control) => ({ type: 'control', control, isFound: true })),
  );
  expect(code).toBe(0);
});
