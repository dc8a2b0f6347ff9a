import { expect, test } from 'vitest';
import { Output } from '#abdm/host/qemu/output.js';

const KIB_256 = 256 * 1024;

test('what was handed on stays as it was until it is released, and its memory is used again after that', () => {
  const sent: Uint8Array[] = [];
  const output = new Output((bytes) => sent.push(bytes));
  const piece = (value: number) => output.bytes(new Uint8Array(100_000).fill(value));
  const isAll = (bytes: Uint8Array, value: number) => bytes.every((byte) => byte === value);
  for (let value = 1; value <= 8; value++) {
    piece(value);
    output.flush();
  }
  const text = Buffer.concat(sent);
  expect(text.length).toBe(800_000);
  for (let value = 1; value <= 8; value++) {
    expect(isAll(text.subarray((value - 1) * 100_000, value * 100_000), value)).toBe(true);
  }
  const memory = new Set(sent.map(({ buffer }) => buffer));
  expect(memory.size).toBe(4);
  // One of the parts of a buffer, and all parts of the others.
  const [kept, ...others] = sent.splice(0);
  const before = Buffer.from(kept!);
  for (const bytes of others) output.release(bytes);
  for (let value = 11; value <= 20; value++) {
    piece(value);
    output.flush();
    for (const bytes of sent.splice(0)) {
      expect(isAll(bytes, value)).toBe(true);
      expect(memory.has(bytes.buffer)).toBe(true);
      expect(bytes.buffer).not.toBe(kept!.buffer);
      output.release(bytes);
    }
  }
  expect(before.equals(kept!)).toBe(true);
});

test('bytes of any length go through, whoever releases nothing', () => {
  const sent: Uint8Array[] = [];
  const output = new Output((bytes) => sent.push(bytes));
  const bytes = new Uint8Array(3 * KIB_256 + 17).map((_, i) => i * 7);
  output.u8(1);
  output.bytes(bytes);
  output.flush();
  expect(Buffer.concat(sent).subarray(1).equals(Buffer.from(bytes))).toBe(true);
});
