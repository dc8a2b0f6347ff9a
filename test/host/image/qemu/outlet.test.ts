import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { absentRanges } from '#abdm/host/image/qemu/absent.js';
import { Outlet } from '#abdm/host/image/qemu/outlet.js';
import { seeded } from '../../../engine.js';
import { tempDir } from '../../temp.js';

const PIECE_BYTES = 32 * 1024;

/** Two ends of a connection, of which the second one reads nothing yet. */
async function pair(): Promise<[Socket, Socket]> {
  const path = join(tempDir(), 'socket');
  const server = createServer({ pauseOnConnect: true });
  const other = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = connect(path);
  const sockets = [socket, await other] as [Socket, Socket];
  onTestFinished(() => {
    for (const each of sockets) each.destroy();
    server.close();
  });
  return sockets;
}

/** 32 KiB in two parts, all bytes `value`, with page `pfn`. */
const piece = (value: number, pfn = value) => {
  const half = Buffer.alloc(PIECE_BYTES / 2, value);
  return { parts: [half, half], first: pfn, end: pfn + 1 };
};

test('what somebody waits for goes first, and nothing else changes its place', async () => {
  const [near, far] = await pair();
  const outlet = new Outlet(near);
  for (let value = 1; value <= 200; value++) outlet.put(piece(value), false);
  outlet.put(piece(201), true);
  outlet.hurry(150);
  outlet.hurry(151);
  outlet.hurry(150);
  outlet.hurry(1000);
  const order: number[] = [];
  const all = new Promise<void>((resolve) => {
    let rest = Buffer.alloc(0);
    far.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      for (; rest.length >= PIECE_BYTES; rest = rest.subarray(PIECE_BYTES)) {
        // No piece is divided.
        expect(rest.subarray(0, PIECE_BYTES).every((byte) => byte === rest[0])).toBe(true);
        order.push(rest[0]!);
      }
      if (order.length === 201) resolve();
    });
  });
  far.resume();
  await all;
  // Some were under way.
  const at = order.indexOf(201);
  expect(at).toBeLessThan(16);
  expect(order.slice(at, at + 3)).toEqual([201, 150, 151]);
  const others = order.filter((value) => ![201, 150, 151].includes(value));
  expect(others).toEqual([...others].sort((a, b) => a - b));
});

test('it is busy from 8 MiB on until 4 MiB are left', async () => {
  const [near, far] = await pair();
  const outlet = new Outlet(near);
  let free = 0;
  let low = 0;
  outlet.onFree = () => free++;
  outlet.onLow = () => low++;
  for (let n = 0; n < 8 * 32; n++) outlet.put(piece(1), false);
  expect(outlet.isBusy).toBe(false);
  expect(outlet.isLow).toBe(false);
  for (let n = 0; n < 16; n++) outlet.put(piece(1), false);
  expect(outlet.isBusy).toBe(true);
  let bytes = 0;
  const until = (limit: number) =>
    new Promise<void>((resolve) => {
      far.on('data', (data) => {
        bytes += data.length;
        if (bytes < limit) return;
        far.pause();
        far.removeAllListeners('data');
        resolve();
      });
      far.resume();
    });
  await until(3 * 1024 * 1024);
  expect({ free, isBusy: outlet.isBusy }).toEqual({ free: 0, isBusy: true });
  await until(272 * PIECE_BYTES);
  expect({ free, isBusy: outlet.isBusy, isLow: outlet.isLow }).toEqual({ free: 1, isBusy: false, isLow: true });
  expect(low).toBeGreaterThan(1);
});

test('what is not there is found, wherever a block begins', () => {
  const random = seeded(1);
  for (let round = 0; round < 200; round++) {
    const first = random() % 30;
    const pages = 1 + (random() % 60);
    const present = new Uint8Array(16);
    const kind = random() % 3;
    for (let i = 0; i < 16; i++)
      present[i] = kind === 0 ? 0xff : kind === 1 ? random() : random() % 3 ? 0xff : random();
    const plain = [];
    for (let page = 0; page < pages; page++) {
      const at = first + page;
      if (!((present[at >> 3]! >> (at & 7)) & 1)) plain.push(page);
    }
    const ranges = absentRanges(present, first, pages);
    const found = [];
    for (let i = 0; i < ranges.length; i += 2) {
      for (let at = ranges[i]!; at < ranges[i]! + ranges[i + 1]!; at += 4096) found.push(at / 4096);
    }
    expect(found).toEqual(plain);
  }
});
