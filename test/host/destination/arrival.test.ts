// One guest at its destination: it runs once, only when it may, and never after it was refused.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import { Arrival, type ArrivalOptions } from '#abdm/host/destination/arrival.js';
import { FakeGuest, stateBodies } from './fake-guest.js';

function arrive(options: Partial<Omit<ArrivalOptions, 'sink'>> = {}, guest = new FakeGuest()) {
  const failures: AbdmError[] = [];
  const arrival = new Arrival({
    sink: guest,
    isLost: false,
    waitsForAll: false,
    permit: async () => true,
    onStart: () => guest.asked.push('started'),
    onBegin: () => guest.asked.push('noted'),
    onNotBegun: () => guest.asked.push('not begun'),
    onRunning: () => guest.asked.push('said'),
    onFailed: (error) => failures.push(error),
    ...options,
  });
  return { guest, arrival, failures };
}

const state = (text: string) => new Uint8Array(Buffer.from(text));
const soon = () => sleep(20);

describe('a guest', () => {
  test('that takes its state once may wait for pages as it does so', async () => {
    const { guest, arrival } = arrive({}, Object.assign(new FakeGuest(), { loadsOnce: true as const }));
    await arrival.load(state('one'));
    expect(guest.asked).toEqual(['started', 'load one']);
  });

  test('takes its state, and runs when it is told to: what must outlive us is noted before', async () => {
    const { guest, arrival } = arrive();
    expect(arrival.report).toEqual({ state: 'waiting', guest: guest.guestId });
    const [body] = stateBodies(0, state('one'));
    expect(await arrival.take(body!)).toBe(true);
    expect(arrival.report.state).toBe('loaded');
    expect([arrival.isOurs, arrival.hasRun]).toEqual([false, false]);
    await arrival.run();
    expect(guest.asked).toEqual(['load one', 'noted', 'started', 'run', 'said']);
    expect([arrival.isOurs, arrival.hasRun, arrival.report.state]).toEqual([true, true, 'running']);
    // A source that did not hear of it says it again.
    await arrival.run();
    expect(await arrival.take(body!)).toBe(false);
    expect(guest.asked.length).toBe(5);
  });

  test('is said to run only when it does: the source lets go of it then', async () => {
    const { guest, arrival } = arrive();
    await arrival.load(state('one'));
    let running!: () => void;
    guest.hold.run = new Promise((resolve) => {
      running = resolve;
    });
    const ran = arrival.run();
    await soon();
    expect([arrival.hasRun, arrival.report.state]).toEqual([true, 'loaded']);
    running();
    await ran;
    expect(arrival.report.state).toBe('running');
  });

  test('does not run what another one was to run', async () => {
    const { guest, arrival } = arrive({ isLost: true });
    expect(await arrival.load(state('one'))).toBe(false);
    void arrival.grant();
    await soon();
    expect([guest.asked, arrival.isOurs, arrival.report.state]).toEqual([[], false, 'waiting']);
  });

  test('is not told to run before it is loaded', async () => {
    const { guest, arrival } = arrive();
    expect(() => arrival.run()).toThrow(expect.objectContaining({ code: 'PROTOCOL' }));
    let loaded!: () => void;
    guest.hold.load = new Promise((resolve) => {
      loaded = resolve;
    });
    const taken = arrival.take(stateBodies(0, state('one'))[0]!);
    await soon();
    expect(() => arrival.run()).toThrow(/before/);
    loaded();
    expect(await taken).toBe(true);
    expect(arrival.isOurs).toBe(false);
  });

  test('that is sent a later state runs with that', async () => {
    const { guest, arrival } = arrive();
    await arrival.load(state('one'));
    let loaded!: () => void;
    guest.hold.load = new Promise((resolve) => {
      loaded = resolve;
    });
    const second = arrival.load(state('two'));
    const ran = arrival.run();
    await soon();
    expect(guest.asked).toEqual(['load one']);
    loaded();
    await Promise.all([second, ran]);
    expect(guest.asked).toEqual(['load one', 'load two', 'noted', 'started', 'run', 'said']);
  });

  test('in mode stop runs only when all of it is there, whatever comes first', async () => {
    for (const order of ['lgw', 'lwg', 'glw', 'gwl', 'wlg', 'wgl']) {
      const { guest, arrival } = arrive({ waitsForAll: true });
      for (const step of order) {
        expect(guest.asked).not.toContain('run');
        if (step === 'l') await arrival.load(state('one'));
        else if (step === 'g') void arrival.grant();
        else arrival.whole();
        await soon();
      }
      expect(guest.asked, order).toEqual(['load one', 'noted', 'started', 'run', 'said']);
    }
  });

  test('that was refused never runs, though it was told to', async () => {
    const { guest, arrival } = arrive();
    await arrival.load(state('one'));
    expect(arrival.refuse()).toBe(true);
    void arrival.run();
    await arrival.load(state('two'));
    await soon();
    expect(guest.asked).toEqual(['load one']);
    expect(arrival.report.state).toBe('waiting');
    expect(arrival.isOurs).toBe(false);
  });

  test('that runs cannot be refused', async () => {
    const { guest, arrival } = arrive();
    let begun!: () => void;
    guest.hold.run = new Promise((resolve) => {
      begun = resolve;
    });
    await arrival.load(state('one'));
    const ran = arrival.run();
    await soon();
    // Who knows whether it has begun.
    expect(arrival.refuse()).toBe(false);
    begun();
    await ran;
    expect(arrival.hasRun).toBe(true);
  });

  test('is not run while somebody else might, and not any more when it was refused meanwhile', async () => {
    const forbidden = arrive({ permit: async () => false });
    await forbidden.arrival.load(state('one'));
    void forbidden.arrival.run();
    await soon();
    expect(forbidden.guest.asked).toEqual(['load one']);
    expect(forbidden.arrival.hasRun).toBe(false);

    const late = arrive({ permit: () => soon().then(() => true) });
    await late.arrival.load(state('one'));
    void late.arrival.run();
    expect(late.arrival.refuse()).toBe(true);
    await soon();
    await soon();
    expect(late.guest.asked).toEqual(['load one']);
  });

  test('with which nothing is done any more is neither loaded nor run', async () => {
    const { guest, arrival } = arrive();
    await arrival.load(state('one'));
    await arrival.close();
    void arrival.grant();
    expect(await arrival.load(state('two'))).toBe(false);
    await soon();
    expect(guest.asked).toEqual(['load one']);
    expect(arrival.hasRun).toBe(false);
  });

  test('that had run before is ours from the beginning', async () => {
    const { guest, arrival } = arrive({}, new FakeGuest(0, true));
    expect(arrival.report.state).toBe('running');
    expect([arrival.isOurs, arrival.hasRun]).toEqual([true, true]);
    await arrival.settled;
    await arrival.run();
    expect(guest.asked).toEqual([]);
    expect(arrival.refuse()).toBe(false);
  });
});

describe('a guest that fails', () => {
  const broken = new AbdmError('IMAGE', 'broken');

  test('because it does not take its state: is said, and was not LOADED', async () => {
    const { guest, arrival, failures } = arrive();
    guest.refuse.load = broken;
    expect(await arrival.load(state('one'))).toBe(false);
    expect(failures).toEqual([broken]);
    await arrival.settled;
    expect(arrival.report.state).toBe('waiting');
  });

  test('because it cannot be begun: is said, and it may have run', async () => {
    const { guest, arrival, failures } = arrive();
    guest.refuse.run = broken;
    await arrival.load(state('one'));
    void arrival.run();
    await arrival.settled;
    expect(failures).toEqual([broken]);
    expect(arrival.refuse()).toBe(false);
  });

  test('because what must outlive us cannot be noted: it is not begun', async () => {
    const full = new AbdmError('IMAGE', 'no room');
    const { guest, arrival, failures } = arrive({
      onBegin: () => {
        throw full;
      },
    });
    await arrival.load(state('one'));
    void arrival.run();
    await arrival.settled;
    expect([failures, guest.asked]).toEqual([[full], ['load one']]);
  });

  test('because it is gone: is said once it is', async () => {
    const { guest, arrival, failures } = arrive();
    expect(arrival.isGone).toBe(false);
    guest.onGone(new Error('killed'));
    expect(arrival.isGone).toBe(true);
    await arrival.settled;
    expect(failures).toMatchObject([{ code: 'IMAGE', message: 'killed' }]);
  });

  test('when it is told to run, and has surely not: that is noted', async () => {
    const { guest, arrival, failures } = arrive();
    await arrival.load(state('one'));
    guest.mayHaveRun = async () => false;
    guest.refuse.run = broken;
    void arrival.run();
    await arrival.settled;
    expect(guest.asked).toEqual(['load one', 'noted', 'started', 'not begun']);
    expect([failures, arrival.report.state, arrival.refuse()]).toEqual([[broken], 'loaded', true]);
  });

  test('while it is asked whether others may have it is not told to run', async () => {
    let answer!: (isPermitted: boolean) => void;
    const permitted = new Promise<boolean>((resolve) => {
      answer = resolve;
    });
    const { guest, arrival, failures } = arrive({ permit: () => permitted });
    await arrival.load(state('one'));
    void arrival.run();
    await soon();
    guest.onGone(new Error('killed'));
    answer(true);
    await arrival.settled;
    expect(guest.asked).toEqual(['load one']);
    expect(failures).toMatchObject([{ message: 'killed' }]);
  });
});
