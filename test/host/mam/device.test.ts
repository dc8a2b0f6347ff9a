// The device of a VM over real nodes: what is read is what was written, whichever node has it and whichever is gone.
import { randomBytes } from 'node:crypto';
import {
  type AbdmError,
  DeviceReader,
  DeviceWriter,
  type Intermediate,
  type Security,
  startIntermediate,
} from 'abdm/host';
import { afterEach, describe, expect, test } from 'vitest';
import { seeded } from '../../engine.js';
import { seededPages } from '../../pages.js';

const PAGE_BYTES = 4096;
const key = new Uint8Array(randomBytes(32));
const nodes: Intermediate[] = [];

async function start(count: number, security?: Security): Promise<string[]> {
  for (let i = 0; i < count; i++) {
    nodes.push(
      await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64 * 2 ** 20, ...(security && { security }) }),
    );
  }
  return nodes.map(({ address }) => address);
}

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.close()));
});

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const codeOf = (error: unknown) => (error as AbdmError).code;

describe('a device', () => {
  const secured = { clusterKey: new Uint8Array(randomBytes(32)), tls: null } as Security;
  test.each([
    ['open', undefined],
    ['sealed', secured],
  ])('reads as it was written, in whatever order and however often: %s', async (_name, security) => {
    const intermediates = await start(3, security);
    const at = { name: 'web', key, intermediates, ...(security && { security }) };
    const image = new Uint8Array(2000 * PAGE_BYTES);
    // Half a page at the end.
    const bytes = image.length - 2048;
    const writer = await DeviceWriter.create({ ...at, bytes });
    const reader = await DeviceReader.open(at);
    expect(reader.bytes).toBe(bytes);
    const random = seeded(7);
    for (let round = 0; round < 4; round++) {
      const fresh = seededPages(50 + round, 2000);
      for (let i = 0; i < 60; i++) {
        const pfn = random() % 2000;
        const pages = Math.min(1 + (random() % 40), 2000 - pfn);
        const offset = pfn * PAGE_BYTES;
        const piece = fresh.subarray(offset, Math.min(offset + pages * PAGE_BYTES, bytes));
        await writer.write(offset, piece);
        image.set(piece, offset);
      }
      await writer.flush();
      await reader.refresh();
      expect(same(await reader.read(0, bytes), image.subarray(0, bytes))).toBe(true);
    }
    // Page by page, backwards; several at once.
    const pfns = Array.from({ length: 100 }, () => random() % 1999).sort((a, b) => b - a);
    const pages = await Promise.all(pfns.map((pfn) => reader.read(pfn * PAGE_BYTES, PAGE_BYTES)));
    for (const [i, pfn] of pfns.entries()) {
      expect(same(pages[i]!, image.subarray(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES))).toBe(true);
    }
    await writer.close();
    const later = await DeviceReader.open(at);
    expect(same(await later.read(0, bytes), image.subarray(0, bytes))).toBe(true);
    reader.close();
    await later.drop();
    expect(nodes.map((node) => node.status().frames)).toEqual([0, 0, 0]);
    await expect(DeviceReader.open(at)).rejects.toMatchObject({ code: 'USAGE' });
  });

  test('with two copies outlives a node, while it is written and when it is read', async () => {
    const intermediates = await start(4);
    const at = { name: 'db', key, intermediates };
    const image = seededPages(3, 3000);
    const writer = await DeviceWriter.create({ ...at, bytes: image.length, replicas: 2 });
    await writer.write(0, image.subarray(0, image.length / 2));
    await nodes[1]!.close();
    await writer.write(image.length / 2, image.subarray(image.length / 2));
    await writer.close();
    const reader = await DeviceReader.open(at);
    await nodes[2]!.close();
    expect(same(await reader.read(0, image.length), image)).toBe(true);
    reader.close();
  });

  test('with one copy says what is lost with a node, and never anything wrong', async () => {
    const intermediates = await start(2);
    const at = { name: 'one', key, intermediates };
    const image = seededPages(4, 2000);
    const writer = await DeviceWriter.create({ ...at, bytes: image.length });
    await writer.write(0, image);
    await writer.close();
    const reader = await DeviceReader.open(at);
    await nodes[0]!.close();
    let lost = 0;
    for (let offset = 0; offset < image.length; offset += 20 * PAGE_BYTES) {
      try {
        const read = await reader.read(offset, 20 * PAGE_BYTES);
        expect(same(read, image.subarray(offset, offset + 20 * PAGE_BYTES))).toBe(true);
      } catch (error) {
        expect(codeOf(error)).toBe('FRAME_LOST');
        lost++;
      }
    }
    expect(lost).toBeGreaterThan(5);
    expect(lost).toBeLessThan(95);
    reader.close();
  });

  test('that loses pages while it is written says so', async () => {
    const intermediates = await start(2);
    const writer = await DeviceWriter.create({ name: 'torn', key, intermediates, bytes: 2 ** 24 });
    await writer.write(0, seededPages(5, 2000));
    await writer.flush();
    await nodes[0]!.close();
    await expect(
      (async () => {
        for (;;) {
          await writer.write(0, seededPages(6, 64));
          await writer.flush();
        }
      })(),
    ).rejects.toMatchObject({ code: 'FRAME_LOST' });
    await writer.drop();
    expect(nodes[1]!.status().frames).toBe(0);
  });

  test("is nobody else's: another key, another name, pages that are none", async () => {
    const intermediates = await start(1);
    const at = { name: 'mine', key, intermediates };
    const writer = await DeviceWriter.create({ ...at, bytes: 10 * PAGE_BYTES });
    await expect(DeviceWriter.create({ ...at, bytes: 4096 })).rejects.toMatchObject({ code: 'USAGE' });
    for (const [offset, length] of [
      [1, PAGE_BYTES],
      [0, 100],
      [10 * PAGE_BYTES, PAGE_BYTES],
      [-PAGE_BYTES, PAGE_BYTES],
    ] as const) {
      await expect(writer.write(offset, new Uint8Array(length))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    }
    await writer.write(0, randomBytes(PAGE_BYTES));
    await writer.close();
    await expect(DeviceReader.open({ ...at, key: randomBytes(32) })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(DeviceReader.open({ ...at, name: 'yours' })).rejects.toThrow('no node knows');
    await expect(DeviceReader.open({ ...at, key: randomBytes(31) })).rejects.toThrow('32');
    const reader = await DeviceReader.open(at);
    await expect(reader.read(0, 11 * PAGE_BYTES)).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    await reader.drop();
  });
});
