// A destination that is killed at some moment and started again with the same command: what it had begun is completed, from the nodes and from what it
// left, or it says which pages nobody has.
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { Abdm, cleanUp } from '../cli/processes.js';
import { type Keeper, Place, TestSource, trueNodes, until } from './world.js';

afterEach(cleanUp);

function merge(place: Place, ...args: string[]): Abdm {
  return new Abdm(['merge', `a=file:${place.path()}`, '--listen', '127.0.0.1:0', ...args]);
}

/** A merge of a source that is told of everything, killed when it has merged about a third. */
async function killedMerge(place: Place, source: TestSource, nodes: Keeper[], divided: boolean): Promise<void> {
  const first = merge(place, '--rate', '2MB');
  await source.announce({ address: await first.address() }, nodes);
  await source.register(nodes, false);
  await source.scatter((i) => [nodes[i % nodes.length]!]);
  await source.index(nodes);
  source.records(nodes);
  if (divided) {
    await source.register(nodes, true);
    source.divided();
  }
  await first.event(({ type, mergedBytes }) => type === 'progress' && mergedBytes > source.image.byteLength / 3);
  await first.stop('SIGKILL');
  expect(readdirSync(place.dir).sort()).toEqual(['a.abdm', 'a.partial']);
}

test('killed after the source has left: completed from the nodes, bit-exact', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1500, { sealed: true });
  await killedMerge(place, source, nodes, true);
  source.die();
  if (process.platform !== 'win32') expect(statSync(`${place.path()}.abdm`).mode & 0o777).toBe(0o600);
  const { code, summary } = await merge(place).done;
  expect([code, summary.reason]).toEqual([0, null]);
  place.expectWhole(source);
  expect(readdirSync(place.dir)).toEqual(['a']);
  for (const { node } of nodes) expect(node.status().frames).toBe(0);
});

test('killed again and again: likewise', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1500);
  await killedMerge(place, source, nodes, true);
  source.die();
  for (const part of [0, 0.2, 0.5]) {
    const again = merge(place, '--rate', '4MB');
    await again.event(({ type, mergedBytes }) => type === 'progress' && mergedBytes >= part * source.image.byteLength);
    await again.stop('SIGKILL');
  }
  expect((await merge(place).done).code).toBe(0);
  place.expectWhole(source);
});

test('killed while the source is at it: it comes back to the one that is started again', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1500);
  await killedMerge(place, source, nodes, false);
  const again = merge(place);
  await source.announce({ address: await again.address() }, nodes);
  source.records(nodes);
  source.divided();
  expect((await again.done).code).toBe(0);
  place.expectWhole(source);
});

test('killed, and the source died too, before it was done: aborted, nothing stays, and the next one begins anew', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1500);
  await killedMerge(place, source, nodes, false);
  source.die();
  const { code, summary } = await merge(place).done;
  expect([code, summary.outcome]).toEqual([2, 'aborted']);
  expect(readdirSync(place.dir)).toEqual([]);
  for (const { node } of nodes) expect(node.status().frames).toBe(0);
});

test('killed, and a node with it: the lost pages are named', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1500, { kinds: ['random'] });
  await killedMerge(place, source, nodes, true);
  source.die();
  await nodes[1]!.kill();
  const { code, summary } = await merge(place).done;
  expect(code).toBe(4);
  expect(summary).toMatchObject({ outcome: 'aborted', reason: { code: 'FRAME_LOST' } });
  const odd = source.frames.filter((_, i) => i % 2 === 1);
  expect(summary.lost).toEqual([{ vm: 'a', ranges: odd.map(({ pfns }) => [pfns[0], pfns.at(-1)]) }]);
});

test('ended at any moment by a signal when it was started again: nothing is lost, and the next one completes it', async () => {
  const place = new Place();
  const nodes = await trueNodes(2);
  const source = await TestSource.of(1500);
  await killedMerge(place, source, nodes, true);
  source.die();
  for (const delayMs of [0, 20, 60, 150]) {
    const again = merge(place, '--rate', '2MB');
    await again.address();
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    const { code, summary } = await again.stop('SIGTERM');
    expect([code, summary.outcome]).toEqual([3, 'paused-recoverable']);
  }
  expect((await merge(place).done).code).toBe(0);
  place.expectWhole(source);
});

/** Frames that the source has sent itself are nowhere else than in what the killed one left. */
async function killedWithDirectFrames(place: Place, source: TestSource, nodes: Keeper[]): Promise<void> {
  const first = merge(place, '--rate', '20MB');
  const to = { address: await first.address() };
  await source.announce(to, nodes);
  await source.register(nodes, false);
  const half = source.frames.length >> 1;
  await source.sendFrames(to, 0, half);
  await source.scatter((i) => [nodes[i % nodes.length]!], half);
  await source.index(nodes);
  await source.register(nodes, true);
  source.divided();
  await until(() => JSON.parse(readFileSync(`${place.path()}.abdm`, 'utf8')).frames !== null, 'handed over');
  await first.stop('SIGKILL');
  source.die();
}

test.each([false, true])(
  'killed when the source had sent a part of it itself: that is found in what was left, sealed: %s',
  async (sealed) => {
    const place = new Place();
    const nodes = await trueNodes(2);
    const source = await TestSource.of(1500, { sealed });
    await killedWithDirectFrames(place, source, nodes);
    expect(existsSync(`${place.path()}.partial`)).toBe(true);
    const { code, summary } = await merge(place).done;
    expect([code, summary.reason]).toEqual([0, null]);
    place.expectWhole(source);
    expect(readdirSync(place.dir)).toEqual(['a']);
  },
);

test('and what was left is not what was sent any more: those frames are lost, and never a wrong page merged', async () => {
  const place = new Place();
  const nodes = await trueNodes(1);
  const source = await TestSource.of(1500, { kinds: ['random'] });
  await killedWithDirectFrames(place, source, nodes);
  const fd = openSync(`${place.path()}.partial`, 'r+');
  writeSync(fd, Buffer.from('changed'), 0, 7, 70 * 4096 + 100);
  closeSync(fd);
  const { code, summary } = await merge(place).done;
  expect(code).toBe(4);
  expect(summary.lost).toEqual([{ vm: 'a', ranges: [[64, 127]] }]);
});

test('a direct migration that was killed after the source has left says that nobody can tell whether all is there', async () => {
  const place = new Place();
  const source = await TestSource.of(300);
  // As it is between the last word of the source and the image's name.
  const first = merge(place, '--rate', '1MB');
  const to = { address: await first.address() };
  await source.announce(to, [], true);
  source.divided();
  await until(() => JSON.parse(readFileSync(`${place.path()}.abdm`, 'utf8')).frames !== null, 'handed over');
  await first.stop('SIGKILL');
  for (let times = 0; times < 2; times++) {
    const { code, summary } = await merge(place).done;
    expect([code, summary.reason.code]).toEqual([4, 'FRAME_LOST']);
    expect(existsSync(`${place.path()}.partial`)).toBe(true);
  }
});

test('a direct migration that was killed before is begun anew', async () => {
  const place = new Place();
  const source = await TestSource.of(300);
  const first = merge(place);
  await source.announce({ address: await first.address() }, [], true);
  await first.stop('SIGKILL');
  source.cut();
  const again = merge(place);
  const to = { address: await again.address() };
  await source.announce(to, [], true);
  await source.sendFrames(to, 0, source.frames.length);
  source.divided();
  expect((await again.done).code).toBe(0);
  place.expectWhole(source);
});

test('one that lives is not taken over; and what is no such file is named', async () => {
  const place = new Place();
  const source = await TestSource.of(300);
  const first = merge(place);
  await source.announce({ address: await first.address() }, [], true);
  const second = await merge(place).done;
  expect(second.code).not.toBe(0);
  expect(second.stderr).toMatch(new RegExp(`process ${first.child.pid} is at work`));
  await first.stop('SIGKILL');
  writeFileSync(`${place.path()}.abdm`, '{"pid":1}');
  const third = await merge(place).done;
  expect(third.code).not.toBe(0);
  expect(third.stderr).toMatch(/a\.abdm.*remove it/);
});
