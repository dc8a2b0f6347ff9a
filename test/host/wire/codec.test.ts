import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAddress, parseAddress } from '#abdm/host/wire/address.js';
import { decodeJson, encodeJson, need, printable } from '#abdm/host/wire/json.js';
import {
  decodeHeader,
  decodeU64s,
  encodeHeader,
  encodeU64s,
  MAX_FRAME_BYTES,
  MessageType,
  maxBodyBytes,
  messageName,
} from '#abdm/host/wire/messages.js';
import {
  type FrameRecord,
  type FrameState,
  type RecordLimits,
  RecordReader,
  RecordWriter,
} from '#abdm/host/wire/records.js';
import { pattern } from './pair.js';

describe('a header', () => {
  it('lies on the wire as docs/protocol.md draws it', () => {
    const bytes = new Uint8Array(18);
    encodeHeader(bytes, 1, MessageType.PUT, 0x020304, 2 ** 52 + 5);
    expect([...bytes]).toEqual([0, 3, 0, 0, 0, 4, 3, 2, 0, 5, 0, 0, 0, 0, 0, 0x10, 0, 0]);
  });

  it('comes back as it was, for every type at its limits', () => {
    for (const type of Object.values(MessageType)) {
      const bytes = new Uint8Array(16);
      encodeHeader(bytes, 0, type, maxBodyBytes(type), 0);
      expect(decodeHeader(bytes, 0)).toEqual({ type, bodyBytes: maxBodyBytes(type), id: 0, chain: 0 });
      expect(() => encodeHeader(bytes, 0, type, maxBodyBytes(type) + 1, 0)).toThrow(RangeError);
      expect(messageName(type)).toMatch(/^[A-Z_]+$/);
    }
  });

  it('is refused or understood exactly, whatever its bytes', () => {
    const bytes = fc.uint8Array({ minLength: 16, maxLength: 16 });
    const nearly = fc.tuple(fc.nat(20), fc.nat(300_000), fc.maxSafeNat()).map(([type, length, id]) => {
      const view = new DataView(new ArrayBuffer(16));
      view.setUint8(0, type);
      view.setUint32(4, length, true);
      view.setBigUint64(8, BigInt(id), true);
      return new Uint8Array(view.buffer);
    });
    fc.assert(
      fc.property(fc.oneof(bytes, nearly), (input) => {
        let header: ReturnType<typeof decodeHeader>;
        try {
          header = decodeHeader(input, 0);
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' });
          return;
        }
        const again = new Uint8Array(16);
        encodeHeader(again, 0, header.type, header.bodyBytes, header.id, header.chain);
        expect(again).toEqual(input);
      }),
      { numRuns: 3000 },
    );
  });

  it('has a 64-bit body beside it in STORED', () => {
    expect(decodeU64s(encodeU64s(2 ** 53 - 1, 7), 'x')).toEqual([2 ** 53 - 1, 7]);
    expect(() => decodeU64s(new Uint8Array(8).fill(255), 'x')).toThrow('2^53');
    expect(() => decodeU64s(new Uint8Array(7), 'x')).toThrow('7 bytes');
  });
});

describe('a JSON body', () => {
  it('must be one object, in UTF-8, within its limit', () => {
    for (const text of ['', '[]', 'null', '1', '"a"', '{', '{"a":1}x']) {
      expect(() => decodeJson(new TextEncoder().encode(text), 'READY')).toThrow(/^READY: the body is not/);
    }
    expect(() => decodeJson(Uint8Array.of(0x7b, 0xff, 0x7d), 'READY')).toThrow(/not JSON/);
    expect(() => decodeJson(encodeJson({ a: 'x'.repeat(100) }), 'READY', 50)).toThrow(/50 are allowed/);
  });

  it('is asked for each field by name, type and range', () => {
    const body = decodeJson(encodeJson({ s: 'text', n: 5, b: true, o: { k: 1 }, l: [1, 2], f: 1.5 }), 'X');
    expect(need.string(body, 's', 'X')).toBe('text');
    expect(need.integer(body, 'n', 'X', 0, 5)).toBe(5);
    expect(need.boolean(body, 'b', 'X')).toBe(true);
    expect(need.object(body, 'o', 'X')).toEqual({ k: 1 });
    expect(need.list(body, 'l', 'X', 2, (item) => item)).toEqual([1, 2]);
    expect(need.oneOf(body, 's', 'X', ['a', 'text'])).toBe('text');
    expect(() => need.string(body, 's', 'X', 3)).toThrow('X: `s` has 4 characters');
    expect(() => need.string(body, 'toString', 'X')).toThrow('not a string');
    expect(() => need.integer(body, 'n', 'X', 0, 4)).toThrow('whole number from 0 to 4');
    expect(() => need.integer(body, 'f', 'X')).toThrow('whole number');
    expect(() => need.boolean(body, 'n', 'X')).toThrow('neither');
    expect(() => need.object(body, 'l', 'X')).toThrow('not an object');
    expect(() => need.list(body, 'l', 'X', 1, (item) => item)).toThrow('1 are allowed');
    expect(() => need.list(body, 's', 'X', 1, (item) => item)).toThrow('not a list');
    expect(() => need.oneOf(body, 's', 'X', ['a'])).toThrow('none of a');
  });

  it('cannot reach the prototype, nor a terminal', () => {
    const body = decodeJson(new TextEncoder().encode('{"__proto__":{"role":"source"}}'), 'X');
    expect(() => need.string(body, 'role', 'X')).toThrow('not a string');
    expect(printable('a\u001b[2Jb\nc\u202ed')).toBe('a [2Jb c d');
    expect(printable('x'.repeat(600)).length).toBe(503);
  });
});

describe('records', () => {
  const limits: RecordLimits = { nodes: 5, vms: 3, imagePages: () => 1_000_000 };
  const collect = (body: Uint8Array, within = limits) => {
    const out: (Pick<FrameRecord, 'state' | 'frameId' | 'frameBytes' | 'vm'> & { nodes: number[]; pfns: number[] })[] =
      [];
    new RecordReader(within).read(body, (r: FrameRecord) => {
      const nodes = [...r.nodeIndexes.subarray(0, r.nodes)];
      out.push({
        state: r.state,
        frameId: r.frameId,
        frameBytes: r.frameBytes,
        vm: r.vm,
        nodes,
        pfns: [...r.pfns.subarray(0, r.pages)],
      });
    });
    return out;
  };
  const STATES: readonly FrameState[] = ['kept', 'coming', 'void'];
  const anyRecord = fc.record({
    state: fc.constantFrom(...STATES),
    frameId: fc.maxSafeNat(),
    frameBytes: fc.integer({ min: 1, max: MAX_FRAME_BYTES }),
    vm: fc.nat(2),
    nodes: fc.uniqueArray(fc.nat(4), { maxLength: 3 }),
    pfns: fc
      .tuple(
        fc.nat(900_000),
        fc.oneof(fc.constant<number[]>([]), fc.uniqueArray(fc.integer({ min: 1, max: 65535 }), { maxLength: 63 })),
      )
      .map(([first, deltas]) => [first, ...deltas.sort((a, b) => a - b).map((delta) => first + delta)]),
  });
  // Only what is kept is at nodes.
  const record = anyRecord.map((r) => ({ ...r, nodes: r.state === 'kept' ? r.nodes : [] }));
  const add = (writer: RecordWriter, { frameId, frameBytes, vm, nodes, pfns, state }: ReturnType<typeof collect>[0]) =>
    writer.add(frameId, frameBytes, vm, nodes, pfns, pfns.length, 0, state);
  const run = fc
    .nat(900_000)
    .chain((first) => fc.integer({ min: 1, max: 64 }).map((n) => Array.from({ length: n }, (_, i) => first + i)));
  const records = fc.array(
    fc.oneof(
      record,
      fc.tuple(record, run).map(([r, pfns]) => ({ ...r, pfns })),
    ),
    { maxLength: 20 },
  );

  it('come back as they were written', () => {
    const writer = new RecordWriter();
    fc.assert(
      fc.property(records, (list) => {
        for (const r of list) expect(add(writer, r)).toBe(true);
        expect(writer.records).toBe(list.length);
        expect(collect(writer.take())).toEqual(list);
      }),
    );
  });

  it('lie on the wire as docs/protocol.md draws them', () => {
    const writer = new RecordWriter();
    writer.add(0x0102, 300, 2, [4, 1], [1000, 1001, 1002]);
    writer.add(7, 1, 0, [], [5, 9, 20], 2, 1);
    writer.add(8, 1, 0, [], [6], 1, 0, 'coming');
    writer.add(9, 1, 0, [], [6, 8], 2, 0, 'void');
    expect([...writer.take()]).toEqual([
      ...[2, 1, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 2, 0, 3, 2, 0xe8, 3, 0, 0, 0, 0, 0, 0, 1, 4, 1],
      ...[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0],
      ...[8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 3],
      ...[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 6, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 2, 0],
    ]);
  });

  it('do not go beyond one message: the writer says when it is full', () => {
    const writer = new RecordWriter(400);
    const pfns = Array.from({ length: 64 }, (_, i) => i * 2);
    expect(writer.add(1, 1, 0, [1], pfns)).toBe(true);
    expect(writer.add(2, 1, 0, [1], pfns)).toBe(true);
    expect(writer.add(3, 1, 0, [1], pfns)).toBe(false);
    expect(collect(writer.take()).map(({ frameId }) => frameId)).toEqual([1, 2]);
    expect(writer.add(3, 1, 0, [1], pfns)).toBe(true);
    expect(() => writer.add(1, 1, 0, [], [])).toThrow(RangeError);
    expect(() => writer.add(1, 1, 0, [], [5, 5])).toThrow(RangeError);
    expect(() => writer.add(1, 1, 0, [], [5, 4])).toThrow(RangeError);
    expect(() => writer.add(1, 1, 0, [], [5, 70_000])).toThrow(RangeError);
    expect(() => writer.add(1, MAX_FRAME_BYTES + 1, 0, [], [5])).toThrow(RangeError);
    expect(() => writer.add(1, 1, 0, [1], [5], 1, 0, 'coming')).toThrow(RangeError);
    expect(collect(writer.take()).length).toBe(1);
  });

  it('are refused when cut at any byte, or when any field is impossible', () => {
    const writer = new RecordWriter();
    writer.add(9, 1000, 1, [3, 0], [10, 20, 30]);
    const body = writer.take();
    for (let cut = 1; cut < body.byteLength; cut++) expect(() => collect(body.subarray(0, cut))).toThrow(/cut short/);
    const forged = (at: number, value: number, u16 = false) => {
      const copy = body.slice();
      if (u16) new DataView(copy.buffer).setUint16(at, value, true);
      else copy[at] = value;
      return () => collect(copy);
    };
    expect(forged(7, 1)).toThrow('frame id');
    expect(forged(11, 1)).toThrow('a frame of');
    expect(forged(12, 3)).toThrow('vm 3, there are 3');
    expect(forged(12, 64)).toThrow('vm 64');
    expect(forged(14, 0)).toThrow('0 pages');
    expect(forged(14, 65)).toThrow('65 pages');
    expect(forged(15, 17)).toThrow('17 nodes');
    expect(forged(18, 255)).toThrow('pages');
    expect(forged(23, 1)).toThrow('first pfn');
    expect(forged(24, 2)).toThrow('is coming, and at 2 nodes');
    expect(forged(24, 4)).toThrow('is void, and at 2 nodes');
    for (const flags of [6, 7, 8, 255]) expect(forged(24, flags)).toThrow(`flags are ${flags}`);
    expect(forged(25, 5)).toThrow('node 5, there are 5');
    expect(forged(26, 3)).toThrow('node 3 twice');
    expect(forged(27, 1, true)).toThrow('ascend');
    expect(forged(29, 0, true)).toThrow('ascend');
    expect(forged(31, 10, true)).toThrow('ascend');
    expect(() => collect(body, { ...limits, imagePages: () => 30 })).toThrow('vm 1 has 30 pages');
  });

  it('never yield anything outside the limits, whatever the bytes', () => {
    fc.assert(
      fc.property(
        records,
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (list, changes) => {
          const writer = new RecordWriter();
          for (const r of list) add(writer, r);
          const body = writer.take();
          if (body.byteLength === 0) return;
          for (const [at, value] of changes) body[at % body.byteLength] = value;
          try {
            for (const r of collect(body)) {
              expect(r.pfns.length).toBeGreaterThan(0);
              expect(r.pfns.every((pfn, i) => pfn < 1_000_000 && (i === 0 || pfn > r.pfns[i - 1]!))).toBe(true);
              expect(r.nodes.every((node) => node < 5)).toBe(true);
              expect(r.vm).toBeLessThan(3);
            }
          } catch (error) {
            expect(error).toMatchObject({ code: 'PROTOCOL' });
          }
        },
      ),
      { numRuns: 2000 },
    );
    for (let seed = 0; seed < 200; seed++) {
      try {
        collect(pattern(500, seed));
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' });
      }
    }
  });
});

describe('an address', () => {
  it('is read and printed', () => {
    const good: [string, string, number][] = [
      ['127.0.0.1:7000', '127.0.0.1', 7000],
      ['a-b.example:1', 'a-b.example', 1],
      ['[::1]:65535', '::1', 65535],
      ['localhost:0', 'localhost', 0],
    ];
    for (const [text, host, port] of good) {
      expect(parseAddress(text)).toEqual({ host, port });
      expect(formatAddress({ host, port })).toBe(text);
    }
  });

  it('is refused with what is wrong', () => {
    const bad: [string, RegExp][] = [
      ['', /not HOST:PORT/],
      ['host', /not HOST:PORT/],
      [':70', /not HOST:PORT/],
      ['host:', /not HOST:PORT/],
      ['host:7x', /not HOST:PORT/],
      ['a b:70', /not HOST:PORT/],
      ['tcp://a:70', /not HOST:PORT/],
      ['::1', /needs brackets/],
      ['[::1]', /not HOST:PORT/],
      ['[host]:70', /not an IPv6/],
      ['host:65536', /not in 0..65535/],
    ];
    for (const [text, why] of bad) {
      expect(() => parseAddress(text)).toThrow(why);
      expect(() => parseAddress(text)).toThrow(`address '${text}'`);
    }
    expect(() => parseAddress('host:0', 1)).toThrow(/not in 1..65535/);
  });
});
