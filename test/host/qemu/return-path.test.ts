import { describe, expect, it } from 'vitest';
import { type ReturnPathHandler, ReturnPathParser, returnPath } from '#abdm/host/qemu/return-path.js';
import { scale, seeded } from '../../engine.js';
import { name, u16, u32, u64 } from './sample.js';

const BLOCKS = [
  { name: 'pc.ram', bytes: 2 ** 33, hostPageBytes: 4096 },
  { name: 'vga', bytes: 2 ** 24, hostPageBytes: 2 ** 21 },
];

class Said implements ReturnPathHandler {
  readonly what: unknown[] = [];
  onShut(value: number): void {
    this.what.push(['shut', value]);
  }
  onPong(value: number): void {
    this.what.push(['pong', value]);
  }
  onRequest(block: number, start: number, bytes: number): void {
    this.what.push([block, start, bytes]);
  }
  onSwitchoverAck(): void {
    this.what.push('ack');
  }
}

function listen(bytes: Uint8Array, size = bytes.length): unknown[] {
  const said = new Said();
  const parser = new ReturnPathParser(said, BLOCKS);
  for (let at = 0; at < bytes.length; at += size) parser.feed(Buffer.from(bytes.subarray(at, at + size)));
  return said.what;
}

const message = (type: number, body: number[]) => [...u16(type), ...u16(body.length), ...body];
const CONVERSATION = Uint8Array.from([
  ...message(2, u32(1)),
  ...message(7, []),
  ...message(3, [...u64(2 ** 32 + 4096), ...u32(4096), ...name('pc.ram')]),
  ...message(4, [...u64(8192), ...u32(8192)]),
  ...message(3, [...u64(2 ** 21), ...u32(2 ** 21), ...name('vga')]),
  ...message(1, u32(0)),
]);

describe('a return path', () => {
  it('says what is drawn, however it is cut', () => {
    const said = [['pong', 1], 'ack', [0, 2 ** 32 + 4096, 4096], [0, 8192, 8192], [1, 2 ** 21, 2 ** 21], ['shut', 0]];
    for (const size of [1, 2, 3, 5, 16, 17, 1000]) expect(listen(CONVERSATION, size)).toEqual(said);
  });

  it('is written as it is drawn', () => {
    const written = [
      returnPath.pong(1),
      Uint8Array.from(message(7, [])),
      returnPath.request(BLOCKS[0]!, 2 ** 32 + 4096, 4096),
      returnPath.request(BLOCKS[0]!, 8192, 8192),
      returnPath.request(BLOCKS[1]!, 2 ** 21, 2 ** 21),
      returnPath.shut(0),
    ];
    expect(listen(Buffer.concat(written))).toEqual(listen(CONVERSATION));
    expect([...written[2]!]).toEqual(message(3, [...u64(2 ** 32 + 4096), ...u32(4096), ...name('pc.ram')]));
  });

  it.each([
    ['no message 0', message(0, [])],
    ['no message 8', message(8, u32(1))],
    ['message 1 has 5 bytes', message(1, [0, 0, 0, 0, 0])],
    ['message 3 has 12 bytes', message(3, [...u64(0), ...u32(4096)])],
    ['message 3 has 65535 bytes', [...u16(3), ...u16(65535)]],
    ['length of a name', message(3, [...u64(0), ...u32(4096), 5, ...name('vga').slice(1)])],
    ['no RAM block', message(3, [...u64(0), ...u32(4096), ...name('disk')])],
    ['no RAM block', message(4, [...u64(0), ...u32(4096)])],
    ['0 bytes', message(3, [...u64(0), ...u32(0), ...name('vga')])],
    ['4095 bytes', message(3, [...u64(0), ...u32(4095), ...name('vga')])],
    ['8192 bytes at', message(3, [...u64(2 ** 24 - 4096), ...u32(8192), ...name('vga')])],
    ['resumes', message(5, name('vga'))],
    ['resumes', message(6, u32(0))],
    ['after SHUT', [...message(1, u32(0)), ...message(2, u32(0))]],
  ])('is refused if no QEMU says it: %s', (what, bytes) => {
    for (const size of [1, bytes.length]) {
      const wrong = expect(() => listen(Uint8Array.from(bytes), size));
      wrong.toThrow(expect.objectContaining({ code: 'PROTOCOL', message: expect.stringContaining(what) }));
    }
  });

  it('is understood or refused, whatever its bytes', () => {
    const random = seeded(3);
    let refused = 0;
    const count = scale(5000);
    for (let i = 0; i < count; i++) {
      const bytes = Uint8Array.from(CONVERSATION);
      for (let n = 1 + (random() % 3); n > 0; n--) bytes[random() % bytes.length] = random() & 255;
      try {
        listen(bytes, 1 + (random() % 40));
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(count / 2);
  });
});
