// Nobody names a node: intermediates announce themselves, and are found by those who need them.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { group } from '../mam/ether.js';
import { Abdm, cleanUp, clusterKey, intermediates } from './processes.js';
import { keptBytes, Scene } from './scene.js';

afterEach(cleanUp);

describe.each([
  ['without a key', false],
  ['with a key', true],
])('%s, nodes that announce themselves', (_, secured) => {
  let scene: Scene;
  let env: Record<string, string>;
  beforeEach(() => {
    scene = new Scene();
    env = { ABDM_ANNOUNCEMENTS: group(), ...(secured && { ABDM_KEY: clusterKey() }) };
  });
  const abdm = (...args: string[]) => new Abdm(args, env);
  const startMerge = async () => {
    const destination = abdm('merge', `a=file:${scene.out}`, '--listen', '127.0.0.1:0');
    return { destination, to: await destination.address() };
  };
  const expectArrived = () => expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);

  test('are shown, keep what is parked, renew it, and give it back', async () => {
    const { list } = await intermediates(3, '256M', env);
    const known = await abdm('nodes').done;
    expect(known.code).toBe(0);
    const shown = known.events.filter(({ type }) => type === 'node');
    expect(shown.map(({ address }) => address).sort()).toEqual(list.split(',').sort());
    for (const { state } of shown) expect(state).toBe('up');

    const vmKey = join(scene.dir, 'a.vmkey');
    const parked = await abdm('eject', `a=file:${scene.image}`, '--park', '--replicas', '2', '--vm-key', vmKey).done;
    expect(parked.summary?.reason ?? null).toBeNull();
    expect(parked.code).toBe(0);
    const renewed = await abdm('renew', 'a', '--lease', '2h').done;
    expect(renewed.code).toBe(0);
    // At all that were heard of before it had left: two at least.
    expect(renewed.events.at(-1).nodes).toBeGreaterThanOrEqual(2);
    const merged = await abdm('merge', `a=file:${scene.out}`, '--parked', '--vm-key', vmKey).done;
    expect(merged.summary?.reason ?? null).toBeNull();
    expect(merged.code).toBe(0);
    expectArrived();
  });

  test('take a VM on its way to a destination; one that joins meanwhile is used', async () => {
    const { list } = await intermediates(1, '256M', env);
    const { destination, to } = await startMerge();
    const source = abdm('eject', `a=file:${scene.image}`, '--to', to, '--rate', '2MB');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    const { list: joined } = await intermediates(1, '256M', env);
    await source.event(({ type, nodes }) => {
      return (
        type === 'progress' &&
        nodes.some((node: { address: string; frames: number }) => node.address === joined && node.frames > 0)
      );
    });
    expect((await abdm('rate', 'a', 'off', '--role', 'eject').done).code).toBe(0);
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([0, 0]);
    const used = left.summary.nodes.filter(({ frames }: { frames: number }) => frames > 0);
    expect(used.map(({ address }: { address: string }) => address)).toEqual(expect.arrayContaining([list, joined]));
    expectArrived();
  });

  test('are missed where there are none: the error says what to do', async () => {
    const [nobody, parked] = await Promise.all([
      abdm('nodes').done,
      abdm('eject', `a=file:${scene.image}`, '--park', '--vm-key', join(scene.dir, 'key')).done,
    ]);
    expect(nobody).toMatchObject({ code: 2, stderr: expect.stringContaining('no intermediate announces itself') });
    expect(parked.code).toBe(2);
    expect(parked.summary.reason).toMatchObject({
      code: 'NO_ROOM',
      message: expect.stringContaining('no node is known'),
    });
    scene.expectNoOutput();
  });
});

test('a node that has another key is not taken for one of the cluster', async () => {
  const scene = new Scene();
  const ABDM_ANNOUNCEMENTS = group();
  const ours = { ABDM_ANNOUNCEMENTS, ABDM_KEY: clusterKey() };
  const theirs = { ABDM_ANNOUNCEMENTS, ABDM_KEY: clusterKey() };
  const [{ list }, foreign] = await Promise.all([intermediates(1, '256M', ours), intermediates(1, '256M', theirs)]);
  const known = await new Abdm(['nodes'], ours).done;
  expect(known.events.filter(({ type }) => type === 'node').map(({ address }) => address)).toEqual([list]);
  expect(known.events.at(-1).counts.forged).toBeGreaterThan(0);
  const how = ['--park', '--vm-key', join(scene.dir, 'key')];
  expect((await new Abdm(['eject', `a=file:${scene.image}`, ...how], ours).done).code).toBe(0);
  const refused = await new Abdm(['renew', 'a', '--lease', '1h', '--intermediates', list], theirs).done;
  expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/key/) });
  await expect(keptBytes(foreign.list, 256 * 2 ** 20)).rejects.toThrow();
});
