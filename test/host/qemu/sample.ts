// A stream put together by hand, byte for byte as host/qemu/format.ts draws it: what the parser and the writer are held against.

export const u16 = (value: number) => [value >> 8, value & 255];
export const u32 = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
export const u64 = (value: number) => [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)];
export const text = (value: string) => [...Buffer.from(value, 'latin1')];
export const name = (value: string) => [value.length, ...text(value)];
export const command = (number: number, body: number[] = []) => [8, ...u16(number), ...u16(body.length), ...body];

export const PAGE = Array.from({ length: 4096 }, (_, i) => (i * 7) & 255);
export const FOOTER = [0x7e, ...u32(3)];
const EOS = u64(16);
export const HEADER = [...text('QEVM'), ...u32(3)];
export const MACHINE = [7, ...u32(2), ...text('pc')];
export const ADVISE = command(3, [...u64(4096), ...u64(4096)]);
/** Two blocks, of 3 pages and of 2. */
export const BLOCKS = [...u64(5 * 4096 + 4), ...name('pc.ram'), ...u64(3 * 4096), ...name('vga'), ...u64(2 * 4096)];
const SECTION = [...name('ram'), ...u32(0), ...u32(4)];
export const start = (...body: number[]) => [1, ...u32(3), ...SECTION, ...body];
export const SETUP = start(...BLOCKS, ...EOS, ...FOOTER);
export const part = (...records: number[]) => [2, ...u32(3), ...records, ...EOS, ...FOOTER];
export const last = (...records: number[]) => [3, ...u32(3), ...records, ...EOS, ...FOOTER];
/** The second page of pc.ram, then the third as zeros, then the first of vga. */
export const PAGES = [
  ...[...u64(4096 + 8), ...name('pc.ram'), ...PAGE],
  ...[...u64(8192 + 0x22), 0],
  ...[...u64(8), ...name('vga'), ...PAGE],
];
export const DEVICES = [4, ...u32(9), ...name('timer'), ...u32(0), ...u32(2), 0, 6, 0, 1, 2, 0x7d, 0x7e, ...u32(9)];
export const DESCRIPTION = text('{"page_size":4096,"devices":[{"name":"timer"}]}');
export const TAIL = [...DEVICES, 0, 6, ...u32(DESCRIPTION.length), ...DESCRIPTION];
const PACKAGE = [...command(4), ...DEVICES, ...command(2, u32(3)), ...command(5)];
export const packaged = (bytes = PACKAGE) => [...command(7, u32(bytes.length)), ...bytes];
export const DISCARD = command(6, [0, ...name('vga'), 0, ...u64(0), ...u64(8192)]);

export const PRE_COPY = Uint8Array.from([
  ...HEADER,
  ...MACHINE,
  ...command(1),
  ...command(2, u32(1)),
  ...SETUP,
  ...part(...PAGES),
  ...command(11),
  ...last(),
  ...TAIL,
]);
export const POST_COPY = Uint8Array.from([
  ...HEADER,
  ...MACHINE,
  ...command(1),
  ...command(2, u32(1)),
  ...ADVISE,
  ...SETUP,
  ...part(...PAGES),
  ...DISCARD,
  ...packaged(),
  ...part(...u64(4096 + 8), ...name('vga'), ...PAGE),
  ...last(),
  0,
]);
