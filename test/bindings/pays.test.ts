// Compression that knows its link: on where it pays, off where it does not, and cheap where it only looks.
import { Divider } from 'abdm';
import { describe, expect, test } from 'vitest';
import { PaysOnLink } from '#abdm/bindings/pays.js';
import { seededPages } from '../pages.js';
import { divideImage, key, MemorySink, makeDivider, makeMerger, mergeFrame } from './library.js';

/** Runs batches of 64 pages, each page of which takes a microsecond, and `costUs` more if it is compressed to save `saved` bytes. */
function run(pays: PaysOnLink, batches: number, costUs: number, saved: number): { tried: number; timeUs: number } {
  let tried = 0;
  let timeUs = 0;
  for (let i = 0; i < batches; i++) {
    const tries = Math.min(64, pays.next());
    const us = 64 + tries * costUs;
    pays.learn(64, tries, tries * saved, us / 1000);
    tried += tries;
    timeUs += us;
  }
  return { tried, timeUs };
}

describe('compression on a link of known speed', () => {
  test('is used where a page is sent slower than compressed, and only there', () => {
    // 3 us to save 2,048 bytes: pays below 683 MB/s.
    for (const [bytesPerS, share] of [
      [25e6, 0.95],
      [125e6, 0.95],
      [600e6, 0.95],
    ] as const) {
      expect(run(new PaysOnLink(bytesPerS), 100, 3, 2048).tried / 6400).toBeGreaterThan(share);
    }
    for (const bytesPerS of [750e6, 1.25e9, 12.5e9]) {
      expect(run(new PaysOnLink(bytesPerS), 100, 3, 2048).tried / 6400).toBeLessThan(0.02);
    }
  });

  test('follows what the pages are like', () => {
    const pays = new PaysOnLink(125e6);
    // Two batches to learn from, a probe, and then all.
    expect(run(pays, 50, 3, 2500).tried).toBeGreaterThan(46 * 64);
    expect(run(pays, 200, 1, 0).tried).toBeLessThan(12 * 64);
    expect(run(pays, 200, 3, 2500).tried).toBeGreaterThan(180 * 64);
  });

  test('costs next to nothing where it never pays', () => {
    const { timeUs } = run(new PaysOnLink(1.25e9), 1000, 3, 0);
    // Raw, a batch takes 64 x 4,096 bytes / 1.25 GB/s = 210 us on the link.
    expect((timeUs - 64_000) / (1000 * 210)).toBeLessThan(0.01);
  });

  test('is chosen by a divider from what it measures itself', async () => {
    const image = seededPages(51, 64 * 64, ['json', 'heap']);
    const slow = await makeDivider({ linkBytesPerS: 1e6 });
    const fast = await makeDivider({ linkBytesPerS: 1e13 });
    divideImage(slow, image);
    expect(slow.counts.compressedPages).toBeGreaterThan(3900);
    const frames = divideImage(fast, image);
    expect(fast.counts.compressedPages).toBeLessThan(100);
    const merger = await makeMerger([64 * 64]);
    const sink = new MemorySink([64 * 64]);
    for (const frame of frames) mergeFrame(merger, frame.bytes, sink);
    expect(Buffer.compare(sink.images[0]!, image)).toBe(0);
    await expect(Divider.create({ key, linkBytesPerS: 0 })).rejects.toThrow(/linkBytesPerS/);
  });
});
