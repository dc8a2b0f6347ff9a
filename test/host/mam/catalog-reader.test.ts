// The index that lies at several nodes: each block is read once, from whoever gives it whole, and what nobody gives is named.
import { randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import {
  encodeManifest,
  MANIFEST_ID,
  MAX_STATE_BYTES,
  partOf,
  partsOf,
  RECORDS_ID,
  RecordsWriter,
  STATE_ID,
} from '#abdm/host/mam/catalog.js';
import { CatalogReader, type IndexKeeper, readState } from '#abdm/host/mam/catalog-reader.js';
import { Sealer } from '#abdm/host/mam/seal.js';
import { pattern, same } from '../wire/pair.js';

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
let key: Uint8Array;
let sealer: Sealer;
let reader: CatalogReader;
let keepers: Keeper[];
let read: number[];

beforeEach(async () => {
  key = randomBytes(32);
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

test('records say which frames never come, without holders and without what stands before a payload', async () => {
  keepers[0]!.blocks.set(MANIFEST_ID, seal(MANIFEST_ID, manifest()[0]!));
  const writer = new RecordsWriter();
  writer.add({ frameId: 1, frameBytes: 9, vm: 0, pfns: [1], nodes: [node] });
  writer.add({ frameId: 2, frameBytes: 9, vm: 0, pfns: [2], nodes: [], meta: new Uint8Array(70) });
  writer.add({ frameId: 1, frameBytes: 9, vm: 0, pfns: [1], nodes: [], isVoid: true });
  keepers[0]!.blocks.set(RECORDS_ID, seal(RECORDS_ID, writer.take()));
  const said: unknown[] = [];
  await reader.poll(keepers, ({ frameId, state }, nodes, meta) => {
    said.push([frameId, state, nodes.length, meta?.length ?? null]);
  });
  expect(said).toEqual([
    [1, 'kept', 1, null],
    [2, 'kept', 0, 70],
    [1, 'void', 0, null],
  ]);
});

describe('an execution state', () => {
  const state = pattern(600_000, 7);
  const part = (i: number, of = state) => seal(STATE_ID + i, partOf(of, i));

  test('is read from whoever has a part whole', async () => {
    const first = part(0);
    const damaged = part(1);
    damaged[100]! ^= 1;
    keepers[0]!.blocks.set(STATE_ID, first).set(STATE_ID + 1, damaged);
    const again = await Sealer.create(key, 1);
    keepers[1]!.blocks.set(STATE_ID + 1, seal(STATE_ID + 1, partOf(state, 1), again)).set(STATE_ID + 2, part(2));
    // What others made of it, and parts that are of another VM, or that it cannot have.
    keepers[1]!.blocks.set(STATE_ID + 3, new Uint8Array(9)).set(STATE_ID + 2 ** 16, first);
    expect(same((await readState(key, keepers, 0))!, state)).toBe(true);
  });

  test('is none where none is listed, and cannot be had where a part is missing', async () => {
    expect(await readState(key, keepers, 0)).toBe(null);
    keepers[0]!.blocks.set(STATE_ID, part(0)).set(STATE_ID + 1, part(1));
    expect(await readState(key, keepers, 1)).toBe(null);
    await expect(readState(key, keepers, 0)).rejects.toMatchObject({ code: 'FRAME_LOST' });
    keepers[0]!.blocks.delete(STATE_ID);
    await expect(readState(key, keepers, 0)).rejects.toMatchObject({ code: 'FRAME_LOST' });
  });

  test.each<[string, () => Uint8Array[]]>([
    ['no parts', () => [new Uint8Array(8)]],
    ['an empty part', () => [new Uint8Array([1, 0, 0, 0])]],
    ['more parts than there may be', () => [new Uint8Array([0, 1, 0, 1, 9])]],
    ['parts of two states', () => [partOf(state, 0), partOf(pattern(900_000, 8), 1), partOf(state, 2)]],
  ])('with %s makes no sense', async (_, bodies) => {
    for (const [i, body] of bodies().entries()) keepers[0]!.blocks.set(STATE_ID + i, seal(STATE_ID + i, body));
    await expect(readState(key, keepers, 0)).rejects.toMatchObject({ code: 'PROTOCOL' });
  });

  test('may be 64 MiB long, and not longer', async () => {
    const long = new Uint8Array(MAX_STATE_BYTES);
    long[long.length - 1] = 7;
    const parts = partsOf(long);
    for (let i = 0; i < parts; i++) keepers[0]!.blocks.set(STATE_ID + i, part(i, long));
    expect(same((await readState(key, keepers, 0))!, long)).toBe(true);
    // The last part is longer than it may be, the others are as they were.
    const last = new Uint8Array(4 + 256_000);
    last.set(partOf(long, parts - 1).subarray(0, 4));
    const other = await Sealer.create(key, 1);
    keepers[0]!.blocks.set(STATE_ID + parts - 1, seal(STATE_ID + parts - 1, last, other));
    // What is expected is not shown: it is long.
    const became = await readState(key, keepers, 0).then(
      () => 'read',
      ({ code }) => code,
    );
    expect(became).toBe('PROTOCOL');
  });
});
