import { expect, test } from 'vitest';
import { formatBytes, formatMs, parseDuration, parseSize } from '#abdm/host/cli/sizes.js';
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
  expect([7_199_000, 7_260_000, 86_400_000, 266_400_000].map(formatMs)).toEqual([
    '119 min 59 s',
    '2 h 1 min',
    '24 h 0 min',
    '3 d 2 h',
  ]);
});

test('times are read likewise', () => {
  const times: [string, number][] = [
    ['90s', 90_000],
    ['15m', 900_000],
    ['2H', 7_200_000],
    ['1.5d', 129_600_000],
    ['24d', 2_073_600_000],
  ];
  for (const [text, ms] of times) expect([text, parseDuration(text)]).toEqual([text, ms]);
  for (const text of ['', '90', 's', '-1s', '0s', '0.5s', '1w', '25d', '1h30m']) {
    expect(() => parseDuration(text), text).toThrow();
  }
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
