// Guests that send their memory themselves, in each mode: what has not come is neither sent nor said to be there, and is asked for when somebody waits.
import { expect, onTestFinished, test } from 'vitest';
import { startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { Ejection, type EjectOptions } from '#abdm/host/source/source.js';
import type { Mode, Notice } from '#abdm/host/summary.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { until } from '../wire/pair.js';
import { Landing, type LandingOptions } from './landing.js';
import { type SendingOptions, SendingTestGuest } from './sending.js';

const T = MessageType;

async function scene(
  how: SendingOptions,
  more: Partial<EjectOptions>,
  landingOptions: LandingOptions = {},
  keepers = 0,
) {
  const landing = await Landing.start(landingOptions);
  const guest = new SendingTestGuest(how);
  landing.truth = [guest.memory];
  const notices: Notice[] = [];
  const nodes = await Promise.all(
    Array.from({ length: keepers }, () => startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 256 * 2 ** 20 })),
  );
  onTestFinished(async () => {
    await Promise.all(nodes.map((node) => node.close()));
  });
  const ejection = new Ejection({
    vms: [{ name: 'vm0', image: guest }],
    to: landing.address,
    intermediates: nodes.map(({ address }) => address),
    onNotice: (notice) => notices.push(notice),
    ...more,
  });
  return { landing, guest, notices, ejection };
}

const MODES: [Mode, string[]][] = [
  ['stop', ['stop', 'release']],
  ['post-copy', ['stop', 'release']],
  ['pre-copy', ['begin', 'stop', 'release']],
  ['hybrid', ['begin', 'stop', 'release']],
];

test.for(MODES.flatMap(([mode, told]) => [0, 2].map((keepers) => ({ mode, told, keepers }))))(
  'mode $mode over $keepers nodes brings what it had when it stopped',
  async ({ mode, told, keepers }) => {
    const { landing, guest, ejection } = await scene(
      { writes: 3, workingSet: 200 },
      { mode, ...(mode === 'pre-copy' && { rounds: 4 }) },
      {},
      keepers,
    );
    expect(await ejection.run()).toMatchObject({ outcome: 'completed', reason: null, vms: [{ mode }] });
    expect(guest.told).toEqual(told);
    await landing.fetchAll();
    landing.expectWhole(0, guest.memory);
    expect(Buffer.compare(landing.arrivals[0]!.executionState, guest.state)).toBe(0);
    // It may die there before it runs, long after the exit.
    if (mode === 'stop' && keepers > 0) expect(landing.straight).toEqual([]);
  },
);

test('in post-copy a page that somebody waits for, and that has not come, is asked of the guest, and sent before all else', async () => {
  const { landing, guest, ejection } = await scene({ pages: 2048, pace: 1 }, { mode: 'post-copy' });
  const running = ejection.run();
  await until(() => landing.arrivals[0]?.state === 'running');
  landing.send(T.FAULT, { vm: 0, pfns: [2000, 1500] });
  await until(() => landing.merger.isMerged(0, 2000) && landing.merger.isMerged(0, 1500));
  expect(guest.wanted).toEqual([2000, 1500]);
  expect(landing.straight.filter(({ role }) => role === 'urgent')).toHaveLength(2);
  expect(landing.merger.mergedPages(0)).toBeLessThan(1500);
  expect(await running).toMatchObject({ outcome: 'completed', vms: [{ postcopyRequests: 2 }] });
  landing.expectWhole(0, guest.memory);
});

test('what was sent, and comes no more, is sent once more without what has not come', async () => {
  const { landing, guest, ejection } = await scene(
    { pages: 1024, pace: 1 },
    { mode: 'post-copy' },
    { refusesFrames: true, gathers: false },
    2,
  );
  const running = ejection.run();
  // Of the extent of page 2 only the first pages have come.
  await until(() => landing.arrivals[0]?.state === 'running' && landing.records.size > 0);
  landing.send(T.FAULT, { vm: 0, pfns: [0] });
  await until(() => landing.merger.isMerged(0, 0));
  expect(await running).toMatchObject({ outcome: 'completed' });
  await landing.fetchAll();
  landing.expectWhole(0, guest.memory);
});

test.for<Mode>(['hybrid', 'pre-copy', 'auto'])(
  'mode %s: a guest that stands still by itself, as it writes nothing, is not waited for',
  async (mode) => {
    // Far ahead of what is sent on.
    const { landing, guest, ejection } = await scene(
      { pace: 500 },
      { mode, rateBytesPerS: 5e6, ...(mode === 'auto' ? { maxDowntimeMs: 1 } : { rounds: 5 }) },
    );
    expect(await ejection.run()).toMatchObject({ outcome: 'completed' });
    expect(guest.told).toEqual(['begin', 'stop', 'release']);
    landing.expectWhole(0, guest.memory);
  },
);

test('one that writes faster than it is sent on goes on as post-copy, and is never far ahead', async () => {
  const { landing, guest, notices, ejection } = await scene(
    { pages: 4096, pace: 64, writes: 50 },
    { rateBytesPerS: 10e6, maxDowntimeMs: 50 },
  );
  expect(await ejection.run()).toMatchObject({ outcome: 'completed', vms: [{ mode: 'hybrid' }] });
  expect(notices.map(({ code }) => code)).toEqual(['NOT_CONVERGING', 'SWITCHING']);
  expect(guest.mostUnread).toBeLessThan(2200);
  landing.expectWhole(0, guest.memory);
});

test('one that goes on at the source, and is stopped again, sends all of it again', async () => {
  let cuts = 1;
  const { landing, guest, ejection } = await scene(
    { writes: 3 },
    { mode: 'post-copy' },
    {
      onMessage: (type, _vm, landing) => {
        if (type === T.STATE && cuts-- > 0) landing.cut();
        return undefined;
      },
    },
    2,
  );
  expect(await ejection.run()).toMatchObject({ outcome: 'completed' });
  expect(guest.told).toEqual(['stop', 'resume', 'stop', 'release']);
  await landing.fetchAll();
  landing.expectWhole(0, guest.memory);
});

test('one that is gone before all of it has come is over', async () => {
  const { landing, guest, ejection } = await scene({ pace: 1 }, { mode: 'post-copy' });
  const running = ejection.run();
  await until(() => landing.arrivals[0]?.state === 'running');
  guest.gone(new Error('QEMU is gone'));
  expect(await running).toMatchObject({ outcome: 'paused-recoverable', reason: { message: 'QEMU is gone' } });
});
