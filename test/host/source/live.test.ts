// Guests that run while they leave: each mode, over nodes and without any, towards a destination that believes nothing.
import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { type Intermediate, startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Ejection, type EjectOptions } from '#abdm/host/source/source.js';
import type { Mode, Notice } from '#abdm/host/summary.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { cleanUp } from '../cli/processes.js';
import { until } from '../wire/pair.js';
import { type GuestOptions, TestGuest } from './guest.js';
import { Landing, type LandingOptions } from './landing.js';
import { readBack } from './reader.js';

afterEach(cleanUp);

const T = MessageType;
const KEY = new Uint8Array(randomBytes(32));

async function startNodes(count: number): Promise<Intermediate[]> {
  const started = await Promise.all(
    Array.from({ length: count }, () => startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 256 * 2 ** 20 })),
  );
  onTestFinished(async () => {
    await Promise.all(started.map((node) => node.close()));
  });
  return started;
}

interface Scene {
  guests?: GuestOptions[];
  landing?: LandingOptions;
  keepers?: number;
  priorities?: number[];
}

async function scene(
  { guests: options = [{}], landing: how = {}, keepers = 0, priorities = [] }: Scene,
  more: Partial<EjectOptions>,
) {
  const landing = await Landing.start(how);
  const guests = options.map((one) => new TestGuest(one));
  landing.truth = guests.map(({ memory }) => memory);
  const notices: Notice[] = [];
  const nodes = await startNodes(keepers);
  const ejection = new Ejection({
    vms: guests.map((image, i) => ({ name: `vm${i}`, image, priority: priorities[i] ?? 1 })),
    to: landing.address,
    intermediates: nodes.map(({ address }) => address),
    onNotice: (notice) => notices.push(notice),
    ...more,
  });
  return { landing, guests, guest: guests[0]!, nodes, notices, ejection };
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

test('what is on its way when it stops is waited for: an older version does not do', async () => {
  const { landing, guest, ejection } = await scene(
    { guests: [{ pages: 1024, kinds: ['random'], writesPerS: 4000, workingSet: 300 }], landing: { mergeMs: 80 } },
    { mode: 'hybrid', rounds: 2, rateBytesPerS: 40e6 },
  );
  const { outcome, vms } = await ejection.run();
  expect(outcome).toBe('completed');
  // At first, after each round, and when it has stopped; a round asks once more if it had to wait for what was on its way.
  expect(vms[0]!.dirtySyncCount).toBeGreaterThanOrEqual(4);
  expect(vms[0]!.dirtySyncCount).toBeLessThanOrEqual(6);
  expect([...landing.records.values()].some(({ state }) => state === 'coming')).toBe(true);
  landing.expectWhole(0, guest.memory);
});

describe('rounds', () => {
  test('of a guest that writes little end as pre-copy: the rest fits the downtime', async () => {
    const { landing, guest, notices, ejection } = await scene(
      { guests: [{ pages: 2048, kinds: ['random'], writesPerS: 200, workingSet: 50 }] },
      { rateBytesPerS: 20e6 },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'completed', mode: 'auto', vms: [{ mode: 'pre-copy' }] });
    expect(notices).toEqual([]);
    expect(summary.vms[0]!.dirtySyncCount).toBeGreaterThan(1);
    expect(summary.vms[0]!.downtimeMs).toBeLessThan(300);
    landing.expectWhole(0, guest.memory);
  });

  test('of one that writes too much become post-copy, and say so', async () => {
    const { landing, guest, notices, ejection } = await scene(
      { guests: [{ pages: 2048, kinds: ['random'], writesPerS: 50_000, workingSet: 1500 }] },
      { rateBytesPerS: 10e6, maxDowntimeMs: 50 },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'completed', mode: 'auto', vms: [{ mode: 'hybrid' }] });
    expect(notices).toMatchObject([
      { vm: 'vm0', code: 'NOT_CONVERGING', message: /vm0: after \d+ rounds \d+ pages are dirty/ },
      { vm: 'vm0', code: 'SWITCHING', message: /post-copy/ },
    ]);
    landing.expectWhole(0, guest.memory);
  });

  test('that may not become post-copy go on to their limit, and it stops all the same', async () => {
    const { landing, guest, notices, ejection } = await scene(
      { guests: [{ pages: 1024, kinds: ['random'], writesPerS: 50_000, workingSet: 700 }] },
      { rateBytesPerS: 20e6, maxDowntimeMs: 20, mode: 'pre-copy', rounds: 5 },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'completed', vms: [{ mode: 'pre-copy', dirtySyncCount: 7 }] });
    expect(notices.map(({ code }) => code)).toEqual(['NOT_CONVERGING']);
    landing.expectWhole(0, guest.memory);
  });
});

describe('a guest that runs at the destination', () => {
  const slow = { mode: 'post-copy', rateBytesPerS: 2e6 } as const;
  const large: GuestOptions = { pages: 2048, kinds: ['random'] };

  test.each([0, 2])('has its execution state before its pages, %i nodes', async (keepers) => {
    let before = -1;
    const onMessage = (type: MessageType, _vm: number | null, { straight, records }: Landing) => {
      if (type === T.STATE) before = straight.length + records.size;
      return undefined;
    };
    const { ejection } = await scene({ guests: [large], keepers, landing: { onMessage } }, { mode: 'post-copy' });
    expect((await ejection.run()).outcome).toBe('completed');
    expect(before).toBe(0);
  });

  test('gets what it waits for before all else, and what follows it next', async () => {
    const { landing, guest, ejection } = await scene({ guests: [large] }, slow);
    const running = ejection.run();
    await until(() => landing.arrivals[0]?.state === 'running');
    const before = landing.straight.length;
    landing.send(T.FAULT, { vm: 0, pfns: [1800, 1805, 1000] });
    await until(() => [1800, 1805, 1000].every((pfn) => landing.merger.isMerged(0, pfn)));
    // Nothing comes before it but what was on its way, however long that takes.
    const came = landing.straight.slice(before).map(({ role }) => role);
    expect(came.filter((role) => role === 'urgent')).toHaveLength(2);
    expect(came.lastIndexOf('urgent')).toBeLessThan(8);
    // The extents around them came along, and are not sent again.
    for (const pfn of [1792, 1807, 992, 1007]) expect(landing.merger.isMerged(0, pfn)).toBe(true);
    await until(() => landing.merger.isMerged(0, 1020));
    expect(landing.straight.length - before).toBeLessThan(12);
    ejection.setRate(null);
    const summary = await running;
    expect(summary).toMatchObject({ outcome: 'completed', vms: [{ postcopyRequests: 3, normalPages: 2048 }] });
    landing.expectWhole(0, guest.memory);
  });

  test('is sent once more what was sent elsewhere and has not come, and never again what it has', async () => {
    const { landing, guest, ejection } = await scene(
      { guests: [large], keepers: 2, landing: { refusesFrames: true, gathers: false } },
      slow,
    );
    const running = ejection.run();
    await until(() => landing.arrivals[0]?.state === 'running' && landing.records.size > 10);
    landing.send(T.FAULT, { vm: 0, pfns: [3, 9] });
    await until(() => landing.merger.isMerged(0, 3));
    expect(landing.straight).toMatchObject([{ role: 'urgent' }]);
    landing.scribble(0, 3);
    landing.send(T.FAULT, { vm: 0, pfns: [3] });
    landing.send(T.FAULT, { vm: 0, pfns: [2047] });
    await until(() => landing.merger.isMerged(0, 2047));
    expect(landing.straight).toHaveLength(2);
    ejection.setRate(null);
    expect(await running).toMatchObject({ outcome: 'completed', vms: [{ normalPages: 2048 + 16 }] });
    await landing.fetchAll();
    landing.expectWhole(0, guest.memory);
  });

  test.each([
    ['that takes long', 150, 3, true],
    ['but not what comes soon', 5, 15, false],
  ])('is sent once more what is on its way, and waited for, %s', async (_, frameMs, before, again) => {
    const { landing, guest, ejection } = await scene(
      { guests: [{ pages: 320, kinds: ['random'] }], landing: { frameMs } },
      { mode: 'post-copy' },
    );
    const running = ejection.run();
    await until(() => landing.straight.length >= before);
    // In the frame after the next.
    landing.send(T.FAULT, { vm: 0, pfns: [(landing.straight.length + 1) * 16] });
    expect((await running).outcome).toBe('completed');
    expect(landing.straight.some(({ role }) => role === 'urgent')).toBe(again);
    landing.expectWhole(0, guest.memory);
  });

  test('may not wait for what it does not have', async () => {
    const onMessage = (type: MessageType, _vm: number | null, landing: Landing) => {
      if (type === T.RUN) landing.send(T.FAULT, { vm: 0, pfns: [2048] });
      return undefined;
    };
    const { guest, ejection } = await scene({ guests: [large], landing: { onMessage } }, slow);
    const summary = await ejection.run();
    expect(summary).toMatchObject({
      outcome: 'paused-recoverable',
      reason: { code: 'PROTOCOL', message: /page 2048/ },
    });
    expect(guest.told).toEqual(['stop']);
  });
});

describe('before RUN was said, it goes on at the source', () => {
  const cases: [string, Partial<EjectOptions>, number][] = [
    ['post-copy, directly', { mode: 'post-copy' }, 0],
    ['pre-copy, directly', { mode: 'pre-copy' }, 0],
    ['stop, directly', { mode: 'stop' }, 0],
    ['post-copy, over nodes', { mode: 'post-copy' }, 2],
  ];

  test.each(cases)('%s: the destination is silent', async (_, how, keepers) => {
    const { guest, ejection, landing } = await scene(
      { keepers, landing: { onMessage: (type) => (type === T.STATE ? false : undefined) } },
      { ...how, answerMs: 300 },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'aborted', vms: [{ outcome: 'aborted', downtimeMs: null }] });
    expect(summary.reason!.code).toBe('PEER_UNREACHABLE');
    expect(guest.told).toEqual(['stop', 'resume']);
    expect(landing.heard).not.toContain('RUN 0');
  });

  test.each(cases)('%s: the operator cancels', async (_, how, keepers) => {
    const { guest, ejection, landing } = await scene(
      { keepers, landing: { onMessage: (type) => (type === T.STATE ? false : undefined) } },
      how,
    );
    const running = ejection.run();
    await until(() => landing.heard.includes('STATE 0'));
    expect(ejection.cancel('enough')).toHaveLength(1);
    expect(await running).toMatchObject({ outcome: 'aborted', reason: { code: 'CANCELLED', message: 'enough' } });
    expect(guest.told).toEqual(['stop', 'resume']);
    expect(landing.heard).not.toContain('RUN 0');
  });

  test.each(cases)('%s: the destination says that it never will', async (_, how, keepers) => {
    const { guest, ejection } = await scene(
      {
        keepers,
        landing: {
          onMessage: (type, vm, landing) => {
            if (type !== T.STATE) return undefined;
            landing.send(T.VM_OVER, { vm, code: 'IMAGE', message: 'no memory' });
            return false;
          },
        },
      },
      how,
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({
      outcome: 'aborted',
      reason: { code: 'PEER_ABORTED', message: /no memory \(IMAGE\)/ },
    });
    expect(guest.told).toEqual(['stop', 'resume']);
  });

  test.each(cases.slice(0, 3))('%s: the link breaks', async (_, how) => {
    const { guest, ejection } = await scene(
      {
        landing: {
          onMessage: (type, _vm, landing) => {
            if (type === T.STATE) landing.cut();
            return undefined;
          },
        },
      },
      how,
    );
    expect(await ejection.run()).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_GONE' } });
    expect(guest.told).toEqual(['stop', 'resume']);
  });

  test('its image cannot be read any more: aborted, and it runs on', async () => {
    const { guest, ejection } = await scene({ guests: [BUSY] }, { rateBytesPerS: 5e6, mode: 'pre-copy' });
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 1e6);
    guest.gone = new Error('the guest is gone');
    expect(await running).toMatchObject({
      outcome: 'aborted',
      reason: { code: 'IMAGE', message: 'the guest is gone' },
    });
    expect(guest.runs).toBe(true);
  });

  test('it cannot be stopped: aborted, and nobody runs it elsewhere', async () => {
    const { guest, landing, ejection } = await scene({}, { mode: 'post-copy' });
    guest.stop = () => Promise.reject(new Error('it does not stop'));
    expect(await ejection.run()).toMatchObject({ outcome: 'aborted', reason: { message: /does not stop/ } });
    expect(landing.heard).not.toContain('STATE 0');
  });
});

describe('after RUN was said', () => {
  test('directly, the link breaks before all is there, and comes back: the rest follows', async () => {
    const { guest, landing, ejection } = await scene({ guests: [BUSY] }, { mode: 'post-copy', rateBytesPerS: 20e6 });
    const running = ejection.run();
    await until(() => landing.merger?.isMerged(0, 40) && landing.arrivals[0]!.state === 'running');
    landing.cut();
    expect(await running).toMatchObject({ outcome: 'completed', reason: null, vms: [{ outcome: 'completed' }] });
    expect(guest.told).toEqual(['stop', 'release']);
    expect(landing.heard.filter((what) => what === 'RUN 0').length).toBe(2);
    landing.expectWhole(0, guest.memory);
  });

  test('directly, the link breaks before all is there: paused, and the guest here stays stopped', async () => {
    const { guest, landing, ejection } = await scene(
      { guests: [BUSY] },
      { mode: 'post-copy', rateBytesPerS: 2e6, answerMs: 800 },
    );
    const running = ejection.run();
    await until(() => landing.merger?.isMerged(0, 40) && landing.arrivals[0]!.state === 'running');
    expect(ejection.committed).toBe(true);
    expect(ejection.cancel()).toEqual([]);
    await landing.close();
    const summary = await running;
    expect(summary).toMatchObject({ outcome: 'paused-recoverable', vms: [{ outcome: 'paused-recoverable' }] });
    expect(guest.told).toEqual(['stop']);
  });

  test('directly, nobody answers: in doubt none runs', async () => {
    const { guest, ejection } = await scene(
      { landing: { onMessage: (type) => (type === T.RUN ? false : undefined) } },
      { mode: 'post-copy', answerMs: 300 },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'PEER_UNREACHABLE' } });
    expect(guest.told).toEqual(['stop']);
  });

  test.each<[string, Partial<EjectOptions>, number]>([
    ['post-copy, directly', { mode: 'post-copy' }, 0],
    ['pre-copy, over nodes', { mode: 'pre-copy' }, 2],
  ])('%s, the destination says that it never ran: it goes on at the source', async (_, how, keepers) => {
    const { guest, ejection } = await scene(
      {
        keepers,
        landing: {
          onMessage: (type, vm, landing) => {
            if (type !== T.RUN) return undefined;
            landing.send(T.VM_OVER, { vm, code: 'IMAGE', message: 'it did not start' });
            return false;
          },
        },
      },
      how,
    );
    expect(await ejection.run()).toMatchObject({ outcome: 'aborted', reason: { message: /did not start/ } });
    expect(guest.told).toEqual(['stop', 'resume']);
  });
});

describe('a link that breaks and comes back', () => {
  const modes: Mode[] = ['stop', 'pre-copy', 'post-copy', 'hybrid'];
  const moments: [string, MessageType, boolean][] = [
    ['with the first DISCARD', T.DISCARD, true],
    ['when the execution state was sent', T.STATE, true],
    ['before RUN is heard', T.RUN, false],
    ['when RUN was heard', T.RUN, true],
  ];

  test.each(modes.flatMap((mode) => moments.map((moment) => [mode, ...moment] as const)))(
    'mode %s, %s: everything is said again, and it runs once',
    async (mode, _, when, heard) => {
      let cuts = 0;
      const { guest, landing, ejection } = await scene(
        {
          guests: [{ ...BUSY, pages: 1024 }],
          keepers: 2,
          landing: {
            onMessage: (type, vm, landing) => {
              if (type !== when || cuts > 0) return undefined;
              cuts++;
              if (!heard) {
                landing.cut();
                return false;
              }
              if (type === T.RUN) landing.run(vm!);
              setImmediate(() => landing.cut());
              return type === T.RUN ? false : undefined;
            },
          },
        },
        { mode, rateBytesPerS: 20e6, ...(mode === 'pre-copy' && { rounds: 3 }) },
      );
      const summary = await ejection.run();
      expect(summary).toMatchObject({ outcome: 'completed', reason: null });
      expect(cuts).toBe(1);
      expect(landing.heard.filter((what) => what === 'IMAGES').length).toBeGreaterThanOrEqual(mode === 'stop' ? 1 : 2);
      expect(guest.runs).toBe(false);
      expect(guest.told.at(-1)).toBe('release');
      await landing.fetchAll();
      landing.expectWhole(0, guest.memory);
    },
  );
});

describe('nodes that are killed', () => {
  test.each<[Mode, string]>([
    ['pre-copy', 'while it runs at the source'],
    ['hybrid', 'while it runs at the source'],
    ['post-copy', 'when it runs at the destination'],
    ['hybrid', 'when it runs at the destination'],
    ['stop', 'when it has stopped'],
  ])('mode %s, %s: what they had is sent in other frames, or made again', async (mode, when) => {
    const { landing, guest, nodes, ejection } = await scene(
      { guests: [BUSY], keepers: 3, landing: { refusesFrames: true, gathers: false } },
      { mode, rateBytesPerS: 8e6, ...(mode === 'pre-copy' && { rounds: 3 }) },
    );
    const running = ejection.run();
    const kept = () => nodes.map((node) => node.status().frames);
    const isThere = () => landing.arrivals[0]?.state === 'running';
    await until(() => kept().every((frames) => frames > 3) && (/destination/.test(when) ? isThere() : true));
    expect(guest.runs).toBe(/source/.test(when));
    const lost = kept()[0]!;
    await nodes[0]!.close();
    const summary = await running;
    expect(summary).toMatchObject({ outcome: 'completed', reason: null });
    const voided = [...landing.records.values()].filter(({ state }) => state === 'void');
    // Every frame that was made of memory that moved, and no other.
    if (/source/.test(when)) expect(voided.length).toBeGreaterThan(0);
    if (mode === 'stop' || mode === 'post-copy') {
      expect(voided).toEqual([]);
      expect(summary.resent).toBeGreaterThanOrEqual(lost - 3);
    }
    await landing.fetchAll();
    landing.expectWhole(0, guest.memory);
  });
});

describe('a destination that is gone', () => {
  test.each<Mode>(['stop', 'pre-copy'])(
    'in mode %s: the nodes have all of it, and its execution state, and it is given to them',
    async (mode) => {
      const { landing, guest, nodes, ejection } = await scene(
        { guests: [BUSY], keepers: 2 },
        { mode, rateBytesPerS: 8e6, vmKey: KEY, ...(mode === 'pre-copy' && { rounds: 2 }) },
      );
      const running = ejection.run();
      await until(() => ejection.status().wireBytes > 2e6);
      await landing.close();
      const summary = await running;
      expect(summary).toMatchObject({ outcome: 'completed', reason: null, vms: [{ downtimeMs: null }] });
      expect(guest.told).toEqual(['stop', 'release']);
      expect(landing.heard).not.toContain('RUN 0');
      const read = await readBack(
        nodes.map(({ address }) => address),
        'vm0',
        KEY,
      );
      expect(Buffer.compare(read.images[0]!, guest.memory)).toBe(0);
      expect(Buffer.compare(read.states[0]!, guest.state)).toBe(0);
    },
  );

  test.each<Mode>(['post-copy', 'hybrid'])('in mode %s: it goes on at the source', async (mode) => {
    const { landing, guest, nodes, ejection } = await scene(
      {
        guests: [BUSY],
        keepers: 2,
        landing: {
          onMessage: (type, _vm, landing) => {
            if (type !== T.STATE) return undefined;
            landing.cut();
            void landing.close();
            return false;
          },
        },
      },
      { mode, answerMs: 700 },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'aborted', vms: [{ outcome: 'aborted' }] });
    expect(guest.told).toEqual(['stop', 'resume']);
    expect(landing.heard).not.toContain('RUN 0');
    await until(() => nodes.every((node) => node.status().frames === 0));
  });

  test('after RUN: its pages go to the nodes, and it is not run again', async () => {
    const { landing, guest, ejection } = await scene(
      { guests: [BUSY], keepers: 2 },
      { mode: 'post-copy', rateBytesPerS: 8e6 },
    );
    const running = ejection.run();
    await until(() => landing.arrivals[0]?.state === 'running' && landing.merger.mergedPages(0) > 200);
    await landing.close();
    expect(await running).toMatchObject({ outcome: 'completed', vms: [{ outcome: 'completed' }] });
    expect(guest.told).toEqual(['stop', 'release']);
  });
});

describe('a gang', () => {
  const two: GuestOptions[] = [
    { pages: 1024, kinds: ['random'], seed: 1 },
    { pages: 1024, kinds: ['random'], seed: 2 },
  ];

  test.each<[Mode, number]>([
    ['auto', 0],
    ['post-copy', 2],
    ['hybrid', 2],
    ['stop', 0],
  ])('in mode %s, %i nodes: all of it is there, and each runs', async (mode, keepers) => {
    const { landing, guests, ejection } = await scene(
      { guests: two.map((one) => ({ ...one, writesPerS: 1000, workingSet: 100 })), keepers },
      { mode, rateBytesPerS: 20e6 },
    );
    expect(await ejection.run()).toMatchObject({ outcome: 'completed' });
    await landing.fetchAll();
    for (const [vm, guest] of guests.entries()) {
      landing.expectWhole(vm, guest.memory);
      expect(landing.arrivals[vm]!.state).toBe('running');
      expect(Buffer.compare(landing.arrivals[vm]!.executionState, guest.state)).toBe(0);
    }
  });

  test.each<[string, number, Mode, boolean]>([
    ['one after the other', 100, 'post-copy', true],
    ['one after the other', 100, 'hybrid', true],
    ['but none waits long for another', 1000, 'post-copy', false],
  ])('stands still %s: handed over in %i ms, in mode %s', async (_, loadMs, mode, inTurn) => {
    const stills: string[] = [];
    const onMessage = (type: MessageType, vm: number | null) => {
      if (type === T.RUN) stills.push(`${vm} runs`);
      return undefined;
    };
    const { landing, guests, ejection } = await scene({ guests: two, landing: { loadMs, onMessage } }, { mode });
    for (const [vm, guest] of guests.entries()) {
      const stop = guest.stop.bind(guest);
      guest.stop = () => {
        stills.push(`${vm} stops`);
        return stop();
      };
    }
    const summary = await ejection.run();
    expect(summary.outcome).toBe('completed');
    expect(stills).toEqual(
      inTurn ? ['0 stops', '0 runs', '1 stops', '1 runs'] : ['0 stops', '1 stops', '0 runs', '1 runs'],
    );
    for (const [vm, guest] of guests.entries()) landing.expectWhole(vm, guest.memory);
  });

  test.each([
    [[1, 1], 1],
    [[3, 1], 3],
    [[1, 4], 0.25],
  ])('with priorities %j shares the link by them', async (priorities, ratio) => {
    const { landing, ejection } = await scene({ guests: two, priorities }, { rateBytesPerS: 4e6, mode: 'post-copy' });
    const running = ejection.run();
    // The first has the link for itself until the second stands still too.
    await until(() => landing.arrivals.length === 2 && landing.arrivals.every(({ state }) => state === 'running'));
    const before = [0, 1].map((vm) => landing.merger.mergedPages(vm));
    const pages = (vm: number) => landing.merger.mergedPages(vm) - before[vm]!;
    await until(() => pages(0) + pages(1) > 800);
    expect(pages(0) / pages(1)).toBeGreaterThan(0.7 * ratio);
    expect(pages(0) / pages(1)).toBeLessThan(1.4 * ratio);
    ejection.setRate(null);
    expect((await running).outcome).toBe('completed');
  });

  test.each<[string, number, Partial<EjectOptions>]>([
    ['directly', 0, { mode: 'hybrid' }],
    ['over nodes', 2, { mode: 'post-copy' }],
    ['over nodes', 2, { mode: 'stop' }],
  ])('%s: one whose image cannot be read fails alone', async (_, keepers, how) => {
    const { landing, guests, nodes, ejection } = await scene({ guests: two, keepers }, { rateBytesPerS: 8e6, ...how });
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 1e6);
    guests[0]!.gone = new Error('gone');
    const summary = await running;
    expect(summary).toMatchObject({
      outcome: how.mode === 'post-copy' ? 'paused-recoverable' : 'aborted',
      reason: { code: 'IMAGE', message: /gone/ },
      vms: [{ reason: { code: 'IMAGE' } }, { outcome: 'completed', reason: null }],
    });
    expect(landing.heard).toContain('VM_OVER 0');
    for (const { address } of nodes)
      expect(await MamNode.lookup(address)).toMatchObject([{ complete: true, over: ['vm0'] }]);
    expect(guests[1]!.told.at(-1)).toBe('release');
    await landing.fetchAll();
    landing.expectWhole(1, guests[1]!.memory);
  });

  test('whose link is slow: a guest stops when what the others have sent has arrived, and not before', async () => {
    const busy = { pages: 256, kinds: ['random'], writesPerS: 100, workingSet: 20 };
    const { landing, guests, notices, ejection } = await scene(
      // 13 MB a second.
      { guests: [busy, { pages: 10_240, kinds: ['random'], seed: 3 }], landing: { frameMs: 5 } },
      { mode: 'auto' },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'completed', vms: [{ mode: 'pre-copy' }, { mode: 'pre-copy' }] });
    expect(notices).toEqual([]);
    // The first is gone long before the second has sent all.
    expect(summary.vms[0]!.exitTimeMs).toBeLessThan(0.6 * summary.vms[1]!.exitTimeMs!);
    expect(summary.vms[0]!.downtimeMs).toBeLessThan(500);
    for (const [vm, guest] of guests.entries()) landing.expectWhole(vm, guest.memory);
  });

  test.each([0, 2])(
    'that have the same content, in mode stop, %i nodes: the first runs, and writes, before the others are there',
    async (keepers) => {
      const same = { pages: 5120, kinds: ['random'], seed: 5 };
      const onMessage = (type: MessageType, vm: number | null, landing: Landing) => {
        if (type !== T.RUN || vm !== 0) return undefined;
        landing.run(0);
        for (let pfn = 0; pfn < 5120; pfn++) if (landing.merger.isMerged(0, pfn)) landing.scribble(0, pfn);
        return false;
      };
      const { landing, guests, ejection } = await scene(
        { guests: [same, same], keepers, landing: { onMessage, askMs: 500 } },
        { mode: 'stop', rateBytesPerS: 40e6 },
      );
      const stop = guests[1]!.stop.bind(guests[1]);
      guests[1]!.stop = async () => {
        await until(() => landing.arrivals[0]?.state === 'running');
        return stop();
      };
      // More frames than there is memory for wait for what was overwritten.
      expect(await ejection.run()).toMatchObject({ outcome: 'completed' });
      if (keepers === 0) expect(landing.asked).toBeGreaterThan(4000);
      await landing.fetchAll();
      for (const [vm, guest] of guests.entries()) landing.expectWhole(vm, guest.memory);
    },
  );

  test.each(['stop', 'post-copy'] as const)(
    'one that cannot be opened there, in mode %s: it alone stays',
    async (mode) => {
      const { landing, guests, ejection } = await scene(
        { guests: two, keepers: 2, landing: { refuses: [0] } },
        { mode },
      );
      expect(await ejection.run()).toMatchObject({
        vms: [{ outcome: 'aborted', reason: { message: /not opened/ } }, { outcome: 'completed' }],
      });
      expect(guests.map(({ told }) => told)).toEqual([[], ['stop', 'release']]);
      expect(ejection.status().vms![0]).toMatchObject({ state: 'running', dirtyPages: 0 });
      await landing.fetchAll();
      landing.expectWhole(1, guests[1]!.memory);
    },
  );

  test('one that the destination does not want fails alone, and goes on here', async () => {
    const { landing, guests, ejection } = await scene(
      {
        guests: two,
        landing: {
          onMessage: (type, vm, landing) => {
            if (type !== T.STATE || vm !== 1) return undefined;
            landing.send(T.VM_OVER, { vm, code: 'NO_ROOM', message: 'no memory' });
            return false;
          },
        },
      },
      { mode: 'pre-copy' },
    );
    const summary = await ejection.run();
    expect(summary).toMatchObject({
      outcome: 'aborted',
      vms: [{ outcome: 'completed' }, { outcome: 'aborted', reason: { message: /no memory \(NO_ROOM\)/ } }],
    });
    expect(guests.map(({ told }) => told)).toEqual([
      ['stop', 'release'],
      ['stop', 'resume'],
    ]);
    landing.expectWhole(0, guests[0]!.memory);
  });

  test.each([0, 2])(
    'is cancelled when one of two runs there, %i nodes: that one arrives, the other stays',
    async (keepers) => {
      const onMessage = (type: MessageType, vm: number | null) => (type === T.STATE && vm === 1 ? false : undefined);
      const { landing, guests, ejection } = await scene(
        { guests: two, keepers, landing: { onMessage } },
        { mode: 'post-copy', rateBytesPerS: 8e6 },
      );
      const running = ejection.run();
      await until(() => landing.arrivals[0]?.state === 'running' && landing.heard.includes('STATE 1'));
      expect(ejection.cancel('enough')).toEqual(['vm1']);
      expect(await running).toMatchObject({
        outcome: 'aborted',
        reason: { code: 'CANCELLED' },
        vms: [
          { outcome: 'completed', reason: null },
          { outcome: 'aborted', reason: { code: 'CANCELLED', message: 'enough' } },
        ],
      });
      expect(landing.heard).toContain('VM_OVER 1');
      expect(guests.map(({ told }) => told)).toEqual([
        ['stop', 'release'],
        ['stop', 'resume'],
      ]);
      await landing.fetchAll();
      landing.expectWhole(0, guests[0]!.memory);
    },
  );

  test('a link that breaks when one of two runs there: that one is paused, the other goes on here', async () => {
    const { landing, guests, ejection } = await scene(
      {
        guests: two,
        landing: { onMessage: (type, vm) => (type === T.STATE && vm === 1 ? false : undefined) },
      },
      { mode: 'post-copy', rateBytesPerS: 2e6, answerMs: 800 },
    );
    const running = ejection.run();
    await until(() => landing.arrivals[0]?.state === 'running' && landing.heard.includes('STATE 1'));
    await landing.close();
    expect(await running).toMatchObject({
      outcome: 'paused-recoverable',
      vms: [{ outcome: 'paused-recoverable' }, { outcome: 'aborted' }],
    });
    expect(guests.map(({ told }) => told)).toEqual([['stop'], ['stop', 'resume']]);
  });
});

describe('a guest that is parked', () => {
  test.each<[Mode, Mode]>([
    ['stop', 'stop'],
    ['pre-copy', 'pre-copy'],
    ['auto', 'pre-copy'],
  ])('in mode %s is at the nodes, with its execution state', async (mode, left) => {
    const nodes = await startNodes(2);
    const guest = new TestGuest(BUSY);
    const ejection = new Ejection({
      vms: [{ name: 'vm0', image: guest }],
      park: { leaseMs: 60_000 },
      vmKey: KEY,
      intermediates: nodes.map(({ address }) => address),
      mode,
      rateBytesPerS: 20e6,
    });
    expect(await ejection.run()).toMatchObject({ outcome: 'completed', vms: [{ mode: left }] });
    expect(guest.told).toEqual(['stop', 'release']);
    const read = await readBack(
      nodes.map(({ address }) => address),
      'vm0',
      KEY,
    );
    expect(Buffer.compare(read.images[0]!, guest.memory)).toBe(0);
    expect(Buffer.compare(read.states[0]!, guest.state)).toBe(0);
  });
});
