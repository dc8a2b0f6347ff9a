// The demo, once through, with a small process: what README's first command shows must be true.
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, expect, test } from 'vitest';
import { Abdm, cleanUp } from '../processes.js';

afterEach(cleanUp);

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith('abdm-demo-'));

test('abdm demo moves a process both ways, verifies it, and leaves nothing behind', { timeout: 120_000 }, async () => {
  const before = leftovers();
  const { code, summary, stderr } = await new Abdm(['demo', '--size', '16M', '--rate', '200MB', '--rounds', '1']).done;
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(summary).toMatchObject({ type: 'summary', role: 'demo', outcome: 'completed', mode: 'stop', verified: true });
  const { comparison, vms, nodes } = summary;
  expect(comparison.imageSha256).toMatch(/^[0-9a-f]{64}$/);
  expect(comparison.mergedSha256).toBe(comparison.imageSha256);
  for (const figure of ['directExitTimeMs', 'exitTimeMs', 'exitSpeedup', 'directTotalMs', 'totalMs', 'totalRatio']) {
    expect(comparison[figure], figure).toBeGreaterThan(0);
  }
  expect(vms[0].imageBytes).toBeGreaterThan(32e6);
  // Three intermediates; and the destination, if it could take frames before the source had left.
  expect([3, 4]).toContain(nodes.length);
  for (const { frames } of nodes.slice(0, 3)) expect(frames).toBeGreaterThan(0);
  expect(leftovers()).toEqual(before);
});

test('a demo that is interrupted ends its processes', async () => {
  const before = leftovers();
  const demo = new Abdm(['demo', '--size', '32M', '--rounds', '5']);
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const { code, events, stderr } = await demo.stop('SIGINT');
  expect([code, events.at(-1)?.code, stderr]).toEqual([2, 'CANCELLED', 'abdm: cancelled\n']);
  expect(leftovers()).toEqual(before);
});
