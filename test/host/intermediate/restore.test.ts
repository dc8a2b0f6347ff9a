// What the other holders do when one of them is gone: restore the number of copies among themselves.
import { afterEach, describe, expect, test } from 'vitest';
import type { Candidate } from '#abdm/host/intermediate/restore.js';
import { until } from '../wire/pair.js';
import { Cluster, has, putAll, REGISTRATION, range } from './cluster.js';

const MiB = 2 ** 20;
const cluster = new Cluster();

afterEach(async () => {
  await cluster.end();
  cluster.events.length = 0;
});

/** How many of these nodes keep each of the blocks 1 to `count`. */
async function copies(nodes: readonly { address: string }[], count: number): Promise<number[]> {
  const lists = await Promise.all(nodes.map((node) => cluster.listed(node)));
  const sets = lists.map((list) => new Set(list));
  return range(count).map((id) => sets.filter((set) => set.has(id)).length);
}

const restored = (left = 0) => cluster.events.filter((event) => event.type === 'restored' && event.left === left);

describe('when a holder is killed', () => {
  test.each([
    ['first of two', 2, 0],
    ['last of two', 2, 1],
    ['first of three', 3, 0],
    ['second of three', 3, 1],
    ['last of three', 3, 2],
  ])('the %s, the others restore exactly as many copies', async (_, length, place) => {
    const doomed = await cluster.process();
    const others = await cluster.nodes(length);
    const chain: { address: string; id: string }[] = others.slice(0, length - 1);
    chain.splice(place, 0, doomed);
    const spare = others.at(-1)!;
    // The spare is known from another chain.
    const client = await cluster.connect(chain[0]!);
    expect((await putAll(client, range(60), chain)).every(({ stored }) => stored)).toBe(true);
    const second = await cluster.connect(others[0]!);
    await second.put(1000, new Uint8Array(100), [others[0]!, spare]);
    const third = await cluster.connect(others.at(-2)!);
    await third.put(1001, new Uint8Array(100), [others.at(-2)!, spare]);
    await doomed.kill();
    await until(() => spare.status().frames >= 60, 20_000);
    await until(() => restored().length > 0);
    expect(await copies(others, 60)).toEqual(range(60).map(() => length));
    const reader = await cluster.connect(spare, { role: 'destination' });
    for (const id of range(60)) expect(await has(reader, id)).toBe(true);
    const blocks = restored().reduce((sum, event) => sum + (event.type === 'restored' ? event.blocks : 0), 0);
    expect(blocks).toBeGreaterThanOrEqual(60);
    // The first that is left does it, and nobody else.
    expect(new Set(restored().map(({ node }) => node)).size).toBe(1);
  });

  test('the work is spread over the nodes that are there, which are known from the live index', async () => {
    const doomed = await cluster.process();
    const spares = await cluster.nodes(3);
    const nodes = (): Candidate[] =>
      spares.map(({ address, id, status }) => ({ address, id, freeBytes: status().freeBytes }));
    const keeper = await cluster.node({ nodes });
    const client = await cluster.connect(keeper);
    await putAll(client, range(120), [keeper, doomed]);
    await doomed.kill();
    await until(() => spares.reduce((sum, node) => sum + node.status().frames, 0) === 120, 20_000);
    expect(await copies([keeper, ...spares], 120)).toEqual(range(120).map(() => 2));
    for (const spare of spares) expect(spare.status().frames).toBeGreaterThan(10);
  });

  test('and then the one that took its place, copies are restored again', async () => {
    const [first, second] = [await cluster.process(), await cluster.process()];
    const [keeper, third] = await cluster.nodes(2);
    const client = await cluster.connect(keeper!);
    await client.put(500, new Uint8Array(10), [keeper!, second]);
    await putAll(client, range(40), [keeper!, first]);
    await first.kill();
    const watcher = await cluster.connect(second, { role: 'destination' });
    for (let listed: number[] = []; listed.length < 41; listed = await watcher.list(0))
      await new Promise((r) => setTimeout(r, 50));
    await client.put(501, new Uint8Array(10), [keeper!, third!]);
    await second.kill();
    await until(() => third!.status().frames === 42, 20_000);
    expect(await copies([keeper!, third!], 40)).toEqual(range(40).map(() => 2));
  });

  test('two of three at once, one node restores both copies', async () => {
    const doomed = [await cluster.process(), await cluster.process()];
    const spares = await cluster.nodes(2);
    const keeper = await cluster.node({
      nodes: () => spares.map(({ address, id }) => ({ address, id, freeBytes: 1e6 })),
    });
    const client = await cluster.connect(doomed[0]!);
    await putAll(client, range(30), [doomed[0]!, keeper, doomed[1]!]);
    await Promise.all(doomed.map((node) => node.kill()));
    await until(() => spares.every((node) => node.status().frames === 30), 20_000);
    expect(await copies([keeper, ...spares], 30)).toEqual(range(30).map(() => 3));
  });

  test('and nobody has room, it is tried again when somebody has', async () => {
    const doomed = await cluster.process();
    const full = await cluster.node({ memoryBytes: MiB });
    const spares: Candidate[] = [{ address: full.address, id: full.id, freeBytes: MiB }];
    const keeper = await cluster.node({ nodes: () => spares });
    const client = await cluster.connect(keeper);
    await putAll(client, range(10), [keeper, doomed], 250_000);
    await doomed.kill();
    await until(
      () => cluster.events.some((event) => event.type === 'restored' && event.blocks === 4 && event.left === 6),
      20_000,
    );
    const roomy = await cluster.node();
    spares.push({ address: roomy.address, id: roomy.id, freeBytes: 64 * MiB });
    await until(() => restored().length > 0, 20_000);
    expect(await copies([keeper, full, roomy], 10)).toEqual(range(10).map(() => 2));
  });

  test('a migration that is complete is restored with all that is known of it, and stays', async () => {
    const doomed = await cluster.process();
    const spare = await cluster.node({ orphanMs: 300 });
    const voters = [{ address: spare.address, id: spare.id }];
    const keeper = await cluster.node({ orphanMs: 300 });
    const client = await cluster.connect(keeper);
    await putAll(client, range(20), [keeper, doomed]);
    await client.register({ ...REGISTRATION, voters, complete: true, frames: 20 });
    client.end();
    await doomed.kill();
    await until(() => spare.status().frames === 20, 20_000);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(await copies([keeper, spare], 20)).toEqual(range(20).map(() => 2));
    const destination = await cluster.connect(spare, { role: 'destination' });
    // Whoever is told that it is over tells those that nobody else knows of.
    const told = await cluster.connect(keeper, { role: 'destination' });
    await told.drop();
    await until(() => spare.status().migrations.length === 0);
    destination.end();
  });
});

test('a holder that is stopped is replaced after 3 s, and harms nothing when it goes on', async () => {
  const stopped = await cluster.process();
  const spare = await cluster.node();
  const keeper = await cluster.node({ nodes: () => [{ address: spare.address, id: spare.id, freeBytes: 1e6 }] });
  const client = await cluster.connect(stopped);
  await putAll(client, range(20), [stopped, keeper]);
  stopped.stop();
  await until(() => spare.status().frames === 20, 20_000);
  stopped.go();
  expect(await has(client, 20)).toBe(true);
  await until(() => restored().length > 0);
  expect(keeper.status().frames).toBe(20);
});

test('restoring ends with the migration', async () => {
  const doomed = await cluster.process();
  const spare = await cluster.node();
  const keeper = await cluster.node({ nodes: () => [{ address: spare.address, id: spare.id, freeBytes: 1e6 }] });
  const client = await cluster.connect(keeper);
  await putAll(client, range(150), [keeper, doomed], 250_000);
  await doomed.kill();
  await until(() => spare.status().frames > 10, 20_000);
  await client.drop();
  await until(() => spare.status().migrations.length === 0 && keeper.status().migrations.length === 0);
  await until(() => spare.status().connections === 0);
  expect([spare.status().freeBytes, keeper.status().freeBytes]).toEqual([64 * MiB, 64 * MiB]);
  expect(restored().length).toBe(0);
});
