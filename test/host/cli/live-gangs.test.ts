// Several guests that leave together: one of them may fail, and the others do not.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { seededPages } from '../../pages.js';
import { expectCompleted, Live, Pair } from './live-scene.js';
import { Abdm, cleanUp, directory } from './processes.js';

const unmounts: string[] = [];
afterEach(async () => {
  for (const path of unmounts.splice(0)) execFileSync('umount', ['-l', path]);
  await cleanUp();
});

const MERGED = (bytes: number) => (event: { type: string; mergedBytes: number }) =>
  event.type === 'progress' && event.mergedBytes > bytes;
const runs = (name: string) => (event: { type: string; vm: string }) => event.type === 'running' && event.vm === name;
// biome-ignore lint/suspicious/noExplicitAny: JSON, as a user's script reads it
const outcomes = ({ vms }: any) => vms.map(({ name, outcome }: { name: string; outcome: string }) => [name, outcome]);

async function scene(keepers: number) {
  const pairs = await Promise.all(
    ['a', 'b'].map((name, i) => Pair.of(name, '--memory', '8M', '--ops', '500', '--seed', `${i}`)),
  );
  return { a: pairs[0]!, b: pairs[1]!, live: await Live.of(pairs, keepers) };
}

describe.each([
  ['directly', 0],
  ['over nodes', 2],
])('two guests, %s', (_, keepers) => {
  test('both go on where they stopped', async () => {
    const { a, b, live } = await scene(keepers);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'auto', '--rate', '12MB');
    expectCompleted(...(await Promise.all([source.done, destination.done])));
    for (const pair of [a, b]) {
      await pair.expectThere();
      expect(await pair.end()).toEqual({ here: 1, there: 1 });
    }
  });

  test('one has nowhere to go any more: it goes on where it was, and the other one leaves', async () => {
    const { a, b, live } = await scene(keepers);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'pre-copy', '--rate', '6MB');
    await destination.event(MERGED(1e6));
    await a.there.abdm.stop('SIGKILL');
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 2]);
    for (const { summary } of [left, merged]) {
      expect(outcomes(summary)).toEqual([
        ['a', 'aborted'],
        ['b', 'completed'],
      ]);
    }
    expect(merged.summary.vms[0].reason.message).toContain(a.there.socket);
    await b.expectThere();
    expect(await b.end()).toEqual({ here: 1, there: 1 });
    await a.here.works(100);
    expect(existsSync(`${a.there.socket}.abdm`)).toBe(false);
  });

  test('merge is told to end when one runs there, whole: that one stays, and the other one goes on where it was', async () => {
    const { a, b, live } = await scene(keepers);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'pre-copy', '--rate', '6MB', '--priority', 'a=20,b=1');
    await destination.event(runs('a'));
    while ((await a.there.ask('status')).absentPages !== 0) {}
    destination.child.kill('SIGTERM');
    const [left, merged] = await Promise.all([source.done, destination.done]);
    for (const { summary } of [left, merged]) {
      expect(outcomes(summary)).toEqual([
        ['a', 'completed'],
        ['b', 'aborted'],
      ]);
    }
    expect([left.code, merged.code]).toEqual([2, 2]);
    await a.expectThere();
    await b.expectHere();
    for (const pair of [a, b]) await pair.end();
  });

  test('one is gone where it ran: it is lost, and the other one comes through', async () => {
    const { a, b, live } = await scene(keepers);
    const { destination, to } = await live.listening();
    const source = live.eject(to, 'post-copy', '--rate', '6MB');
    await destination.event(runs('a'));
    await destination.event(MERGED(2e6));
    await a.there.abdm.stop('SIGKILL');
    const [, merged] = await Promise.all([source.done, destination.done]);
    expect(merged.code).toBe(4);
    expect(outcomes(merged.summary)).toEqual([
      ['a', 'aborted'],
      ['b', 'completed'],
    ]);
    expect(merged.summary.lost).toEqual([{ vm: 'a', ranges: [[0, 2047]] }]);
    await b.expectThere();
    expect(await b.end()).toEqual({ here: 1, there: 1 });
    expect((await a.here.ask('status')).state).not.toBe('running');
  });
});

describe.skipIf(process.platform !== 'linux')('a guest and a file', () => {
  test('leave together, each in its way', async () => {
    const pair = await Pair.of('vm', '--memory', '8M', '--ops', '500');
    const live = await Live.of([pair], 2);
    const dir = directory();
    writeFileSync(`${dir}/in`, seededPages(9, 1000));
    const destination = new Abdm(['merge', pair.to, `disk=file:${dir}/out`, '--listen', '127.0.0.1:0']);
    const to = await destination.address();
    const images = [pair.from, `disk=file:${dir}/in`, '--to', to, '--intermediates', live.list];
    const source = new Abdm(['eject', ...images, '--rate', '8MB']);
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expectCompleted(left, merged);
    expect(merged.summary.vms.map(({ mode }: { mode: string }) => mode)).toEqual([null, 'stop']);
    expect(readFileSync(`${dir}/out`).equals(readFileSync(`${dir}/in`))).toBe(true);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });

  test.skipIf(process.getuid!() !== 0)('there is no room for the file: the guest leaves all the same', async () => {
    const pair = await Pair.of('vm', '--memory', '8M', '--ops', '500');
    const live = await Live.of([pair], 2);
    const dir = directory();
    mkdirSync(`${dir}/small`);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1M', 'none', `${dir}/small`]);
    unmounts.push(`${dir}/small`);
    writeFileSync(`${dir}/in`, seededPages(9, 1000, ['random']));
    const destination = new Abdm(['merge', pair.to, `disk=file:${dir}/small/out`, '--listen', '127.0.0.1:0']);
    const to = await destination.address();
    const images = [pair.from, `disk=file:${dir}/in`, '--to', to, '--intermediates', live.list];
    const source = new Abdm(['eject', ...images, '--rate', '4MB']);
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 2]);
    expect(outcomes(merged.summary)).toEqual([
      ['vm', 'completed'],
      ['disk', 'aborted'],
    ]);
    expect(merged.summary.vms[1].reason).toMatchObject({ code: 'IMAGE', message: expect.stringMatching(/ENOSPC/) });
    expect(outcomes(left.summary)).toEqual(outcomes(merged.summary));
    expect(readdirSync(`${dir}/small`)).toEqual([]);
    await pair.expectThere();
    expect(await pair.end()).toEqual({ here: 1, there: 1 });
  });
});
