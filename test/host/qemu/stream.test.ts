import { describe, expect, it } from 'vitest';
import { StreamParser } from '#abdm/host/qemu/stream.js';
import { StreamWriter } from '#abdm/host/qemu/writer.js';
import { seeded } from '../../engine.js';
import { Digest, Drained, digestOf, parse, Relay } from './events.js';
import * as sample from './sample.js';

const { ADVISE, BLOCKS, FOOTER, HEADER, MACHINE, PAGE, POST_COPY, PRE_COPY, SETUP, TAIL } = sample;
const { command, last, name, packaged, part, start, text, u32, u64 } = sample;

describe('a stream', () => {
  it('says what is in it, pre-copy', () => {
    const said = parse(PRE_COPY, new Drained());
    expect(said.configuration).toEqual({ machine: 'pc', targetPageBits: null, uuid: null });
    expect(said.blocks).toEqual([
      { name: 'pc.ram', bytes: 12288, hostPageBytes: 4096 },
      { name: 'vga', bytes: 8192, hostPageBytes: 4096 },
    ]);
    expect(said.pages.map((pages) => [...pages.keys()])).toEqual([[4096, 8192], [0]]);
    expect(said.pages[0]!.get(4096)).toEqual(Uint8Array.from(PAGE));
    expect(said.pages[0]!.get(8192)).toBe(null);
    expect([...said.state!.sections]).toEqual(sample.DEVICES);
    expect([...said.state!.description!]).toEqual(sample.DESCRIPTION);
  });

  it('says what is in it, post-copy', () => {
    const said = parse(POST_COPY, new Drained());
    expect(said.pages.map((pages) => [...pages.keys()])).toEqual([[4096, 8192], [4096]]);
    expect([...said.state!.sections]).toEqual(sample.DEVICES);
    expect(said.postCopy).toBe(true);
    expect(said.pings).toEqual([1, 3]);
  });

  it.each([
    ['pre-copy', PRE_COPY],
    ['post-copy', POST_COPY],
  ])('means the same however it is cut, %s', (_, stream) => {
    const whole = digestOf(stream);
    expect(whole).toMatch(/ ended$/);
    for (const size of [1, 2, 3, 7, 64, 4095, 4096, 4097])
      expect(
        digestOf(stream, () => size),
        `${size}`,
      ).toBe(whole);
    const random = seeded(1);
    for (let i = 0; i < 50; i++) expect(digestOf(stream, () => 1 + (random() % 5000))).toBe(whole);
  });

  it.each([
    ['pre-copy', PRE_COPY],
    ['post-copy', POST_COPY],
  ])('is refused wherever it is cut off, %s', (_, stream) => {
    for (let bytes = 0; bytes < stream.length; bytes++) {
      // A source that gives no description ends just there.
      if (stream === PRE_COPY && bytes === stream.length - sample.DESCRIPTION.length - 5) continue;
      const parser = new StreamParser(new Digest());
      parser.feed(stream.subarray(0, bytes));
      expect(parser.ended, `${bytes}`).toBe(false);
      expect(() => parser.end(), `${bytes}`).toThrow(/^the migration stream/);
    }
  });

  it('goes on in the block of the section before', () => {
    const more = part(...u64(4096 + 0x28), ...PAGE);
    const end = PRE_COPY.length - TAIL.length - last().length;
    const stream = Uint8Array.from([...PRE_COPY.subarray(0, end), ...more, ...PRE_COPY.subarray(end)]);
    expect([...parse(stream, new Drained()).pages[1]!.keys()]).toEqual([0, 4096]);
  });

  it('hands pages out where they lie', () => {
    const seen = new Set<ArrayBufferLike>();
    const handler = new Digest();
    handler.onPage = (_block, _offset, bytes) => void seen.add(bytes.buffer);
    new StreamParser(handler).feed(PRE_COPY);
    expect([...seen]).toEqual([PRE_COPY.buffer]);
  });

  it('has the page sizes of blocks that have huge pages', () => {
    const huge = [
      name('a'),
      u64(4096),
      name('b'),
      u64(2 ** 21),
      u64(2 ** 21),
      name('c'),
      u64(2 ** 30),
      u64(2 ** 30),
    ].flat();
    const body = [...u64(4096 + 2 ** 21 + 2 ** 30 + 4), ...huge, ...u64(16), ...FOOTER];
    const advise = command(3, [...u64(4096 + 2 ** 21 + 2 ** 30), ...u64(4096)]);
    const said = new Drained();
    const parser = new StreamParser(said);
    parser.feed(Uint8Array.from([...HEADER, ...MACHINE, ...advise, ...start(...body)]));
    expect(said.blocks.map(({ hostPageBytes }) => hostPageBytes)).toEqual([4096, 2 ** 21, 2 ** 30]);
    const sent: Uint8Array[] = [];
    const { configuration, blocks } = { ...said, configuration: said.configuration! };
    new StreamWriter((bytes) => sent.push(bytes), { configuration, blocks, returnPath: true, postCopy: true }).flush();
    const again = new Drained();
    new StreamParser(again).feed(Buffer.concat(sent));
    expect(again.blocks).toEqual(said.blocks);
    expect(Buffer.concat(sent).includes(Buffer.from(advise))).toBe(true);
  });

  it('has what a configuration may have', () => {
    const sub = (what: string, body: number[]) => [5, ...name(`configuration/${what}`), ...u32(1), ...body];
    const uuid = Array.from({ length: 16 }, (_, i) => i);
    const more = [...sub('target-page-bits', u32(12)), ...sub('uuid', uuid)];
    const stream = Uint8Array.from([
      ...HEADER,
      ...MACHINE,
      ...more,
      ...PRE_COPY.subarray(HEADER.length + MACHINE.length),
    ]);
    expect(parse(stream, new Drained()).configuration).toEqual({
      machine: 'pc',
      targetPageBits: 12,
      uuid: Uint8Array.from(uuid),
    });
    expect(digestOf(parse(stream, new Relay()).bytes)).toBe(digestOf(stream));
  });
});

describe('what is written', () => {
  it('is byte for byte what is drawn', () => {
    const relay = parse(PRE_COPY, new Relay());
    // Ours has another number of the section, and no SWITCHOVER_START, which is for devices that the source has and we refuse.
    const ours = Buffer.from(PRE_COPY);
    const from = ours.indexOf(Buffer.from(SETUP));
    for (const at of [from + 1]) ours.writeUInt32BE(2, at);
    for (let at = ours.indexOf(Buffer.from(FOOTER)); at > 0; at = ours.indexOf(Buffer.from(FOOTER), at + 1)) {
      ours.writeUInt32BE(2, at + 1);
    }
    for (const mark of [2, 3]) {
      const at = ours.indexOf(Buffer.from([mark, ...u32(3)]), from + SETUP.length);
      ours.writeUInt32BE(2, at + 1);
    }
    const at = ours.indexOf(Buffer.from(command(11)));
    expect(relay.bytes.equals(Buffer.concat([ours.subarray(0, at), ours.subarray(at + 5)]))).toBe(true);
  });

  it.each([
    ['pre-copy', PRE_COPY],
    ['post-copy', POST_COPY],
  ])('means what was read, %s', (_, stream) => {
    expect(digestOf(parse(stream, new Relay()).bytes)).toBe(digestOf(stream));
  });

  it.each([false, true])('brings the guest from either way to post-copy: %s', (postCopy) => {
    for (const stream of [PRE_COPY, POST_COPY]) {
      const guest = parse(stream, new Drained());
      const sent: Uint8Array[] = [];
      guest.write((bytes) => sent.push(bytes), postCopy);
      const there = parse(Buffer.concat(sent), new Drained());
      expect(there.postCopy).toBe(postCopy);
      expect(there.pages).toEqual(guest.pages);
      expect(there.state!.sections).toEqual(guest.state!.sections);
    }
  });

  it('runs no guest that would wait for ever, and none twice', () => {
    const { configuration, blocks, state } = parse(POST_COPY, new Drained());
    const beginning = { configuration: configuration!, blocks, returnPath: true, postCopy: true };
    const writer = new StreamWriter(() => {}, beginning);
    expect(() => writer.runNow(state!)).toThrow('after a discard');
    expect(() => writer.end()).toThrow('does not run');
    writer.discard(0, [0, 4096]);
    writer.runNow(state!);
    expect(() => writer.runNow(state!)).toThrow('once');
    expect(() => writer.runAfter(state!)).toThrow('once');
    expect(() => writer.discard(0, [0, 4096])).toThrow('once the guest runs');
    expect(() => new StreamWriter(() => {}, { ...beginning, returnPath: false })).toThrow('return path');
  });

  it('discards any number of ranges, twelve at a time', () => {
    const { configuration } = parse(POST_COPY, new Drained());
    const blocks = [{ name: 'ram', bytes: 2 ** 30, hostPageBytes: 4096 }];
    const sent: Uint8Array[] = [];
    const beginning = { configuration: configuration!, blocks, returnPath: true, postCopy: true };
    const writer = new StreamWriter((bytes) => sent.push(bytes), beginning);
    const ranges = Array.from({ length: 25 }, (_, i) => [i * 8192, 4096]).flat();
    writer.discard(0, ranges);
    writer.flush();
    const said: number[] = [];
    const handler = new Digest();
    handler.onDiscard = (_, from, bytes) => void said.push(from, bytes);
    new StreamParser(handler).feed(Buffer.concat(sent));
    expect(said).toEqual(ranges);
  });
});

describe('what is not understood', () => {
  const record = (flags: number) => [...HEADER, ...MACHINE, ...SETUP, 2, ...u32(3), ...u64(flags), ...name('pc.ram')];
  const section = (mark: number, what: string) => [
    ...HEADER,
    ...MACHINE,
    mark,
    ...u32(1),
    ...name(what),
    ...u32(0),
    ...u32(1),
  ];
  const capabilities = [5, ...name('configuration/capabilities'), ...u32(1), ...u32(1), ...name('x-ignore-shared')];

  it.each([
    ['multifd off', [...u32(0x11223344)]],
    ['multifd off', start(...BLOCKS, ...u64(0x200))],
    ['multifd off', [...HEADER, ...MACHINE, ...SETUP, ...part(), ...last()]],
    ['xbzrle off', record(0x40)],
    ['compress off', record(0x100)],
    ['RDMA', record(0x80)],
    ['multifd off', record(0x200)],
    ['x-ignore-shared off', [...HEADER, ...MACHINE, ...capabilities]],
    ['2.4 or later', [...HEADER, 1, ...u32(1)]],
    ['dirty-bitmaps off', section(1, 'dirty-bitmap')],
    ['block off', section(1, 'block')],
    ['0000:00:02.0/vfio while the guest runs', section(1, '0000:00:02.0/vfio')],
    ['virtio-mem-device-early before the memory', section(4, 'virtio-mem-device-early')],
    ['x-colo off', [...HEADER, ...MACHINE, ...command(8)]],
    ['begin it anew', [...HEADER, ...MACHINE, ...command(9)]],
    ['dirty-bitmaps off', [...HEADER, ...MACHINE, ...command(3)]],
    ['pages of 65536 bytes', [...HEADER, ...MACHINE, ...command(3, [...u64(65536), ...u64(65536)])]],
  ])('is refused, and how to do without is said: %s', (what, bytes) => {
    const stream = bytes[0] === 1 ? [...HEADER, ...MACHINE, ...bytes] : bytes;
    const parser = new StreamParser(new Digest());
    const refused = expect(() => parser.feed(Uint8Array.from([...stream, ...u64(0), ...u64(0)])));
    refused.toThrow(expect.objectContaining({ code: 'IMAGE', message: expect.stringContaining(what) }));
    // It stays refused.
    expect(() => parser.feed(Uint8Array.of(0))).toThrow(what);
    expect(() => parser.end()).toThrow(what);
  });

  const begun = [...HEADER, ...MACHINE, ...ADVISE, ...SETUP];
  const page = (offset: number, block = 'pc.ram') => [...u64(offset + 8), ...name(block), ...PAGE];
  it.each([
    ['begins with 0x474554', text('GET / HTTP/1.1')],
    ['version is 2', [...text('QEVM'), ...u32(2), ...MACHINE]],
    ["machine's name has 4294967295 bytes", [...HEADER, 7, ...u32(2 ** 32 - 1)]],
    ['a byte 10', [...HEADER, 7, ...u32(2), 10, 10]],
    ['begins with 9', [...HEADER, ...MACHINE, 9]],
    ['begins with 0', [...HEADER, ...MACHINE, 0]],
    ['command 12', [...HEADER, ...MACHINE, ...command(12)]],
    ['command 5', [...begun, ...command(5)]],
    ['command 2 has 5 bytes', [...HEADER, ...MACHINE, ...command(2, [1, 2, 3, 4, 5])]],
    ['no memory in it', [...HEADER, ...MACHINE, ...start(...u64(4))]],
    ['two RAM blocks a', [...HEADER, ...MACHINE, ...start(...u64(8196), ...name('a'), ...u64(4096), ...name('a'))]],
    ['has 8192 bytes, of 4096', [...HEADER, ...MACHINE, ...start(...u64(4100), ...name('a'), ...u64(8192))]],
    ['has 0 bytes', [...HEADER, ...MACHINE, ...start(...u64(4100), ...name('a'), ...u64(0))]],
    ['2^53', [...HEADER, ...MACHINE, ...start(...u64(4100), ...name('a'), 255, ...u64(0))]],
    ['a page size has no', [...HEADER, ...MACHINE, ...start(...BLOCKS, ...u64(2 ** 21), ...u64(16))]],
    ['has pages of 12288', [...HEADER, ...MACHINE, ...ADVISE, ...start(...BLOCKS, ...u64(12288), ...u64(16))]],
    ['memory begins twice', [...begun, ...SETUP]],
    ['not begun', [...HEADER, ...MACHINE, ...part()]],
    ['not begun', [...begun, 2, ...u32(4)]],
    ['at 12288 of RAM block pc.ram', [...begun, ...part(...page(12288))]],
    ['no RAM block disk', [...begun, ...part(...page(0, 'disk'))]],
    ['there is none', [...begun, ...part(...u64(0x28), ...PAGE)]],
    ['filled with 1', [...begun, ...part(...u64(2), ...name('vga'), 1)]],
    ['flags 0x0', [...begun, ...part(...u64(0))]],
    ['flags 0xa', [...begun, ...part(...u64(10))]],
    ['no footer', [...begun, 2, ...u32(3), ...u64(16), 0x7f, ...u32(3)]],
    ['too early', [...HEADER, ...MACHINE, ...SETUP, ...sample.DISCARD]],
    ['too early', [...HEADER, ...MACHINE, ...SETUP, ...packaged()]],
    ['8192 bytes at 4096', [...begun, ...command(6, [0, ...name('vga'), 0, ...u64(4096), ...u64(8192)])]],
    ['looks like', [...begun, ...command(6, [0, ...name('vga'), 0, ...u64(4096)])]],
    ['package has 4294967295', [...begun, ...command(7, u32(2 ** 32 - 1))]],
    ['begin with LISTEN', [...begun, ...packaged(sample.DEVICES)]],
    ['end with PING', [...begun, ...packaged([...command(4), ...sample.DEVICES, ...command(5)])]],
    ['comes too early, or twice', [...begun, ...packaged(), ...packaged()]],
    ['runs already', [...begun, ...packaged(), ...last(...sample.PAGES), 1]],
    ['follows its end', [...begun, ...packaged(), ...last(...sample.PAGES), 0, 0]],
    ['begin with a section', [...begun, ...last(...sample.PAGES), ...TAIL.slice(1)]],
  ])('is refused if no QEMU sends it: %s', (what, bytes) => {
    for (const size of [1, bytes.length + 64]) {
      const parser = new StreamParser(new Digest());
      const feed = () => {
        const all = Uint8Array.from(
          [...bytes, ...new Array(16).fill(0)].slice(0, what.includes('section') ? bytes.length : undefined),
        );
        for (let at = 0; at < all.length; at += size) parser.feed(all.subarray(at, at + size));
      };
      expect(feed).toThrow(expect.objectContaining({ code: 'PROTOCOL', message: expect.stringContaining(what) }));
    }
  });
});

describe('memory', () => {
  const held = () => {
    globalThis.gc?.();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };

  it('does not grow with what comes', () => {
    const parser = new StreamParser(new Digest());
    parser.feed(Uint8Array.from([...HEADER, ...MACHINE, ...SETUP]));
    const round = Uint8Array.from(part(...sample.PAGES));
    const before = held();
    for (let i = 0; i < 5000; i++) parser.feed(round);
    expect(held() - before).toBeLessThan(48 * 1024 * 1024);
  });

  it('has a limit for what must be kept, and does not take it in advance', () => {
    const parser = new StreamParser(new Digest());
    const before = held();
    parser.feed(Uint8Array.from([...HEADER, ...MACHINE, ...ADVISE, ...SETUP, ...command(7, u32(64 * 1024 * 1024)), 8]));
    expect(held() - before).toBeLessThan(4 * 1024 * 1024);
    const other = new StreamParser(new Digest());
    other.feed(Uint8Array.from([...HEADER, ...MACHINE, ...SETUP, ...last(...sample.PAGES)]));
    const chunk = new Uint8Array(1024 * 1024);
    expect(() => {
      for (let i = 0; i < 65; i++) other.feed(chunk);
    }).toThrow('longer than 67108864 bytes');
  });
});
