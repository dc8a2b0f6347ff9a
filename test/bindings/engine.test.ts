// Where the engine's code comes from: from beside the library, or from whoever has it.
import { readFileSync } from 'node:fs';
import { compileEngine, Divider } from 'abdm';
import { expect, test } from 'vitest';
import { key } from './library.js';

const wasm = readFileSync(new URL('../../dist/abdm.wasm', import.meta.url));

test('the engine is compiled once', async () => {
  expect(await compileEngine()).toBe(await compileEngine());
});

test('the engine may be given as bytes or as a module', async () => {
  const own = await compileEngine();
  const given = await compileEngine(wasm);
  expect(given).not.toBe(own);
  expect(await compileEngine()).toBe(given);
  expect(await compileEngine(own)).toBe(own);
  await Divider.create({ key, dedupEntries: 10 });
});

test('what is no engine is refused, and forgotten', async () => {
  await expect(compileEngine(new Uint8Array(100))).rejects.toThrow(/engine that was given cannot be loaded/);
  await expect(compileEngine(new Uint8Array(100))).rejects.toThrow(expect.objectContaining({ code: 'USAGE' }));
  await Divider.create({ key, dedupEntries: 10 });
});
