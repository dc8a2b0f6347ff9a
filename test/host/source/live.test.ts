// Guests that run while they leave: each mode, over nodes and without any, towards a destination that believes nothing.
import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { Ejection, type EjectOptions } from '#abdm/host/source/source.js';
import type { Mode, Notice } from '#abdm/host/summary.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { cleanUp } from '../cli/processes.js';
import { sleep, until } from '../wire/pair.js';
import { type GuestOptions, TestGuest } from './guest.js';
import { Landing, type LandingOptions } from './landing.js';

afterEach(cleanUp);

const T = MessageType;

async function nodes(count: number): Promise<string[]> {
  const started = await Promise.all(
    Array.from({ length: count }, () => startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 256 * 2 ** 20 })),
  );
  onTestFinished(async () => {
    await Promise.all(started.map((node) => node.close()));
  });
  return started.map(({ address }) => address);
}

interface Scene {
  guests?: GuestOptions[];
  landing?: LandingOptions;
  keepers?: number;
}

async function scene({ guests: options = [{}], landing: how = {}, keepers = 0 }: Scene, more: Partial<EjectOptions>) {
  const landing = await Landing.start(how);
  const guests = options.map((one) => new TestGuest(one));
  const notices: Notice[] = [];
  const ejection = new Ejection({
    vms: guests.map((image, i) => ({ name: `vm${i}`, image })),
    to: landing.address,
    intermediates: keepers > 0 ? await nodes(keepers) : [],
    onNotice: (notice) => notices.push(notice),
    ...more,
  });
  return { landing, guests, guest: guests[0]!, notices, ejection };
}

const BUSY: GuestOptions = { pages: 2048, kinds: ['random', 'text', 'duplicate'], writesPerS: 3000, workingSet: 300 };

describe.each([
  ['directly', 0],
  ['over nodes', 2],
])('%s', (_, keepers) => {
  test.each<[Mode, Mode, string[]]>([
    ['stop', 'stop', ['stop', 'release']],
    ['pre-copy', 'pre-copy', ['stop', 'release']],
    ['post-copy', 'post-copy', ['stop', 'release']],
    ['hybrid', 'hybrid', ['stop', 'release']],
  ])('mode %s brings what the guest had when it stopped', async (mode, left, told) => {
    const { landing, guest, ejection } = await scene(
      { guests: [{ ...BUSY, stateBytes: 600_000 }], keepers },
      { mode, rateBytesPerS: 20e6, ...(mode === 'pre-copy' && { rounds: 4 }) },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'completed', reason: null, mode });
    const [vm] = summary.vms;
    expect(vm).toMatchObject({ outcome: 'completed', mode: left });
    expect(guest.told).toEqual(told);
    await landing.fetchAll();
    landing.expectWhole(0, guest.memory);
    expect(Buffer.compare(landing.arrivals[0]!.executionState, guest.state)).toBe(0);
    expect(landing.arrivals[0]!.state).toBe('running');
    // RUN is the last word about it, save where the destination waits for all pages.
    const order = landing.heard.filter((what) => /DISCARD|STATE|RUN|DIVIDED/.test(what));
    expect(order.indexOf('RUN 0')).toBeGreaterThan(order.lastIndexOf('STATE 0'));
    expect(order.indexOf('STATE 0')).toBeGreaterThan(order.lastIndexOf('DISCARD 0'));
    expect(order.at(-1)).toBe('DIVIDED');
    expect(vm!.downtimeMs).toBeGreaterThan(0);
    expect(vm!.exitTimeMs).toBeLessThanOrEqual(summary.exitTimeMs!);
    expect(landing.frames).toBe(landing.records.size > 0 && keepers > 0 ? landing.frames : landing.straight.length);
  });
});

test('a guest that stands still in pre-copy has all its pages there, or at the nodes, before it may run there', async () => {
  let missing = -1;
  const { landing, guest, ejection } = await scene(
    {
      guests: [BUSY],
      landing: {
        mergeMs: 5,
        onMessage: (type, _vm, landing) => {
          if (type === T.RUN) missing = landing.merger.nextUnmerged(0);
          return undefined;
        },
      },
    },
    { mode: 'pre-copy', rounds: 3, rateBytesPerS: 20e6 },
  );
  expect((await ejection.run()).outcome).toBe('completed');
  expect(missing).toBe(-1);
  landing.expectWhole(0, guest.memory);
});
