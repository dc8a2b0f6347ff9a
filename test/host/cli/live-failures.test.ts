// Guests that run while they are moved, and somebody who dies, is cut off, or changes his mind: whoever it is and whenever, one has the VM, or nobody, and no
// page is wrong.
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { GuestProcess } from '../guest/guests.js';
import { expectCompleted, Live, Pair } from './live-scene.js';
import { Abdm, cleanUp, directory, freeAddress } from './processes.js';

afterEach(cleanUp);

const RUNS = ({ type }: { type: string }) => type === 'running';
const MERGED = (bytes: number) => (event: { type: string; mergedBytes: number }) =>
  event.type === 'progress' && event.mergedBytes > bytes;

async function scene(keepers: number, ...args: string[]) {
  const pair = await Pair.of('vm', '--ops', '1000', ...args);
  const live = await Live.of([pair], keepers);
  return { pair, live, to: await freeAddress() };
}

const note = (pair: Pair) => `${pair.there.socket}.abdm`;

describe('a destination that is killed', () => {
  test('before the guest runs there, is started again: all of it comes anew', async () => {
    const { pair, live, to } = await scene(2);
    const first = live.merge(to);
    await first.address();
    const source = live.eject(to, 'stop', '--rate', '4MB');
    await first.event(MERGED(2e6));
    await first.stop('SIGKILL');
    const again = live.merge(to);
    expectCompleted(...(await Promise.all([source.done, again.done])));
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });

  test('after it has left its source whole, and before it runs: the nodes have what it needs', async () => {
    const { pair, live, to } = await scene(2);
    const first = live.merge(to, '--rate', '4MB');
    await first.address();
    expectCompleted(await live.eject(to, 'stop').done);
    await first.event(MERGED(2e6));
    await first.stop('SIGKILL');
    expect((await pair.there.ask('status')).state).not.toBe('running');
    const again = live.merge(to);
    await again.event(RUNS);
    expectCompleted(await again.done);
    expect(existsSync(note(pair))).toBe(false);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });

  test.each([['while its source is there', '--rate', '4MB'], ['after its source has left']])(
    'when the guest runs there, %s: the guest waits, and goes on with the next one',
    async (_, ...rate) => {
      const { pair, live, to } = await scene(2);
      const first = live.merge(to, '--rate', '4MB');
      await first.address();
      const source = live.eject(to, 'post-copy', ...rate);
      if (rate.length === 0) expectCompleted(await source.done);
      await first.event(RUNS);
      await first.event(MERGED(3e6));
      await first.stop('SIGKILL');
      const { state, absentPages } = await pair.there.ask('status');
      expect([state, Number(absentPages) > 0]).toEqual(['running', true]);
      const again = live.merge(to);
      const merged = await again.done;
      if (rate.length > 0) expectCompleted(await source.done);
      expectCompleted(merged);
      expect(merged.summary.vms[0]).toMatchObject({ verified: true, mode: 'post-copy' });
      await pair.expectThere();
      expect(await pair.end()).toEqual({ here: 1, there: 1 });
    },
  );

  test('again and again', async () => {
    const { pair, live, to } = await scene(2);
    const first = live.merge(to, '--rate', '3MB');
    await first.address();
    expectCompleted(await live.eject(to, 'hybrid').done);
    await first.event(RUNS);
    await first.stop('SIGKILL');
    for (const bytes of [1e6, 8e6, 12e6]) {
      const again = live.merge(to, '--rate', '8MB');
      await again.event(MERGED(bytes));
      await again.stop('SIGKILL');
    }
    expectCompleted(await live.merge(to).done);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });

  test('and the guest that ran is gone too: its data is lost, and nobody runs another one', async () => {
    const { pair, live, to } = await scene(2);
    const first = live.merge(to, '--rate', '4MB');
    await first.address();
    expectCompleted(await live.eject(to, 'pre-copy').done);
    await first.event(RUNS);
    await first.stop('SIGKILL');
    await pair.there.abdm.stop('SIGKILL');
    pair.before.push(pair.there);
    const other = new Abdm(['guest', '--socket', pair.there.socket, '--incoming']);
    await other.event(({ type }) => type === 'listening');
    const { code, summary } = await live.merge(to).done;
    expect([code, summary.outcome]).toEqual([4, 'aborted']);
    expect(summary.lost).toEqual([{ vm: 'vm', ranges: [[0, 4095]] }]);
    const { events } = await new Abdm(['guest', '--socket', pair.there.socket, '--ask', 'status']).done;
    expect(events[0].state).toBe('waiting');
    await other.stop();
  });
});

describe('a source that is killed', () => {
  test.each([
    ['directly', 0],
    ['over nodes', 2],
  ])('before the guest runs elsewhere, %s: it never does', async (_, keepers) => {
    const { pair, live } = await scene(keepers);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'stop', '--rate', '3MB');
    await destination.event(MERGED(1e6));
    await source.stop('SIGKILL');
    const { code, summary } = await destination.done;
    expect([code, summary.outcome, summary.reason.code]).toEqual([2, 'aborted', 'PEER_GONE']);
    expect(existsSync(note(pair))).toBe(false);
    // It was stopped; that is for the operator to end, who knows that nobody else has it.
    await pair.here.ask('resume');
    await pair.expectHere();
    expect(await pair.end()).toEqual({ here: 2, there: 0 });
  });

  test.each([
    ['directly', 0],
    ['over nodes', 2],
  ])(
    'when it runs elsewhere, %s: what only the source had is lost, and the guest stays where it is',
    async (_, keepers) => {
      const { pair, live } = await scene(keepers, '--ops', '200');
      const { destination, to } = await live.listening();
      const source = live.eject(to, 'post-copy', '--rate', '2MB');
      await destination.event(RUNS);
      await destination.event(MERGED(1e6));
      await source.stop('SIGKILL');
      const { code, summary } = await destination.done;
      expect([code, summary.outcome, summary.reason.code]).toEqual([4, 'aborted', 'FRAME_LOST']);
      const [{ vm, ranges }] = summary.lost;
      expect(vm).toBe('vm');
      const lost = (ranges as [number, number][]).reduce((sum, [first, last]) => sum + last - first + 1, 0);
      const status = await pair.there.ask('status');
      expect(status).toMatchObject({ state: 'running', absentPages: lost });
      // What is there is right.
      expect(await pair.there.ask('verify')).toMatchObject({ wrong: 0, absent: lost });
      expect(await pair.end()).toEqual({ here: 1, there: 1 });
    },
  );
});

describe('a guest that is gone', () => {
  test('where it was to run: it goes on where it was', async () => {
    const { pair, live } = await scene(2);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'pre-copy', '--rate', '3MB');
    await destination.event(MERGED(1e6));
    await pair.there.abdm.stop('SIGKILL');
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 2]);
    expect(merged.summary).toMatchObject({ outcome: 'aborted', reason: { code: 'IMAGE' } });
    expect(merged.summary.reason.message).toContain(pair.there.socket);
    await pair.here.works(100);
    expect(readdirSync(dirname(pair.there.socket)).filter((name) => name.endsWith('.abdm'))).toEqual([]);
  });

  test('where it ran: it is lost, with a reason', async () => {
    const { pair, live } = await scene(2);
    const { destination, to } = await live.listening('--rate', '3MB');
    expectCompleted(await live.eject(to, 'post-copy').done);
    await destination.event(RUNS);
    await pair.there.abdm.stop('SIGKILL');
    const { code, summary } = await destination.done;
    expect([code, summary.outcome, summary.reason.code]).toEqual([4, 'aborted', 'IMAGE']);
    expect(summary.vms[0]).toMatchObject({ outcome: 'aborted', reason: { code: 'IMAGE' } });
    expect(summary.lost).toEqual([{ vm: 'vm', ranges: [[0, 4095]] }]);
    expect(existsSync(note(pair))).toBe(false);
    expect((await pair.here.ask('status')).state).toBe('left');
  });
});

describe('a destination that is told to end', () => {
  test('before the guest runs there: it goes on where it was', async () => {
    const { pair, live } = await scene(2);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'stop', '--rate', '3MB');
    await destination.event(MERGED(1e6));
    const merged = await destination.stop('SIGINT');
    expect([merged.code, merged.summary.reason.code]).toEqual([2, 'CANCELLED']);
    expect((await source.done).code).toBe(2);
    expect(existsSync(note(pair))).toBe(false);
    await pair.expectHere();
    expect(await pair.end()).toEqual({ here: 2, there: 0 });
  });

  test('when it runs there: it stays, says how to go on, and does', async () => {
    const { pair, live } = await scene(2);
    const { destination, to } = await live.listening('--rate', '3MB');
    expectCompleted(await live.eject(to, 'post-copy').done);
    await destination.event(RUNS);
    expect((await new Abdm(['cancel', 'vm']).done).code).toBe(1);
    const { code, summary, events } = await destination.stop('SIGINT');
    expect([code, summary.outcome, summary.reason.code]).toEqual([3, 'paused-recoverable', 'CANCELLED']);
    const notices = events.filter(({ type }) => type === 'notice').map(({ text }) => text);
    expect(notices).toContainEqual(expect.stringMatching(/same command again.*guest of vm at/));
    expect((await pair.there.ask('status')).state).toBe('running');
    expectCompleted(await live.merge(await freeAddress()).done);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });
});

describe('what does not fit', () => {
  test.each([
    ['a guest', 'into a file', 'guest:SOCKET'],
    ['a file', 'into a guest', 'file:PATH'],
  ])('%s %s is refused at both ends', async (what, _, advice) => {
    const { pair, live } = await scene(1);
    const path = `${directory()}/image`;
    const guest = `guest:${what === 'a guest' ? pair.here.socket : pair.there.socket}`;
    writeFileSync(`${path}.in`, new Uint8Array(100 * 4096));
    const [from, to] = what === 'a guest' ? [guest, `file:${path}`] : [`file:${path}.in`, guest];
    const destination = new Abdm(['merge', `vm=${to}`, '--listen', '127.0.0.1:0']);
    const address = await destination.address();
    const left = await new Abdm(['eject', `vm=${from}`, '--to', address, '--intermediates', live.list]).done;
    const merged = await destination.done;
    expect([merged.code, merged.summary.reason.code]).toEqual([1, 'USAGE']);
    expect(merged.summary.reason.message).toContain(advice);
    expect(left.code).toBe(2);
    expect(left.summary.reason.message).toContain(advice);
    await pair.here.works(100);
    expect(existsSync(path)).toBe(false);
    expect((await pair.there.ask('status')).state).toBe('waiting');
  });

  test('a guest that runs something else already', async () => {
    const { pair, live } = await scene(1);
    const other = await GuestProcess.running();
    const destination = new Abdm(['merge', `vm=guest:${other.socket}`, '--listen', '127.0.0.1:0']);
    const left = await live.eject(await destination.address(), 'auto').done;
    const merged = await destination.done;
    expect([left.code, merged.code]).toEqual([2, 2]);
    expect(merged.summary.reason.message).toMatch(/waits for no migration/);
    await other.works(100);
    await pair.here.works(100);
  });
});
