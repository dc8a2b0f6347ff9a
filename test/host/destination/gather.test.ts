// Frames that lie at several nodes, of which some are gone, silent or lie: what can be had is merged, and what cannot is named.
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { OddNode, Place, TestSource, trueNode, trueNodes, until } from './world.js';

describe.each([false, true])('frames at two nodes each, sealed: %s', (sealed) => {
  test('are merged while the source is at it, and the nodes forget them', async () => {
    const place = new Place();
    const nodes = await trueNodes(3);
    const source = await TestSource.of(1000, { sealed });
    const destination = await place.start();
    await source.announce(destination, nodes);
    await source.scatter((i) => [nodes[i % 3]!, nodes[(i + 1) % 3]!]);
    source.records(nodes);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null, vms: [{ verified: true }] });
    place.expectWhole(source);
    expect(readdirSync(place.dir)).toEqual(['a']);
    for (const { node } of nodes) expect(node.status().frames).toBe(0);
  });

  test('one of which is gone: the other is asked', async () => {
    const place = new Place();
    const nodes = await trueNodes(3);
    const source = await TestSource.of(1000, { sealed });
    const destination = await place.start({ rateBytesPerS: 4e6 });
    await source.announce(destination, nodes);
    await source.scatter((i) => [nodes[i % 3]!, nodes[(i + 1) % 3]!]);
    source.records(nodes);
    source.divided();
    await until(() => destination.status().mergedBytes! > 0, 'merging');
    await nodes[1]!.kill();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    place.expectWhole(source);
  });

  test('one of which changes what it was given: the other is asked', async () => {
    const place = new Place();
    const odd = await OddNode.start();
    odd.change = (id, block) => {
      block[(id * 997) % block.length]! ^= 16;
    };
    const node = await trueNode();
    const source = await TestSource.of(600, { sealed });
    const destination = await place.start();
    await source.announce(destination, [odd, node]);
    await source.scatter(() => [odd, node]);
    source.records([odd, node]);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    place.expectWhole(source);
    expect(odd.asked.length).toBeGreaterThan(0);
  });

  test('one of which gives another frame for each: the other is asked', async () => {
    const place = new Place();
    const odd = await OddNode.start();
    const node = await trueNode();
    const source = await TestSource.of(600, { sealed });
    const destination = await place.start();
    await source.announce(destination, [odd, node]);
    await source.scatter(() => [node]);
    const blocks = source.frames.map(({ block }) => block);
    for (const [i, frame] of source.frames.entries()) {
      await source.put(odd, frame.id, blocks[(i + 1) % blocks.length]!);
      frame.holders = [odd, node];
    }
    source.records([odd, node]);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    place.expectWhole(source);
    expect(odd.asked.length).toBeGreaterThan(0);
  });
});

test('a node that falls silent is passed over within seconds, and asked again when it speaks', async () => {
  const place = new Place();
  const odd = await OddNode.start();
  const node = await trueNode();
  const source = await TestSource.of(2000);
  const destination = await place.start({ answerMs: 60_000, rateBytesPerS: 20e6 });
  await source.announce(destination, [odd, node]);
  // Only the silent one has the last frame.
  await source.scatter((i) => (i === source.frames.length - 1 ? [odd] : [odd, node]));
  odd.mute = true;
  source.records([odd, node]);
  source.divided();
  const rest = (source.frames.length - 1) * 64 * 4096;
  await until(() => destination.status().mergedBytes! >= rest * 0.9, 'the other node has given all that it has');
  expect(destination.status().warnings).toEqual([expect.stringMatching(/silent/)]);
  odd.speak();
  expect(await destination.done).toMatchObject({ outcome: 'completed' });
  place.expectWhole(source);
});

describe('a frame that its only node has no more', () => {
  test('before the source has left is waited for, until the source has put it elsewhere', async () => {
    const place = new Place();
    const nodes = await trueNodes(2);
    const source = await TestSource.of(1000);
    const destination = await place.start();
    await source.announce(destination, nodes);
    await source.scatter(() => [nodes[0]!]);
    await nodes[0]!.kill();
    source.records(nodes);
    await source.scatter(() => [nodes[1]!]);
    await until(() => destination.status().warnings!.length > 0, 'the node is found to be gone');
    source.records(nodes);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed' });
    place.expectWhole(source);
  });

  test('is asked of every other node: somebody may have restored it', async () => {
    const place = new Place();
    const nodes = await trueNodes(2);
    const source = await TestSource.of(1000);
    const destination = await place.start();
    await source.announce(destination, nodes);
    await source.scatter(() => [nodes[1]!]);
    for (const frame of source.frames) frame.holders = [nodes[0]!];
    await nodes[0]!.kill();
    source.records(nodes);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed' });
    place.expectWhole(source);
  });

  test('is lost: all else is merged, and its pages are named', async () => {
    const place = new Place();
    const nodes = await trueNodes(2);
    const source = await TestSource.of(1000, { kinds: ['random', 'text', 'zero'] });
    const destination = await place.start();
    await source.announce(destination, nodes);
    const lost = new Set([3, 4, 9]);
    await source.scatter((i) => [nodes[lost.has(i) ? 1 : 0]!]);
    await nodes[1]!.kill();
    source.records(nodes);
    source.divided();
    const summary = await destination.done;
    expect(summary).toMatchObject({
      outcome: 'aborted',
      reason: { code: 'FRAME_LOST', message: expect.stringMatching(/^192 pages are lost .*: a 192-319, a 576-639$/) },
      lost: [
        {
          vm: 'a',
          ranges: [
            [192, 319],
            [576, 639],
          ],
        },
      ],
    });
    expect(destination.handedOver).toBe(true);
    // What was merged is the operator's; the rest was given back.
    expect(readdirSync(place.dir)).toEqual(['a.partial']);
    expect(nodes[0]!.node.status().frames).toBe(0);
  });

  test('because it gives something else, always: likewise; but the source keeps the VM while it is there', async () => {
    for (const early of [false, true]) {
      const place = new Place();
      const odd = await OddNode.start();
      odd.change = (id, block) => {
        if (id === 5) block[100]! ^= 1;
      };
      const source = await TestSource.of(600, { kinds: ['random'] });
      const destination = await place.start();
      await source.announce(destination, [odd]);
      await source.scatter(() => [odd]);
      source.records([odd]);
      if (!early) source.divided();
      const summary = await destination.done;
      expect(summary.outcome).toBe('aborted');
      expect(summary.reason).toMatchObject(early ? { code: 'FRAME_CHECKSUM' } : { code: 'FRAME_LOST' });
      expect(summary.reason!.message).toMatch(/checksum/);
      if (!early) expect(summary.lost).toEqual([{ vm: 'a', ranges: [[256, 319]] }]);
      expect(odd.asked.filter((id) => id === 5).length).toBe(3);
      expect(destination.handedOver).toBe(!early);
      expect(readdirSync(place.dir)).toEqual(early ? [] : ['a.partial']);
    }
  });
});
