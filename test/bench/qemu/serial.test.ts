import { createHash } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { longestSilenceMs, Serial } from '../../../bench/qemu/serial.js';
import { sha256Of } from '../../../bench/qemu/stream.js';

function serial(): { output: PassThrough; heard: Serial } {
  const output = new PassThrough();
  return { output, heard: new Serial(output, new PassThrough()) };
}

it('lines are what is left without signs of life, however they are cut', async () => {
  const { output, heard } = serial();
  const text = '..\r\nABDM PULSE 200 STALL 1500\r\n...ABDM PULSE 400 STALL 72000\r\n....\nABDM VERIFY OK\r\n..';
  for (const letter of text) output.write(letter);
  expect((await heard.line(/VERIFY (\w+)/))[1]).toBe('OK');
  expect(heard.lines.map((line) => line.text)).toEqual([
    'ABDM PULSE 200 STALL 1500',
    'ABDM PULSE 400 STALL 72000',
    'ABDM VERIFY OK',
  ]);
  expect(heard.longestStallMs).toBe(72);
  expect(heard.wrong).toEqual([]);
});

it('what a guest finds wrong is wrong, and one that ends answers nobody', async () => {
  const { output, heard } = serial();
  output.write('ABDM WRITER FAIL\n[ 1.0] Kernel panic - not syncing\n');
  const waiting = heard.line(/ABDM ROUND/);
  output.destroy();
  await expect(waiting).rejects.toThrow('ended before it said');
  expect(heard.wrong).toHaveLength(2);
});

it('a guest that is never heard again is silent to the end', async () => {
  const [here, there] = [serial(), serial()];
  const from = performance.timeOrigin + performance.now();
  here.output.write('.');
  await sleep(60);
  there.output.write('.');
  await sleep(10);
  const all = [here.heard, there.heard];
  const heardAtMs = there.heard.signsOfLife[0]!;
  expect(longestSilenceMs(all, from, heardAtMs + 5)).toBeGreaterThan(40);
  expect(longestSilenceMs(all, from, heardAtMs + 1000)).toBe(1000);
});

it("the stream's first bytes are those of xorshift32 from 2463534242 on, again and again", () => {
  const first = Buffer.from(new Uint32Array([723_471_715, 2_497_366_906]).buffer);
  expect(sha256Of(8)).toBe(createHash('sha256').update(first).digest('hex'));
  expect(sha256Of(5_000_000)).not.toBe(sha256Of(5_000_001));
});
