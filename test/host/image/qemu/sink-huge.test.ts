// Blocks with huge pages, at a QEMU that only looks like one: there may be no huge pages where tests run.
import { expect, it } from 'vitest';
import { encodeSetup } from '#abdm/host/image/qemu/setup.js';
import { encodeState } from '#abdm/host/image/qemu/state.js';
import { until } from '../../qemu/qemu.js';
import { DEVICES } from '../../qemu/sample.js';
import { FakeQemu } from './fake-qemu.js';
import { opened } from './sink-scene.js';

const HUGE = 8 * 4096;
const SMALL_PAGES = 4;
const blocks = [
  { name: 'vga', bytes: SMALL_PAGES * 4096, hostPageBytes: 4096 },
  { name: 'pc.ram', bytes: 4 * HUGE, hostPageBytes: HUGE },
];
const setup = encodeSetup({
  configuration: { machine: 'pc-i440fx-7.2', targetPageBits: null, uuid: null },
  version: '7.2.0',
  blocks,
});
const shape = { bytes: 0, regions: blocks.map(({ name, bytes }) => ({ name, address: 0, bytes })), setup };
const state = encodeState({ wasRunning: true, sections: Uint8Array.from(DEVICES) });
/** What page `i` of the block with huge pages holds. */
const content = (i: number) => new Uint8Array(4096).fill(i + 1);
const pfnOf = (i: number) => SMALL_PAGES + i;

it('a huge page goes whole, once, and only after the state', async () => {
  const qemu = await new FakeQemu().begin();
  const sink = await opened(qemu.path, shape);
  const faults: number[] = [];
  sink.onFault = (pfn) => faults.push(pfn);
  sink.zero(0, SMALL_PAGES);
  // The first one whole, with one page of it forgotten and come again; the second in part, the third zero, the fourth not at all.
  for (let i = 0; i < 8; i++) sink.write(pfnOf(i), content(i + 100), 0, 4096);
  sink.forget(pfnOf(3), 2);
  for (let i = 0; i < 8; i++) sink.write(pfnOf(i), content(i), 0, 4096);
  for (let i = 8; i < 12; i++) sink.write(pfnOf(i), content(i), 0, 4096);
  sink.write(pfnOf(9), content(9), 0, 4096);
  sink.zero(pfnOf(10), 1);
  sink.write(pfnOf(17), content(17), 0, 4096);
  sink.zero(pfnOf(16), 8);
  expect(qemu.pages[1]!.size).toBe(0);
  await sink.load(state);
  await until(async () => qemu.late.length === 16);
  // The zero one and the whole one: which comes first does not matter.
  expect(new Set(qemu.late.map(([block, offset]) => `${block} ${Math.floor(offset / HUGE)}`))).toEqual(
    new Set(['1 0', '1 2']),
  );
  await sink.run();
  // It asks for host pages: for what is not there of them others are asked.
  qemu.request(1, HUGE, HUGE);
  qemu.request(1, 3 * HUGE, HUGE);
  await until(async () => faults.length === 12);
  expect(faults).toEqual([12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31].map(pfnOf));
  for (let i = 24; i < 31; i++) sink.write(pfnOf(i), content(i), 0, 4096);
  for (let i = 12; i < 16; i++) sink.write(pfnOf(i), content(i), 0, 4096);
  await until(async () => qemu.late.length === 24);
  expect(qemu.late.slice(16)).toEqual([8, 9, 10, 11, 12, 13, 14, 15].map((i) => [1, i * 4096]));
  sink.write(pfnOf(31), content(31), 0, 4096);
  await sink.commit();
  expect(qemu.late.length).toBe(32);
  for (let i = 0; i < 32; i++) {
    const isZero = i === 10 || (i >= 16 && i < 24);
    const bytes = qemu.pages[1]!.get(i * 4096)!;
    expect(Buffer.from(bytes ?? new Uint8Array(4096)), `page ${i}`).toEqual(
      Buffer.from(isZero ? new Uint8Array(4096) : content(i)),
    );
  }
});

it('a host page that is complete, and asked for, is sent once', async () => {
  const qemu = await new FakeQemu().begin();
  const sink = await opened(qemu.path, shape);
  const faults: number[] = [];
  sink.onFault = (pfn) => faults.push(pfn);
  sink.zero(0, SMALL_PAGES);
  for (let i = 0; i < 32; i++) sink.write(pfnOf(i), content(i), 0, 4096);
  const loaded = sink.load(state);
  await loaded;
  for (let at = 0; at < 4; at++) qemu.request(1, at * HUGE, HUGE);
  await sink.run();
  await sink.commit();
  expect(faults).toEqual([]);
  expect(qemu.late.length).toBe(32);
});
