// What cannot be seen at a real QEMU, at one that only looks like one: the order in which pages come, and huge pages, which there may be none of where tests run.
import { setTimeout as sleep } from 'node:timers/promises';
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
const configuration = { machine: 'pc-i440fx-7.2', targetPageBits: null, uuid: null };
const setup = encodeSetup({ configuration, version: '7.2.0', blocks });
const shape = { bytes: 0, regions: blocks.map(({ name, bytes }) => ({ name, address: 0, bytes })), setup };
const state = encodeState({ wasRunning: true, sections: Uint8Array.from(DEVICES) });
/** What page `i` of the block with huge pages holds. */
const content = (i: number) => new Uint8Array(4096).fill(i + 1);
const pfnOf = (i: number) => SMALL_PAGES + i;

it('what QEMU is set to is what it has to take', async () => {
  const qemu = await new FakeQemu().begin();
  for (const name of ['multifd', 'xbzrle', 'auto-converge']) qemu.capabilities.set(name, true);
  for (const name of ['postcopy-ram', 'postcopy-preempt']) qemu.capabilities.set(name, false);
  await opened(qemu.path, shape);
  const isOn = Object.fromEntries(qemu.capabilities);
  const off = { multifd: false, xbzrle: false, 'postcopy-preempt': false };
  expect(isOn).toEqual({ ...off, 'auto-converge': true, 'postcopy-ram': true });
  // It is told not to run by itself before a byte of the guest comes.
  expect(qemu.asked.slice(-2)).toEqual(['migrate-incoming', 'stop']);
});

it('a page that QEMU asks for comes before all that waits, whether it was there before or not', async () => {
  const qemu = await new FakeQemu().begin();
  // Two blocks, of which first the second one is written.
  const both = ['vga', 'pc.ram'].map((name) => ({ name, bytes: 2000 * 4096, hostPageBytes: 4096 }));
  const regions = both.map(({ name, bytes }) => ({ name, address: 0, bytes }));
  const its = encodeSetup({ configuration, version: '7.2.0', blocks: both });
  const sink = await opened(qemu.path, { bytes: 4000 * 4096, regions, setup: its });
  const faults: number[] = [];
  sink.onFault = (pfn) => faults.push(pfn);
  await sink.load(state);
  await sink.run();
  qemu.request(0, 1000 * 4096, 8192);
  await until(async () => faults.length === 2);
  qemu.stream!.pause();
  const batch = new Uint8Array(50 * 4096);
  for (let pfn = 2000; pfn < 4000; pfn += 50) {
    for (let i = 0; i < 50; i++) batch.fill(pfn + i, i * 4096, (i + 1) * 4096);
    sink.write(pfn, batch, 0, batch.length);
  }
  for (let i = 0; i < 50; i++) batch.fill(990 + i, i * 4096, (i + 1) * 4096);
  sink.write(990, batch, 0, batch.length);
  qemu.request(1, 1900 * 4096, 4096);
  await sleep(50);
  qemu.stream!.resume();
  await until(async () => qemu.late.length === 2050);
  const order = qemu.late.map(([block, offset]) => block * 2000 + offset / 4096);
  // What the sockets had taken came before.
  for (const pfn of [1000, 1001, 3900]) expect(order.indexOf(pfn), `page ${pfn}`).toBeLessThan(400);
  expect(faults).toEqual([1000, 1001]);
  for (const [block, offset] of qemu.late) {
    expect(qemu.pages[block]!.get(offset)![4095]).toBe((block * 2000 + offset / 4096) % 256);
  }
});

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
    const bytes = qemu.pages[1]!.get(i * 4096) ?? new Uint8Array(4096);
    expect(Buffer.from(isZero ? new Uint8Array(4096) : content(i)).equals(bytes), `page ${i}`).toBe(true);
  }
});

it('host pages that were complete before the state are sent once, asked for or not', async () => {
  const qemu = await new FakeQemu().begin();
  const hostPageBytes = 2 ** 20;
  const large = { name: 'pc.ram', bytes: 24 * hostPageBytes, hostPageBytes };
  const its = encodeSetup({ configuration, version: '7.2.0', blocks: [large] });
  const sink = await opened(qemu.path, { bytes: large.bytes, regions: [{ ...large, address: 0 }], setup: its });
  const faults: number[] = [];
  sink.onFault = (pfn) => faults.push(pfn);
  const batch = new Uint8Array(256 * 4096);
  for (let number = 0; number < 24; number++) sink.write(number * 256, batch.fill(number), 0, batch.length);
  await sink.load(state);
  for (let number = 0; number < 24; number += 5) qemu.request(0, number * hostPageBytes, hostPageBytes);
  await sink.run();
  await sink.commit();
  expect(faults).toEqual([]);
  expect(qemu.late.length).toBe(24 * 256);
  for (const [, offset] of qemu.late) {
    expect(qemu.pages[0]!.get(offset)![4095]).toBe(Math.floor(offset / hostPageBytes));
  }
});
