// VMs that were left with the nodes: found by name and key alone, given to one who asks, whole.
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { DestinationOptions } from '#abdm/host/destination/destination.js';
import { type Keeper, Place, TestSource, trueNodes, until } from './world.js';

function parked(source: TestSource, nodes: readonly Keeper[]): Partial<DestinationOptions> {
  return { parked: { vmKey: source.key, intermediates: nodes.map(({ address }) => address) } };
}

describe('a parked VM', () => {
  test('is found, claimed and merged, and the nodes forget it', async () => {
    const place = new Place();
    const nodes = await trueNodes(3);
    const source = await TestSource.of(1000, { sealed: true });
    await source.park(nodes, (i) => [nodes[i % 3]!, nodes[(i + 1) % 3]!]);
    const destination = await place.start(parked(source, [nodes[0]!, nodes[2]!]));
    expect(destination.address).toBeNull();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null, parked: true, replicas: 1 });
    place.expectWhole(source);
    expect(readdirSync(place.dir)).toEqual(['a']);
    for (const { node } of nodes) expect(node.status().frames).toBe(0);
  });

  test('is merged though a node is gone', async () => {
    const place = new Place();
    const nodes = await trueNodes(3);
    const source = await TestSource.of(1000);
    await source.park(nodes, (i) => [nodes[i % 3]!, nodes[(i + 1) % 3]!]);
    await nodes[2]!.kill();
    const destination = await place.start(parked(source, nodes));
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    place.expectWhole(source);
  });

  test('that is still leaving is waited for', async () => {
    const place = new Place();
    const nodes = await trueNodes(2);
    const source = await TestSource.of(300);
    await source.register(nodes, false, true);
    const destination = await place.start(parked(source, nodes));
    await source.scatter(() => nodes);
    await source.index(nodes);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(destination.status().phase).toBe('waiting');
    await source.register(nodes, true, true);
    expect(await destination.done).toMatchObject({ outcome: 'completed' });
    place.expectWhole(source);
  });

  test('is given to the first who asks; the second is told who has it, and since when', async () => {
    const places = [new Place(), new Place()];
    const nodes = await trueNodes(3);
    const source = await TestSource.of(1000);
    await source.park(nodes, (i) => [nodes[i % 3]!]);
    const first = await places[0]!.start({ ...parked(source, nodes), rateBytesPerS: 1e6 });
    await until(() => first.status().mergedBytes! > 0, 'the first merges');
    const second = await (await places[1]!.start(parked(source, nodes))).done;
    expect(second).toMatchObject({ outcome: 'aborted', reason: { code: 'CLAIMED' } });
    expect(second.reason!.message).toMatch(new RegExp(`pid ${process.pid} on .* for \\d+ s`));
    expect(readdirSync(places[1]!.dir)).toEqual([]);
    first.setRate(null);
    expect(await first.done).toMatchObject({ outcome: 'completed' });
    places[0]!.expectWhole(source);
  });

  test('is given to exactly one of several who ask at once', async () => {
    const places = [new Place(), new Place(), new Place(), new Place()];
    const nodes = await trueNodes(5);
    const source = await TestSource.of(300);
    await source.park(nodes);
    const all = await Promise.all(places.map((place) => place.start({ ...parked(source, nodes), rateBytesPerS: 5e5 })));
    await until(() => all.filter(({ handedOver }) => handedOver).length > 0, 'one of them has it');
    for (const destination of all) destination.setRate(2e6);
    const summaries = await Promise.all(all.map(({ done }) => done));
    expect(summaries.map(({ outcome }) => outcome).sort()).toEqual(['aborted', 'aborted', 'aborted', 'completed']);
    for (const { reason } of summaries) if (reason) expect(reason.code).toMatch(/CLAIMED|PEER_UNREACHABLE|USAGE/);
  });

  test('whose merge was ended is merged by the next one, who goes on where it was', async () => {
    const places = [new Place(), new Place()];
    const nodes = await trueNodes(2);
    const source = await TestSource.of(1000);
    await source.park(nodes);
    const first = await places[0]!.start({ ...parked(source, nodes), rateBytesPerS: 1e6 });
    await until(() => first.status().mergedBytes! > 0, 'the first merges');
    first.cancel();
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'CANCELLED' } });
    expect(readdirSync(places[0]!.dir).sort()).toEqual(['a.abdm', 'a.partial']);
    const again = await places[0]!.start(parked(source, nodes));
    expect(await again.done).toMatchObject({ outcome: 'completed', parked: true });
    places[0]!.expectWhole(source);
  });

  test('is given up by the first when somebody else has got it meanwhile', async () => {
    const places = [new Place(), new Place()];
    const nodes = await trueNodes(2);
    const source = await TestSource.of(1000);
    await source.park(nodes);
    const first = await places[0]!.start({ ...parked(source, nodes), rateBytesPerS: 1e6 });
    await until(() => first.status().mergedBytes! > 0, 'the first merges');
    first.cancel();
    await first.done;
    const second = await places[1]!.start({ ...parked(source, nodes), rateBytesPerS: 1e6 });
    await until(() => second.status().mergedBytes! > 0, 'the second merges');
    const late = await (await places[0]!.start(parked(source, nodes))).done;
    expect(late).toMatchObject({ outcome: 'aborted', reason: { code: 'CLAIMED' } });
    expect(readdirSync(places[0]!.dir)).toEqual([]);
    second.setRate(null);
    expect(await second.done).toMatchObject({ outcome: 'completed' });
    places[1]!.expectWhole(source);
  });
});

describe('what cannot be taken', () => {
  async function refusal(options: Partial<DestinationOptions>, names?: string[]) {
    const place = new Place();
    const summary = await (await place.start(options, names)).done;
    expect(readdirSync(place.dir)).toEqual([]);
    expect(summary.outcome).toBe('aborted');
    return summary.reason!;
  }

  test('with another key, by another name, without the rest of its gang: says so', async () => {
    const nodes = await trueNodes(2);
    const source = await TestSource.of(100);
    await source.park(nodes);
    const wrongKey = { parked: { vmKey: new Uint8Array(32), intermediates: nodes.map(({ address }) => address) } };
    expect(await refusal(wrongKey)).toMatchObject({ code: 'USAGE', message: expect.stringMatching(/does not open a/) });
    const how = parked(source, nodes);
    expect(await refusal(how, ['b'])).toMatchObject({ code: 'USAGE', message: expect.stringMatching(/named b/) });
    expect((await refusal(how, ['a', 'b'])).message).toMatch(/parked together are a, and this expects a, b/);
    // Nobody has claimed it by that.
    const place = new Place();
    expect(await (await place.start(how)).done).toMatchObject({ outcome: 'completed' });
  });

  test('because several have the name: lists them', async () => {
    const nodes = await trueNodes(2);
    const sources = [await TestSource.of(100), await TestSource.of(100)];
    for (const [i, source] of sources.entries()) await source.park([nodes[i]!]);
    const { code, message } = await refusal(parked(sources[0]!, nodes));
    expect(code).toBe('USAGE');
    for (const { migration } of sources) expect(message).toContain(migration);
  });

  test('because it is not parked, or its source died, or nobody answers: says so', async () => {
    const nodes = await trueNodes(1);
    const source = await TestSource.of(100);
    await source.register(nodes, false);
    expect((await refusal(parked(source, nodes))).message).toMatch(/is not parked/);
    const dead = await TestSource.of(100, { name: 'b' });
    await dead.register(nodes, false, true);
    dead.die();
    await until(() => nodes[0]!.node.status().connections === 1, 'the node has seen it die');
    expect((await refusal(parked(dead, nodes), ['b'])).message).toMatch(/did not leave its source whole/);
    await nodes[0]!.kill();
    expect((await refusal(parked(source, nodes))).message).toMatch(/is gone/);
  });
});
