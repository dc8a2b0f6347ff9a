import { expect, test } from 'vitest';
import { formatBytes, formatMs, parseSize } from '#abdm/host/cli/sizes.js';
import { RateLimit } from '#abdm/host/wire/rate.js';

test('sizes are read as people write them', () => {
  const sizes: [string, number][] = [
    ['65536', 65_536],
    ['1K', 1024],
    ['512M', 512 * 2 ** 20],
    ['2GiB', 2 * 2 ** 30],
    ['1.5g', 1.5 * 2 ** 30],
    ['50MB', 50e6],
    ['50mb', 50e6],
    ['3kB', 3000],
    ['1T', 2 ** 40],
    ['100B', 100],
  ];
  for (const [text, bytes] of sizes) expect([text, parseSize(text)]).toEqual([text, bytes]);
  for (const text of ['', 'M', '-1', '1X', '1e3', '0', '5 5', 'iB', '5iB', '9999999T']) {
    expect(() => parseSize(text), text).toThrow();
  }
});

test('and written so', () => {
  expect([0, 999, 1500, 59.4e6, 1.26e9].map(formatBytes)).toEqual(['0 B', '999 B', '1.5 KB', '59.4 MB', '1.3 GB']);
  expect([4, 421, 9_990, 75_400, 200_000].map(formatMs)).toEqual(['0.00 s', '0.42 s', '9.99 s', '75 s', '3 min 20 s']);
});

test('a rate holds on average, whatever the frames are like', async () => {
  const limit = new RateLimit(10e6);
  const startedMs = performance.now();
  let bytes = 0;
  while (performance.now() - startedMs < 300) {
    const waitMs = limit.waitMs;
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    else {
      const frame = bytes % 3 === 0 ? 260_000 : 500;
      limit.take(frame);
      bytes += frame;
    }
  }
  // One frame of debt, and the burst that a late timer may bring.
  const allowed = ((performance.now() - startedMs) / 1000) * 10e6;
  expect(bytes).toBeLessThan(allowed + 260_000 + 0.02 * 10e6);
  expect(bytes).toBeGreaterThan(allowed * 0.5);
  expect(new RateLimit().waitMs).toBe(0);
});
