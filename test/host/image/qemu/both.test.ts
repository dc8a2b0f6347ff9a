// A guest of a real QEMU leaves it by the source end, and comes to another one by the destination end, with nothing between them.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { hasBit } from '#abdm/host/guest/bits.js';
import { openQemu } from '#abdm/host/image/qemu/source.js';
import { runState } from '#abdm/host/qemu/monitor.js';
import { needsQemu, until } from '../../qemu/qemu.js';
import { opened, waiting } from './sink-scene.js';

it.for(['once all of it is there', 'while its memory comes'])(
  'a guest goes on elsewhere: %s',
  async (when, { skip }) => {
    needsQemu(skip);
    const [here, there] = [await waiting(undefined, []), await waiting()];
    const source = await openQemu(here.path);
    const sink = await opened(there.path, source);
    const page = new Uint8Array(4096);
    const send = (pfn: number) => {
      if (hasBit(sink.present, pfn)) return;
      source.read(pfn, 1, page, 0);
      sink.write(pfn, page, 0, 4096);
    };
    const ready: number[] = [];
    source.listen({
      onPage: (pfn) => ready.push(pfn),
      onAwaited: () => {},
      onRound: () => {},
      onGone: (error) => {
        throw error;
      },
    });
    const state = await source.stop();
    const arrived = new Set<number>();
    const take = async (pages: number) => {
      while (arrived.size < pages) {
        await sleep(1);
        for (const pfn of ready.splice(0)) {
          arrived.add(pfn);
          send(pfn);
        }
      }
    };
    sink.onFault = (pfn) => {
      if (arrived.has(pfn)) send(pfn);
      else source.want(pfn);
    };
    if (when.startsWith('once')) await take(source.pages);
    const rest = take(source.pages);
    await sink.load(state);
    await sink.run();
    await rest;
    await sink.commit();
    await source.release();
    expect((await runState(there.qmp)).running).toBe(true);
    await until(async () => here.process.exitCode === 0);
  },
);
