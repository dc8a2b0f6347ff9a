import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DEDUP_BUCKET_BYTES, DEDUP_WAYS, ID_BYTES } from '#abdm/bindings/abi.js';
import { type RawEngine, rawEngine, seeded } from '../engine.js';

/** The slow plain twin: a bucket is a list of at most five, oldest first. */
class Oracle {
  private readonly buckets: { id: string; ref: number }[][];
  constructor(count: number) {
    this.buckets = Array.from({ length: count }, () => []);
  }
  private bucket(id: Uint8Array) {
    const low = (id[0]! | (id[1]! << 8) | (id[2]! << 16) | (id[3]! << 24)) >>> 0;
    return this.buckets[low % this.buckets.length]!;
  }
  find(id: Uint8Array): number {
    return this.bucket(id).find((entry) => entry.id === String(id))?.ref ?? -1;
  }
  insert(id: Uint8Array, frameId: number, slot: number): void {
    const bucket = this.bucket(id);
    const known = bucket.find((entry) => entry.id === String(id));
    if (known) known.ref = frameId * 64 + slot;
    else {
      if (bucket.length === DEDUP_WAYS) bucket.shift();
      bucket.push({ id: String(id), ref: frameId * 64 + slot });
    }
  }
}

class Table {
  private readonly idPtr: number;
  readonly engine: RawEngine;
  readonly ptr: number;
  constructor(readonly buckets: number) {
    this.engine = rawEngine(buckets * DEDUP_BUCKET_BYTES + 4096);
    this.ptr = this.engine.free + 1024;
    this.idPtr = this.engine.free;
    this.engine.bytes.fill(0xaa, this.engine.free);
    this.engine.dedupInit(this.ptr, buckets);
    this.engine.dedupClear();
  }
  find(id: Uint8Array): number {
    this.engine.bytes.set(id, this.idPtr);
    return this.engine.dedupFind(this.idPtr);
  }
  insert(id: Uint8Array, frameId: number, slot: number): void {
    this.engine.bytes.set(id, this.idPtr);
    this.engine.dedupInsert(this.idPtr, frameId, slot);
  }
}

const randomId = (next: () => number): Uint8Array =>
  new Uint8Array(new Uint32Array([next(), next(), next(), next()]).buffer);

// Ids of few different bytes, so that they meet in buckets, in tags and in halves.
const closeId = fc
  .array(fc.constantFrom(0, 0, 0, 1, 2, 128, 255), { minLength: ID_BYTES, maxLength: ID_BYTES })
  .map((bytes) => Uint8Array.from(bytes));

test('finds what a plain table finds, whatever the order of inserts, replacements and look-ups', () => {
  const step = fc.record({
    insert: fc.boolean(),
    pick: fc.nat(),
    frameId: fc.integer({ min: 1, max: 2 ** 47 - 1 }),
    slot: fc.nat(63),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 8),
      fc.array(closeId, { minLength: 1, maxLength: 24 }),
      fc.array(step, { maxLength: 80 }),
      (buckets, ids, steps) => {
        const table = new Table(buckets);
        const oracle = new Oracle(buckets);
        for (const { insert, pick, frameId, slot } of steps) {
          const id = ids[pick % ids.length]!;
          if (insert) {
            table.insert(id, frameId, slot);
            oracle.insert(id, frameId, slot);
          }
          expect(table.find(id)).toBe(oracle.find(id));
        }
        for (const id of ids) expect(table.find(id)).toBe(oracle.find(id));
      },
    ),
  );
});

test.each([1, 2, 3])(
  '20,000 seeded ids in 1,024 buckets, far more than fit: equal to the plain table (seed %i)',
  (seed) => {
    const next = seeded(seed);
    const table = new Table(1024);
    const oracle = new Oracle(1024);
    const ids: Uint8Array[] = [];
    for (let i = 0; i < 20_000; i++) {
      const id = i > 100 && next() % 4 === 0 ? ids[i - (next() % 100) - 1]! : randomId(next);
      ids.push(id);
      table.insert(id, i + 1, i & 63);
      oracle.insert(id, i + 1, i & 63);
    }
    let known = 0;
    for (const id of ids) {
      const found = table.find(id);
      if (found !== -1) known++;
      expect(found).toBe(oracle.find(id));
    }
    expect(known).toBeGreaterThan(1024 * 4);
  },
);

test('an id that differs in a single bit is another id', () => {
  const next = seeded(7);
  const id = randomId(next);
  // In each way in turn: the first way's id is compared with other instructions than the last one's.
  for (let way = 0; way < DEDUP_WAYS; way++) {
    const table = new Table(1);
    for (let i = 0; i < way; i++) table.insert(randomId(next), 1, i);
    table.insert(id, 2, way);
    for (let bit = 0; bit < 128; bit++) {
      const other = id.slice();
      other[bit >> 3]! ^= 1 << (bit & 7);
      expect(table.find(other)).toBe(-1);
    }
    expect(table.find(id)).toBe(2 * 64 + way);
  }
});

test('a full bucket forgets its oldest content, and inserting a known one renews its reference but not its age', () => {
  const next = seeded(9);
  const table = new Table(1);
  const ids = Array.from({ length: 8 }, () => randomId(next));
  for (let i = 0; i < 5; i++) table.insert(ids[i]!, 1, i);
  table.insert(ids[0]!, 9, 9);
  expect(table.find(ids[0]!)).toBe(9 * 64 + 9);
  table.insert(ids[5]!, 2, 5);
  expect(ids.slice(0, 6).map((id) => table.find(id))).toEqual([-1, 65, 66, 67, 68, 133]);
  table.insert(ids[6]!, 2, 6);
  table.insert(ids[7]!, 2, 7);
  expect(ids.map((id) => table.find(id))).toEqual([-1, -1, -1, 67, 68, 133, 134, 135]);
});

test('stays within its memory, and is empty again after dedupClear', () => {
  const next = seeded(4);
  const table = new Table(16);
  const id = randomId(next);
  for (let i = 0; i < 1000; i++) table.insert(randomId(next), i + 1, 0);
  table.insert(id, 5, 5);
  const { bytes, free } = table.engine;
  expect(bytes.subarray(free + ID_BYTES, table.ptr).every((byte) => byte === 0xaa)).toBe(true);
  expect(bytes.subarray(table.ptr + 16 * DEDUP_BUCKET_BYTES).every((byte) => byte === 0xaa)).toBe(true);
  expect(table.find(id)).toBe(325);
  table.engine.dedupClear();
  expect(table.find(id)).toBe(-1);
});

test('the id of zeros is an id like any other, not that of an empty way', () => {
  const table = new Table(1);
  const zero = new Uint8Array(ID_BYTES);
  expect(table.find(zero)).toBe(-1);
  table.insert(zero, 1, 1);
  table.insert(randomId(seeded(1)), 2, 2);
  expect(table.find(zero)).toBe(65);
  expect(table.find(randomId(seeded(1)))).toBe(130);
});
