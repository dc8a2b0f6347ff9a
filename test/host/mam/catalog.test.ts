// The index that lies at the nodes: what is written is read, and nothing else is believed.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeManifest,
  encodeManifest,
  MAX_BODY_BYTES,
  type Manifest,
  RecordsWriter,
  readRecords,
} from '#abdm/host/mam/catalog.js';
import type { NodeRef } from '#abdm/host/mam/keeper.js';
import { RecordWriter } from '#abdm/host/wire/records.js';

const manifest: Manifest = {
  migration: 'ab'.repeat(16),
  sealed: true,
  replicas: 2,
  vms: [{ name: 'a', bytes: 10_000, pages: 3, regions: [{ name: 'ram', address: 0, bytes: 10_000 }] }],
};
const node = (n: number): NodeRef => ({ id: n.toString(16).padStart(32, '0'), address: `10.0.0.${n}:7000` });
const coded = expect.objectContaining({ code: 'PROTOCOL' });

describe('a manifest', () => {
  test('is read as it was written', () => {
    expect(decodeManifest(encodeManifest(manifest))).toEqual(manifest);
  });

  test('of many regions is cut in parts, all of which are needed', () => {
    const regions = Array.from({ length: 20_000 }, (_, i) => ({ name: `region ${i}`, address: i * 8192, bytes: 4096 }));
    const large = { ...manifest, vms: [{ name: 'a', bytes: 20_000 * 4096, pages: 20_000, regions }] };
    const parts = encodeManifest(large);
    expect(parts.length).toBeGreaterThan(3);
    expect(Math.max(...parts.map(({ byteLength }) => byteLength))).toBeLessThan(MAX_BODY_BYTES);
    expect(decodeManifest(parts)).toEqual(large);
    expect(() => decodeManifest(parts.slice(1))).toThrow(coded);
  });

  test('that does not fit the blocks it may take is refused where it is made', () => {
    const regions = Array.from({ length: 65_000 }, (_, i) => ({ name: 'x'.repeat(200), address: i, bytes: 1 }));
    expect(() => encodeManifest({ ...manifest, vms: [{ ...manifest.vms[0]!, regions }] })).toThrow(
      expect.objectContaining({ code: 'IMAGE' }),
    );
  });

  test.each([
    ['no parts', [new Uint8Array(8)]],
    ['nothing', [new Uint8Array(0)]],
    ['another protocol', encodeManifest({ ...manifest, ...({ protocol: 1 } as object) })],
    ['no VM', encodeManifest({ ...manifest, vms: [] })],
    ['more replicas than there may be', encodeManifest({ ...manifest, replicas: 17 })],
  ])('with %s is refused', (_, parts) => {
    expect(() => decodeManifest(parts)).toThrow(coded);
  });
});

describe('a block of records', () => {
  const vms = [{ pages: 1000 }, { pages: 100_000 }];
  const record = fc.record({
    frameId: fc.integer({ min: 1, max: 2 ** 47 - 1 }),
    frameBytes: fc.integer({ min: 1, max: 264 * 1024 }),
    vm: fc.constant(1),
    pfns: fc
      .uniqueArray(fc.integer({ min: 0, max: 60_000 }), { minLength: 1, maxLength: 64 })
      .map((pfns) => pfns.sort((a, b) => a - b)),
    holders: fc.uniqueArray(fc.integer({ min: 1, max: 200 }), { maxLength: 16 }),
    isVoid: fc.boolean(),
    meta: fc.uint8Array({ minLength: 1, maxLength: 2000 }),
  });

  test('is read as it was written', () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 40 }), (records) => {
        const writer = new RecordsWriter();
        const written = records.map(({ holders, meta, isVoid, ...rest }) => {
          const nodes = isVoid ? [] : holders.map(node);
          const whole = { ...rest, nodes, isVoid, ...(nodes.length === 0 && !isVoid && { meta }) };
          expect(writer.add(whole)).toBe(true);
          return whole;
        });
        expect(writer.records).toBe(records.length);
        const read: object[] = [];
        readRecords(writer.take(), vms, ({ frameId, frameBytes, vm, pages, pfns, state }, nodes, meta) => {
          const isVoid = state === 'void';
          const whole = { frameId, frameBytes, vm, pfns: [...pfns.subarray(0, pages)], nodes, isVoid };
          read.push(meta ? { ...whole, meta: meta.slice() } : whole);
        });
        expect(read).toEqual(written);
        expect(writer.take()).toEqual(new Uint8Array(2));
      }),
    );
  });

  test('takes no more than fits, and says so', () => {
    const writer = new RecordsWriter();
    const meta = new Uint8Array(2000);
    let id = 1;
    while (writer.add({ frameId: id, frameBytes: 1, vm: 0, pfns: [0], nodes: [], meta })) id++;
    expect(writer.records).toBe(id - 1);
    const body = writer.take();
    expect(body.byteLength).toBeLessThanOrEqual(MAX_BODY_BYTES);
    expect(body.byteLength).toBeGreaterThan(MAX_BODY_BYTES - 2100);
    for (id = 1; writer.add({ frameId: id, frameBytes: 1, vm: 0, pfns: [0], nodes: [node(id)] }); ) id++;
    expect(id).toBe(257);
  });

  test('that is cut short anywhere, or names what there is not, is refused', () => {
    const writer = new RecordsWriter();
    writer.add({ frameId: 1, frameBytes: 9, vm: 1, pfns: [3, 7], nodes: [node(1), node(2)] });
    writer.add({ frameId: 2, frameBytes: 9, vm: 1, pfns: [9], nodes: [], meta: new Uint8Array(60) });
    const body = writer.take();
    let whole = 0;
    for (let length = 0; length < body.byteLength; length++) {
      try {
        readRecords(body.subarray(0, length), vms, () => {});
        whole++;
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' });
      }
    }
    // The nodes alone, and the first record with them, are blocks too.
    expect(whole).toBe(2);
    expect(() => readRecords(body, [{ pages: 1000 }], () => {})).toThrow(coded);
    expect(() => readRecords(body, [{ pages: 1000 }, { pages: 7 }], () => {})).toThrow(coded);
    const many = body.slice();
    many.set([1, 1]);
    expect(() => readRecords(many, vms, () => {})).toThrow(coded);
  });

  test('says nothing of frames that are on their way', () => {
    const writer = new RecordWriter();
    writer.add(1, 9, 0, [], [5], 1, 0, 'coming');
    const body = new Uint8Array([0, 0, ...writer.take()]);
    expect(() => readRecords(body, vms, () => {})).toThrow(coded);
  });

  test('of bytes that anybody made up is refused or read, and nothing worse', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        try {
          readRecords(bytes, vms, ({ vm, pfns, pages }) => expect(pfns[pages - 1]).toBeLessThan(vms[vm]!.pages));
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' });
        }
      }),
    );
  });
});
