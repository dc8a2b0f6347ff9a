// A source that is not there any more: it comes back, or it has left everything with the nodes, or it is gone and has the VM still.
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { OddNode, Place, TestSource, trueNode, trueNodes, until } from './world.js';

test('a source that comes back says everything again, and nothing is merged twice', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1000);
  const destination = await place.start();
  await source.announce(destination, nodes);
  await source.scatter((i) => [nodes[i % 2]!]);
  const half = source.frames.slice(0, 8);
  source.records(nodes, half);
  await until(() => destination.status().mergedBytes! >= 8 * 64 * 4096, 'half of it is merged');
  for (let times = 0; times < 3; times++) {
    source.cut();
    await source.announce(destination, [...nodes].reverse());
    source.records([...nodes].reverse(), half);
  }
  source.send(MessageType.NODES, encodeJson({ nodes: [] }));
  source.records([...nodes].reverse());
  source.divided();
  const summary = await destination.done;
  expect(summary).toMatchObject({ outcome: 'completed', reason: null });
  expect(summary.nodes.reduce((sum, { frames }) => sum + frames, 0)).toBe(source.frames.length);
  place.expectWhole(source);
});

test('another source is not let in for one that is away; and one that comes back must be the same', async () => {
  const place = new Place();
  const nodes = await trueNodes(1);
  const source = await TestSource.of(10);
  const other = await TestSource.of(10);
  const destination = await place.start();
  await source.register(nodes, false);
  await source.announce(destination, nodes);
  source.cut();
  await other.announce(destination, nodes);
  expect(destination.status().phase).toBe('gathering');
  source.key.fill(9);
  await source.announce(destination, nodes);
  expect(await destination.done).toMatchObject({ outcome: 'aborted', reason: { code: 'PROTOCOL' } });
});

test('nodes that join later are named before records refer to them', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(300);
  const destination = await place.start();
  await source.announce(destination, [nodes[0]!]);
  const [, late] = nodes;
  source.send(MessageType.NODES, encodeJson({ nodes: [{ address: late!.address, id: late!.id }] }));
  await source.scatter((i) => [nodes[i % 2]!]);
  source.records(nodes);
  source.divided();
  expect(await destination.done).toMatchObject({ outcome: 'completed' });
  place.expectWhole(source);
});

test('a source that left all with the nodes, and could not say so, is not missed', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1000, { sealed: true });
  const destination = await place.start();
  await source.register(nodes, false);
  await source.announce(destination, nodes);
  await source.scatter((i) => [nodes[i % 2]!], 0, 8);
  source.records(nodes, source.frames.slice(0, 8));
  source.cut();
  // Longer than a source may be away that nobody has seen.
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  await source.scatter((i) => [nodes[i % 2]!], 8);
  await source.index(nodes, source.frames.slice(0, 5));
  await source.index(nodes, source.frames.slice(5));
  expect(destination.handedOver).toBe(false);
  await source.register(nodes, true);
  source.die();
  expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
  expect(destination.handedOver).toBe(true);
  place.expectWhole(source);
});

test('a source that is gone, and was not done, has the VM: aborted, and nothing stays', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1000);
  const destination = await place.start();
  await source.register(nodes, false);
  await source.announce(destination, nodes);
  await source.scatter((i) => [nodes[i % 2]!], 0, 8);
  source.records(nodes, source.frames.slice(0, 8));
  await until(() => destination.status().mergedBytes! > 0, 'merging');
  source.die();
  expect(await destination.done).toMatchObject({ outcome: 'aborted', reason: { code: 'PEER_GONE' } });
  expect(destination.handedOver).toBe(false);
  expect(readdirSync(place.dir)).toEqual([]);
  for (const { node } of nodes) expect(node.status().frames).toBe(0);
});

test('a destination that is ended while nobody can say who has the VM leaves everything as it is', async () => {
  const place = new Place();
  const nodes = await trueNodes(1);
  const source = await TestSource.of(300);
  const destination = await place.start();
  await source.register(nodes, false);
  await source.announce(destination, nodes);
  await source.scatter(() => nodes);
  source.cut();
  await until(() => destination.status().phase === 'gathering', 'gathering');
  await new Promise((resolve) => setTimeout(resolve, 200));
  destination.cancel();
  expect(await destination.done).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'CANCELLED' } });
  expect(readdirSync(place.dir).sort()).toEqual(['a.abdm', 'a.partial']);
  expect(nodes[0]!.node.status().frames).toBe(source.frames.length);
  // It is started again, and the source, which was only away, comes back to it.
  const again = await place.start();
  await source.announce(again, nodes);
  source.records(nodes);
  source.divided();
  expect(await again.done).toMatchObject({ outcome: 'completed', reason: null });
  place.expectWhole(source);
  expect(readdirSync(place.dir)).toEqual(['a']);
});

test('what only nodes have that do not answer: paused, and completed when they do', async () => {
  const place = new Place();
  const odd = await OddNode.start();
  const node = await trueNode();
  const source = await TestSource.of(600, { sealed: true });
  const destination = await place.start();
  const nodes = [odd, node];
  await source.announce(destination, nodes);
  await source.scatter((i) => [nodes[i % 2]!]);
  await source.index(nodes);
  odd.mute = true;
  source.records(nodes);
  source.divided();
  const summary = await destination.done;
  expect(summary).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'PEER_UNREACHABLE' } });
  expect(summary.reason!.message).toContain(odd.address);
  expect(readdirSync(place.dir).sort()).toEqual(['a.abdm', 'a.partial']);
  expect(node.node.status().frames).toBeGreaterThan(0);
  odd.speak();
  expect(await (await place.start()).done).toMatchObject({ outcome: 'completed', reason: null });
  place.expectWhole(source);
  expect(readdirSync(place.dir)).toEqual(['a']);
});
