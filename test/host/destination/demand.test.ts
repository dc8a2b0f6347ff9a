// What a guest waits for: it comes before all else, from whoever has it, or from the source; and if nobody ever will have it that is said.
import { describe, expect, test } from 'vitest';
import { Latencies } from '#abdm/host/destination/latency.js';
import { RateLimit } from '#abdm/host/wire/rate.js';
import { LiveNode, type Made, Maker, Scene, sleep } from './live.js';
import { until } from './world.js';

const range = (from: number, end: number) => Array.from({ length: end - from }, (_, i) => from + i);

/** A guest that runs, whose memory is in frames of 16 pages at `nodes` nodes which hold back whatever comes over the first connection that is asked. */
async function running(pages: number, nodes = 1) {
  const maker = await Maker.create();
  const frames = maker.frames(0, pages);
  const all = await Promise.all(range(0, nodes).map(() => LiveNode.start(...frames)));
  for (const node of all) {
    let bulk: number | undefined;
    node.holdsBack = (_, connection) => {
      bulk ??= connection;
      return connection === bulk;
    };
  }
  const scene = await Scene.open(maker, [pages], all);
  const guest = scene.run();
  const frameOf = (pfn: number) => frames[pfn >> 4]!;
  return { maker, frames, frameOf, nodes: all, node: all[0]!, scene, guest };
}

describe('a page that a guest waits for', () => {
  test('comes over a connection of its own, while all that was asked for before is still due', async () => {
    const { scene, frames, frameOf, node, guest } = await running(1600);
    scene.kept(...frames);
    await until(() => node.asked.length > 0, 'gathering');
    const bulk = node.asked[0]!.connection;
    guest.onFault(1000);
    await until(() => guest.has(1000), 'the page');
    expect(node.asked.filter(({ connection }) => connection !== bulk)).toEqual([
      { id: frameOf(1000).id, connection: 1 - bulk },
    ]);
    scene.expectPages(Object.fromEntries(range(992, 1008).map((pfn) => [pfn, pfn])));
    expect(scene.asked).toEqual([]);
    expect(scene.session.postcopyRequests(0)).toBe(1);
    expect(scene.session.faults(0)!.maxMs).toBeGreaterThan(0);
  });

  test('is not fetched twice if it is on its way', async () => {
    const { scene, frames, frameOf, node, guest } = await running(1600);
    scene.kept(...frames);
    const times = (pfn: number) => node.asked.filter(({ id }) => id === frameOf(pfn).id).length;
    // When this process is held up it may be asked for once more all the same: not always.
    const twice: boolean[] = [];
    for (let pfn = 0; pfn < 160; pfn += 16) {
      await until(() => times(pfn) > 0, 'it is asked for');
      guest.onFault(pfn);
      node.answer(frameOf(pfn).id);
      await until(() => guest.has(pfn), 'the page');
      twice.push(times(pfn) > 1);
    }
    expect(twice).toContain(false);
    expect(scene.session.postcopyRequests(0)).toBe(10);
  });

  test('is fetched again if what is on its way takes long', async () => {
    const { scene, frames, frameOf, node, guest } = await running(1600);
    scene.kept(...frames);
    await until(() => node.asked.length > 0, 'gathering');
    const began = performance.now();
    guest.onFault(0);
    await until(() => guest.has(0), 'the page');
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(node.asked.filter(({ id }) => id === frameOf(0).id).length).toBe(2);
    scene.expectPages({ 0: 0 });
  });

  test('brings those behind it to the front of the queue', async () => {
    const { scene, frames, frameOf, node, guest } = await running(1600);
    scene.kept(...frames);
    await until(() => node.asked.length > 0, 'gathering');
    guest.onFault(1000);
    await until(() => guest.has(1000), 'the page');
    const before = node.asked.length;
    node.answer();
    await until(() => node.asked.length >= before + 8, 'what comes next');
    const next = range(1, 9).map((i) => frameOf(1000 + 16 * i).id);
    expect(node.askedIds.slice(before, before + 8)).toEqual(next);
    await until(() => scene.whole.length > 0, 'it is whole');
    expect(guest.spoilt).toEqual([]);
  });

  test('is asked of another node if the first takes long, which is not asked first any more', async () => {
    const { scene, frames, frameOf, nodes, guest } = await running(1600, 2);
    scene.kept(...frames);
    await until(() => nodes.every(({ asked }) => asked.length > 0), 'gathering');
    const urgent = nodes.map(({ asked }) => 1 - asked[0]!.connection);
    const askedFor = (pfn: number) =>
      nodes.map(({ asked }, i) => asked.some((a) => a.id === frameOf(pfn).id && a.connection === urgent[i]));
    let slow = -1;
    for (const [i, node] of nodes.entries()) {
      node.holdsBack = (_, connection) => {
        if (connection === urgent[i] && slow < 0) slow = i;
        return connection !== urgent[i] || slow === i;
      };
    }
    const began = performance.now();
    guest.onFault(1000);
    await until(() => guest.has(1000), 'the page');
    expect(performance.now() - began).toBeGreaterThan(250);
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(askedFor(1000)).toEqual([true, true]);
    scene.expectPages({ 1000: 1000 });
    guest.onFault(1300);
    await until(() => guest.has(1300), 'the next page');
    expect(askedFor(1300)[slow]).toBe(false);
  });

  test('is asked of another node if the first does not have it, or something else', async () => {
    const { scene, frames, frameOf, nodes, guest } = await running(64, 3);
    for (const node of nodes) node.holdsBack = () => false;
    nodes[0]!.blocks.delete(frameOf(40).id);
    nodes[1]!.blocks.set(frameOf(40).id, frames[0]!.bytes);
    scene.kept(frameOf(40));
    guest.onFault(40);
    await until(() => guest.has(40), 'the page');
    scene.expectPages({ 40: 40 });
    expect(scene.ending).toBe(null);
  });

  test('is had from the frame that holds its content, if it is a duplicate', async () => {
    const { maker, scene, node, guest } = await running(64);
    const holder = maker.frame({ 50: 1050 });
    const duplicate = maker.frame({ 20: 1050 });
    node.blocks.set(holder.id, holder.bytes);
    node.blocks.set(duplicate.id, duplicate.bytes);
    node.holdsBack = (id) => id === holder.id;
    scene.lane().put(duplicate);
    guest.onFault(20);
    // It is not known yet where that is.
    expect(scene.asked).toEqual([{ vm: 0, pfns: [20] }]);
    scene.kept(holder);
    await until(() => node.askedIds.filter((id) => id === holder.id).length >= 2, 'it is asked for over both');
    node.answer();
    await until(() => guest.has(20), 'the page');
    scene.expectPages({ 20: 1050, 50: 1050 });
  });

  test('and from no other, though its frame has duplicates of others too: those are in no hurry', async () => {
    const { maker, scene, node, guest } = await running(64);
    const holders = range(0, 12).map((i) => maker.frame({ [40 + i]: 1040 + i }));
    const duplicates = maker.frame(Object.fromEntries(range(0, 12).map((i) => [10 + i, 1040 + i])));
    for (const { id, bytes } of [...holders, duplicates]) node.blocks.set(id, bytes);
    scene.lane().put(duplicates);
    scene.kept(...holders);
    await until(() => node.asked.length > 0, 'what is asked for in bulk');
    const bulk = node.asked[0]!.connection;
    guest.onFault(17);
    await until(() => guest.has(17), 'the page');
    scene.expectPages({ 17: 1047 });
    expect(node.asked.filter(({ connection }) => connection !== bulk).map(({ id }) => id)).toEqual([holders[7]!.id]);
  });

  test('that is in place already is not waited for', async () => {
    const { scene, frames, guest } = await running(16);
    scene.lane().put(frames[0]!);
    guest.onFault(3);
    expect(scene.session.faults(0)).toMatchObject({ maxMs: expect.any(Number) });
    await sleep(30);
    expect(scene.asked).toEqual([]);
  });
});

describe('a page that is at no node', () => {
  test.each(['coming', 'void', null] as const)('is asked of the source, again and again: %s', async (state) => {
    const { scene, frames, guest } = await running(32);
    if (state) scene.records([frames[1]!, state]);
    guest.onFault(20);
    guest.onFault(21);
    expect(scene.asked).toEqual([
      { vm: 0, pfns: [20] },
      { vm: 0, pfns: [21] },
    ]);
    const times = (pfn: number) => scene.asked.filter(({ pfns }) => pfns.includes(pfn)).length;
    await until(() => times(20) > 1 && times(21) > 1, 'both are asked for again');
    scene.lane(true).put(frames[1]!);
    expect(guest.has(20)).toBe(true);
    const asked = scene.asked.length;
    await sleep(700);
    expect(scene.asked.length).toBe(asked);
    expect(scene.session.faults(0)!.maxMs).toBeGreaterThan(300);
    scene.expectPages({ 20: 20, 21: 21 });
  });

  test('is fetched from the node that the source names', async () => {
    const { scene, frames, node, guest } = await running(32);
    scene.records([frames[1]!, 'coming']);
    guest.onFault(20);
    expect(scene.asked.length).toBe(1);
    node.holdsBack = () => false;
    scene.kept(frames[1]!);
    await until(() => guest.has(20), 'the page');
    scene.expectPages({ 20: 20 });
  });

  test('because its nodes are gone, or have spoilt it, likewise', async () => {
    const { scene, frames, nodes, guest } = await running(48, 2);
    nodes[1]!.blocks.set(frames[1]!.id, frames[0]!.bytes);
    for (const node of nodes) node.holdsBack = () => false;
    await nodes[0]!.kill();
    scene.records([frames[0]!, [nodes[0]!]], [frames[1]!, [nodes[1]!]]);
    guest.onFault(2);
    guest.onFault(18);
    await until(() => [2, 18].every((pfn) => scene.asked.some(({ pfns }) => pfns.includes(pfn))), 'both are asked for');
    const lane = scene.lane(true);
    lane.put(frames[0]!);
    lane.put(frames[1]!);
    expect(scene.ending).toBe(null);
    scene.expectPages({ 2: 2, 18: 18 });
  });

  test('which has spoilt it, is asked of the source even if no guest waits for it: the node will not give it', async () => {
    const { scene, frames, node } = await running(32);
    node.blocks.set(frames[1]!.id, frames[0]!.bytes);
    node.holdsBack = () => false;
    scene.kept(...frames);
    await until(() => scene.asked.flatMap(({ pfns }) => pfns).length >= 16, 'its pages are asked for');
    expect(scene.asked.flatMap(({ pfns }) => pfns).slice(0, 16)).toEqual(range(16, 32));
    expect(scene.ending).toBe(null);
  });

  test('is lost when the source is gone for good: it is named, and nobody waits for ever', async () => {
    const { scene, frames, guest, node } = await running(48);
    node.holdsBack = () => false;
    node.blocks.delete(frames[1]!.id);
    scene.kept(frames[0]!);
    scene.records([frames[1]!, 'coming'], [frames[2]!, 'coming']);
    guest.onFault(20);
    await until(() => guest.has(0), 'what there is');
    scene.hasSource = false;
    scene.session.hasSource = false;
    expect(scene.ending).toBe(null);
    scene.session.forsaken();
    await until(() => scene.ending !== null, 'an end');
    // A node has the third, which nobody has said.
    expect(scene.ending).toMatchObject({ how: 'lost', lost: [{ vm: 'vm0', ranges: [[16, 31]] }] });
    scene.expectPages({ 0: 0, 40: 40 });
  });

  test('and the source is there, and says nothing: that is said in time, unless it is at work', async () => {
    const { scene, frames, guest } = await running(48);
    guest.onFault(20);
    const lane = scene.lane();
    for (let i = 0; i < 4; i++) {
      await sleep(700);
      if (i % 2 === 0) lane.put(frames[0]!);
      else scene.records([frames[2]!, 'coming']);
    }
    expect(scene.silent).toEqual([]);
    await until(() => scene.silent.length > 0, 'it is silent');
    expect(scene.silent[0]).toMatchObject({ code: 'PEER_UNREACHABLE' });
    expect(scene.silent[0]!.message).toMatch(/page 20 of vm0 .* nothing for 2000 ms/);
    expect(scene.ending).toBe(null);
  });

  test('but everything came before: whole, though the source has never said how many frames there are', async () => {
    const { scene, frames, node } = await running(32);
    node.holdsBack = () => false;
    scene.session.forsaken();
    expect(scene.ending).toBe(null);
    scene.kept(...frames);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
  });
});

describe('a frame from the source', () => {
  /** Frame 1 has content 100 in page 0, where frame 2 then puts content 200; frame 3 says that page 5 is as slot 0 of frame 1. */
  async function duplicates() {
    const maker = await Maker.create();
    const made = [maker.frame({ 0: 100 }), maker.frame({ 0: 200 }), maker.frame({ 5: 100 })];
    const node = await LiveNode.start();
    const scene = await Scene.open(maker, [8], [node]);
    return { maker, made: made as [Made, Made, Made], node, scene };
  }

  test('whose duplicate can be had here is STORED at once', async () => {
    const { made, scene } = await duplicates();
    const lane = scene.lane();
    lane.put(made[0]);
    lane.put(made[2]);
    expect(lane.stored).toEqual([made[0].id, made[2].id]);
    scene.expectPages({ 0: 100, 5: 100 });
  });

  test('that needs what nobody keeps any more is STORED when the source has sent that page', async () => {
    const { maker, made, scene } = await duplicates();
    const lane = scene.lane();
    for (const frame of made) lane.put(frame);
    expect(lane.stored).toEqual([made[0].id, made[1].id]);
    expect(scene.asked).toEqual([{ vm: 0, pfns: [5] }]);
    await sleep(50);
    expect(lane.stored.length).toBe(2);
    const answer = maker.frame({ 5: 300 }, { alone: true });
    scene.lane(true).put(answer);
    await sleep(0);
    expect(lane.stored).toEqual(made.map(({ id }) => id));
    scene.expectPages({ 0: 200, 5: 300 });
  });

  test('or when that page comes in a later frame, wherever that is', async () => {
    const { maker, made, scene, node } = await duplicates();
    const lane = scene.lane();
    for (const frame of made) lane.put(frame);
    const later = maker.frame({ 5: 300 });
    node.holdsBack = () => true;
    scene.kept(later);
    await sleep(0);
    expect(lane.stored).toEqual(made.map(({ id }) => id));
  });

  test('that needs what a node has is STORED at once, and has it from there', async () => {
    const { made, scene, node } = await duplicates();
    node.blocks.set(made[0].id, made[0].bytes);
    node.holdsBack = () => true;
    scene.kept(made[0]);
    const lane = scene.lane();
    for (const frame of made) lane.put(frame);
    expect(lane.stored).toEqual(made.map(({ id }) => id));
    expect(scene.asked).toEqual([]);
    node.answer();
    await until(() => scene.session.merger.isMerged(0, 5), 'the page');
    scene.expectPages({ 0: 200, 5: 100 });
  });

  test('is lost with what it needs when the source has gone', async () => {
    const { made, scene } = await duplicates();
    const lane = scene.lane();
    scene.hasSource = false;
    scene.session.hasSource = false;
    for (const frame of made) lane.put(frame);
    scene.session.divided(3);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toMatchObject({ how: 'lost', lost: [{ vm: 'vm0', ranges: [[1, 7]] }] });
    expect(lane.stored.length).toBe(2);
  });

  test('that is waited for has slots of its own', async () => {
    const { made, scene } = await duplicates();
    const { merger } = scene.session;
    const held = range(0, merger.freeSlots - 8).map(() => merger.acquire());
    const [bulk, urgent] = [scene.lane(), scene.lane(true)];
    expect(bulk.put(made[0])).toBe(false);
    expect(urgent.put(made[0])).toBe(true);
    for (const slot of held) slot.release();
    expect(bulk.put(made[1])).toBe(true);
  });
});

test('what is waited for does not wait for the rate limit, and counts all the same', async () => {
  const maker = await Maker.create();
  const frames = maker.frames(0, 320);
  const node = await LiveNode.start(...frames);
  const limit = new RateLimit(200_000);
  const scene = await Scene.open(maker, [320], [node], { limit });
  const guest = scene.run();
  const [bulk, urgent] = [scene.lane(), scene.lane(true)];
  expect(bulk.put(frames[0]!)).toBe(true);
  expect(limit.waitMs).toBeGreaterThan(0);
  expect(bulk.put(frames[1]!)).toBe(false);
  scene.kept(...frames);
  expect(urgent.put(frames[2]!)).toBe(true);
  guest.onFault(100);
  guest.onFault(200);
  await until(() => guest.has(100) && guest.has(200), 'the pages');
  // Four frames at that rate take longer than a second.
  expect(node.asked.length).toBe(2);
  expect(limit.waitMs).toBe(100);
});

describe('one VM of several', () => {
  test('whose image cannot be written fails alone', async () => {
    const maker = await Maker.create();
    const other = maker.frames(1000, 1320, 1);
    const own = maker.frames(0, 320);
    const node = await LiveNode.start(...own, ...other);
    const scene = await Scene.open(maker, [320, 1320], [node]);
    scene.guests[1]!.broken = new Error('no space left');
    scene.kept(...other, ...own);
    scene.session.divided(own.length + other.length);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    const error = expect.objectContaining({ message: expect.stringMatching(/space/) });
    expect(scene.failed).toEqual([{ vm: 1, error }]);
    expect(scene.whole).toEqual([0]);
    // What was asked for before that was found, and nothing more of it.
    expect(node.askedIds.filter((id) => other.some((frame) => frame.id === id)).length).toBeLessThan(17);
  });

  test('that has failed still has what others are duplicates of', async () => {
    const maker = await Maker.create();
    const theirs = maker.frame({ 0: 70, 1: 71 }, { vm: 1 });
    const straight = maker.frame({ 2: 72 }, { vm: 1 });
    const own = maker.frame({ 0: 71 });
    const more = maker.frame({ 1: 72 });
    const node = await LiveNode.start(theirs, own);
    const scene = await Scene.open(maker, [2, 3], [node]);
    scene.lane().put(straight);
    scene.session.failVm(1, Object.assign(new Error('over'), { code: 'CANCELLED' }) as never);
    expect(scene.failed.length).toBe(1);
    scene.kept(theirs, own);
    await until(() => scene.session.merger.isMerged(0, 0), 'the duplicate');
    const lane = scene.lane();
    lane.put(more);
    expect(lane.stored).toEqual([]);
    expect(scene.asked).toEqual([{ vm: 0, pfns: [1] }]);
    lane.put(maker.frame({ 1: 72 }, { alone: true }));
    scene.expectPages({ 0: 71, 1: 72 });
    scene.session.divided(5);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    expect(scene.guests[1]!.has(0)).toBe(false);
  });

  test('that has failed holds up no frame of its own that comes late: nobody needs what is missing for it', async () => {
    const maker = await Maker.create();
    const straight = maker.frame({ 0: 70 }, { vm: 1 });
    const late = maker.frame({ 1: 70 }, { vm: 1 });
    const scene = await Scene.open(maker, [1, 2], []);
    const lane = scene.lane();
    lane.put(straight);
    scene.session.failVm(1, Object.assign(new Error('over'), { code: 'CANCELLED' }) as never);
    lane.put(late);
    expect(lane.stored).toEqual([straight.id, late.id]);
    expect(scene.asked).toEqual([]);
  });

  test('fails, and nobody waits for its pages any more', async () => {
    const maker = await Maker.create();
    const made = [maker.frame({ 0: 100 }), maker.frame({ 0: 200 }), maker.frame({ 5: 100 })];
    const scene = await Scene.open(maker, [8, 8], []);
    const lane = scene.lane();
    for (const frame of made) lane.put(frame);
    scene.run().onFault(7);
    expect(scene.asked.map(({ pfns }) => pfns)).toEqual([[5], [7]]);
    scene.session.failVm(0, Object.assign(new Error('over'), { code: 'CANCELLED' }) as never);
    await sleep(600);
    expect(lane.stored).toEqual(made.map(({ id }) => id));
    expect(scene.asked.length).toBe(2);
  });

  test('is the last: that is the end', async () => {
    const maker = await Maker.create();
    const scene = await Scene.open(maker, [4, 4], []);
    const error = Object.assign(new Error('over'), { code: 'CANCELLED' }) as never;
    scene.session.failVm(0, error);
    scene.session.failVm(0, error);
    expect(scene.ending).toBe(null);
    scene.session.failVm(1, error);
    expect(scene.ending).toEqual({ how: 'failed', error });
    expect(scene.failed.map(({ vm }) => vm)).toEqual([0, 1]);
  });
});

test('latencies are what they would be if each of them was kept, to a twentieth', () => {
  const latencies = new Latencies();
  expect(latencies.quantiles).toBe(null);
  const all = range(0, 5_000).map((i) => ((i * 7919) % 5_000) / 100 + 0.02);
  all.push(123_456);
  for (const ms of all) latencies.add(ms);
  all.sort((a, b) => a - b);
  const { p50Ms, p99Ms, maxMs } = latencies.quantiles!;
  expect(latencies.count).toBe(5_001);
  expect(maxMs).toBe(123_456);
  for (const [said, part] of [
    [p50Ms, 0.5],
    [p99Ms, 0.99],
  ] as const) {
    const exact = all[Math.ceil(all.length * part) - 1]!;
    expect(said).toBeGreaterThanOrEqual(exact * 0.999);
    expect(said).toBeLessThanOrEqual(exact * 1.051);
  }
});

test('how long guests have waited lately is forgotten after a while', () => {
  const latencies = new Latencies();
  expect(latencies.latelyP99Ms(0)).toBeNull();
  latencies.add(900, 1_000);
  for (let ms = 1; ms <= 200; ms++) latencies.add(ms, 4_000);
  expect(latencies.latelyP99Ms(4_000)).toBe(199);
  latencies.add(3_000, 4_001);
  latencies.add(4_000, 4_001);
  expect(latencies.latelyP99Ms(4_001)).toBe(900);
  expect(latencies.latelyP99Ms(6_500)).toBe(200);
  expect(latencies.latelyP99Ms(9_500)).toBeNull();
  expect(latencies.quantiles!.maxMs).toBe(4_000);
});
