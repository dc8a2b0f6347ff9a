// The index that lies at several nodes: each block is read once, from whoever gives it whole, and what nobody gives is named.
import { randomBytes } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import { encodeManifest, MANIFEST_ID, RECORDS_ID, RecordsWriter } from '#abdm/host/mam/catalog.js';
import { CatalogReader, type IndexKeeper } from '#abdm/host/mam/catalog-reader.js';
import { Sealer } from '#abdm/host/mam/seal.js';

class Keeper implements IndexKeeper {
  readonly address = '10.0.0.1:7000';
  readonly blocks = new Map<number, Uint8Array>();
  readonly asked: number[] = [];
  gone = false;

  async get(id: number, into: Uint8Array): Promise<number> {
    this.asked.push(id);
    const block = this.blocks.get(id);
    if (!block) throw new AbdmError('FRAME_LOST', `no ${id}`);
    into.set(block);
    return block.byteLength;
  }

  async list(from: number, to: number, each: (ids: readonly number[]) => void): Promise<void> {
    if (this.gone) throw new AbdmError('PEER_GONE', 'gone');
    each([...this.blocks.keys()].filter((id) => id >= from && id < to).sort((a, b) => a - b));
  }
}

const vms = [{ name: 'a', bytes: 400_000, pages: 98, regions: [] }];
const node = { address: '10.0.0.2:7000', id: 'ab'.repeat(16) };
let sealer: Sealer;
let reader: CatalogReader;
let keepers: Keeper[];
let read: number[];

beforeEach(async () => {
  const key = randomBytes(32);
  sealer = await Sealer.create(key, 8);
  reader = await CatalogReader.create(key);
  keepers = [new Keeper(), new Keeper()];
  read = [];
});

function seal(id: number, body: Uint8Array, by = sealer): Uint8Array {
  const block = by.seal(id, body);
  const bytes = block.bytes.slice();
  block.release();
  return bytes;
}

const manifest = () => encodeManifest({ migration: 'cd'.repeat(16), sealed: false, replicas: 1, vms });

function records(...ids: number[]): Uint8Array {
  const writer = new RecordsWriter();
  for (const frameId of ids) writer.add({ frameId, frameBytes: 9, vm: 0, pfns: [frameId], nodes: [node] });
  return writer.take();
}

const poll = () => reader.poll(keepers, ({ frameId }) => read.push(frameId));

test('blocks are read once, in their order, as they come', async () => {
  keepers[1]!.blocks.set(RECORDS_ID, seal(RECORDS_ID, records(1, 2)));
  await poll();
  expect([read, reader.manifest]).toEqual([[], null]);
  const first = seal(MANIFEST_ID, manifest()[0]!);
  for (const { blocks } of keepers) blocks.set(MANIFEST_ID, first);
  await poll();
  expect([read, reader.manifest]).toMatchObject([[1, 2], { replicas: 1, vms }]);
  keepers[0]!.blocks.set(RECORDS_ID + 1, seal(RECORDS_ID + 1, records(3)));
  await poll();
  await poll();
  expect(read).toEqual([1, 2, 3]);
  expect(keepers.flatMap(({ asked }) => asked).length).toBe(3);
});

test('what one gives damaged, or not at all, another gives; what none gives is named, and asked for again', async () => {
  const good = seal(MANIFEST_ID, manifest()[0]!);
  const bad = good.slice();
  bad[40]! ^= 1;
  keepers[0]!.blocks.set(MANIFEST_ID, bad);
  keepers[1]!.blocks.set(MANIFEST_ID, good);
  const block = seal(RECORDS_ID, records(1));
  keepers[0]!.blocks.set(RECORDS_ID, block.subarray(0, 20));
  await poll();
  expect(reader.manifest).not.toBeNull();
  expect(reader.missing).toMatchObject([{ id: RECORDS_ID, why: { code: 'FRAME_MALFORMED' } }]);
  keepers[0]!.gone = true;
  keepers[1]!.blocks.set(RECORDS_ID, block);
  await poll();
  expect([read, reader.missing]).toEqual([[1], []]);
});

test('what another key has sealed is not read: the reason is the key', async () => {
  const other = await Sealer.create(randomBytes(32), 1);
  keepers[0]!.blocks.set(MANIFEST_ID, seal(MANIFEST_ID, manifest()[0]!, other));
  await poll();
  expect([reader.manifest, reader.missing[0]!.why.code]).toEqual([null, 'FRAME_TAG']);
});

test('a block that stands at the place of another one is not read', async () => {
  keepers[0]!.blocks.set(MANIFEST_ID, seal(MANIFEST_ID, manifest()[0]!));
  keepers[0]!.blocks.set(RECORDS_ID + 7, seal(RECORDS_ID, records(1)));
  await poll();
  expect([read, reader.missing.length]).toEqual([[], 1]);
});

test('a block that was sealed by one of us and makes no sense ends it', async () => {
  keepers[0]!.blocks.set(MANIFEST_ID, seal(MANIFEST_ID, manifest()[0]!));
  keepers[0]!.blocks.set(RECORDS_ID, seal(RECORDS_ID, records(98)));
  await expect(poll()).rejects.toMatchObject({ code: 'PROTOCOL' });
});
