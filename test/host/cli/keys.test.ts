// Keys: made once, for their owner only, never overwritten; those of parked VMs exist exactly as long as something is parked.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { Abdm, cleanUp, directory, surroundings } from './processes.js';
import { Scene } from './scene.js';

const MAIN = fileURLToPath(new URL('../../../dist/host/cli/main.js', import.meta.url));

afterEach(cleanUp);

test('abdm keygen prints a key, another one each time', async () => {
  const print = () => execFileSync(process.execPath, [MAIN, 'keygen'], { encoding: 'latin1' });
  const keys = [print(), print()];
  for (const key of keys) expect(key).toMatch(/^[0-9a-f]{64}\n$/);
  expect(keys[0]).not.toBe(keys[1]);
  const { events } = await new Abdm(['keygen']).done;
  expect(events).toEqual([{ type: 'key', key: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
});

test('or writes it, for its owner only, where there is no file yet', async () => {
  const path = join(directory(), 'cluster.key');
  expect((await new Abdm(['keygen', path]).done).code).toBe(0);
  const key = readFileSync(path, 'latin1');
  expect(key).toMatch(/^[0-9a-f]{64}\n$/);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const again = await new Abdm(['keygen', path]).done;
  expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('never overwritten') });
  expect(readFileSync(path, 'latin1')).toBe(key);
  const nowhere = await new Abdm(['keygen', join(path, 'no')]).done;
  expect(nowhere).toMatchObject({ code: 1, stderr: expect.stringContaining(path) });
});

test('the key of a migration that did not happen is removed, and of one that was there before kept', async () => {
  const { dir, image } = new Scene();
  const path = join(dir, 'a.vmkey');
  // No node announces itself, and the image is not there.
  const failed = await new Abdm(['eject', `a=file:${image}-not`, '--park', '--vm-key', path]).done;
  expect([failed.code, existsSync(path)]).toEqual([2, false]);
  expect(failed.events.find(({ type }) => type === 'vm-key')).toMatchObject({ path });
  writeFileSync(path, 'mine');
  const refused = await new Abdm(['eject', `a=file:${image}`, '--park', '--vm-key', path]).done;
  expect([refused.code, readFileSync(path, 'latin1')]).toEqual([1, 'mine']);
});

test('whoever has none is told what that means', async () => {
  const env = surroundings();
  delete env.ABDM_KEY;
  const merge = new Abdm(['merge', `a=file:${join(directory(), 'out')}`, '--listen', '127.0.0.1:0']);
  const notice = await merge.event(({ type }) => type === 'notice');
  expect(notice.text).toMatch(/no --key.*loopback.*keygen/);
});
