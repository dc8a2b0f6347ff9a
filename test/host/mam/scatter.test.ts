// Frames of guests that run while they move: who gets them, what others may refer to, and what becomes of those that never come.
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Kept } from '#abdm/host/mam/ledger.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Cluster, has } from '../intermediate/cluster.js';
import { sleep, until } from '../wire/pair.js';
import { Fakes, holding, silent, stored } from './fakes.js';
import { frame, holderOf, join, LARGE, never, open, range, recorded } from './scattered.js';

const cluster = new Cluster();
const fakes = new Fakes();

afterEach(async () => {
  await cluster.end();
  await fakes.end();
});

describe('a frame that never comes', () => {
  test('is not waited for, counts, and is recorded as void; its bytes are given back when no socket takes from them', async () => {
    const nodes = await cluster.nodes(2);
    const { scatter, said, kept } = await open(nodes);
    const { held, answer } = holding();
    const destination = await fakes.destination(answer);
    await join(scatter, destination);
    const frames = [frame(1, LARGE), ...[2, 3, 4].map((id) => frame(id, { ...LARGE, references: [1] }))];
    // The first two are under way, the others wait.
    for (const one of frames) scatter.put(one);
    scatter.put(frame(5));
    await until(() => held.length === 2 && said.stored.length === 1);
    expect([...scatter.underWay()].map(({ id }) => id)).toEqual([1, 2, 3, 4]);
    scatter.void([kept(1), kept(3)]);
    scatter.void([kept(1)]);
    expect(said.voided).toEqual([1, 3]);
    expect(frames.map(({ released }) => released)).toEqual([0, 0, 1, 0]);
    expect([...scatter.underWay()].map(({ id }) => id)).toEqual([2, 4]);
    // What the destination says of it now changes nothing.
    held[0]!.store();
    await until(() => frames[0]!.released === 1);
    held[1]!.store();
    await until(() => held.length === 3);
    held[2]!.store();
    await scatter.finish(never, () => {});
    expect(kept(1)).toMatchObject({ state: 'void', holders: null });
    expect([...scatter.ledger.voided()].map(({ id }) => id)).toEqual([1, 3]);
    expect(scatter.ledger.size).toBe(5);
    expect(await recorded(nodes)).toEqual({
      1: 'void at 0',
      2: 'kept at the destination',
      3: 'void at 0',
      4: 'kept at the destination',
      5: 'kept at 1',
    });
    const [found] = await MamNode.lookup(nodes[0]!.address);
    expect(found).toMatchObject({ complete: true, frames: 5 });
    expect(frames.map(({ released }) => released)).toEqual([1, 1, 1, 1]);
  });

  test('was at nodes that are gone: it is lost no more, and another making of it goes nowhere', async () => {
    const nodes = [await cluster.process(), await cluster.process()];
    const { scatter, said, kept } = await open(nodes);
    for (let id = 1; id <= 40; id++) scatter.put(frame(id));
    await scatter.settle(never);
    // Their ids are random, and with them who has how many: of two, the one with more.
    const of = (node: { id: string }) => range(40).filter((id) => holderOf(kept(id)) === node.id);
    const [other, dying] = nodes.sort((a, b) => of(a).length - of(b).length);
    const gone = of(dying!);
    expect(gone.length).toBeGreaterThan(5);
    await dying!.kill();
    await until(() => said.lost.length > 0);
    expect(said.lost).toEqual([gone]);
    scatter.void(gone.map(kept));
    const late = frame(gone[0]!);
    scatter.put(late);
    scatter.urgent(late);
    expect(late.released).toBe(2);
    await scatter.settle(never);
    const records = await recorded([other!]);
    expect(range(40).filter((id) => records[id] === 'void at 0')).toEqual(gone);
    expect(Object.keys(records)).toHaveLength(40);
  });

  test('leads to those that refer to it', async () => {
    const { scatter, kept } = await open(await cluster.nodes(1));
    scatter.put(frame(1));
    scatter.put(frame(2, { references: [1] }));
    scatter.put(frame(3));
    scatter.put(frame(4, { references: [3, 1] }));
    scatter.put(frame(5, { references: [3] }));
    const ids = (frames: Kept[]) => frames.map(({ id }) => id);
    expect(ids(scatter.ledger.referring(new Set([1])))).toEqual([2, 4]);
    expect(ids(scatter.ledger.referring(new Set([2, 5])))).toEqual([]);
    // Made anew it refers to nothing.
    scatter.put(frame(2));
    scatter.void([kept(5)]);
    expect(ids(scatter.ledger.referring(new Set([1, 3])))).toEqual([4]);
    await scatter.settle(never);
  });
});

describe('a frame that refers to what nobody else has', () => {
  test('goes to the destination, and waits for its window where others would go to nodes', async () => {
    const nodes = await cluster.nodes(1);
    const { scatter, said } = await open(nodes);
    const { held, answer } = holding();
    const destination = await fakes.destination(answer);
    await join(scatter, destination);
    scatter.put(frame(1, LARGE));
    scatter.put(frame(2, LARGE));
    // As when a batch makes several frames.
    scatter.put(frame(3, { ...LARGE, references: [2] }));
    scatter.put(frame(4, LARGE));
    await until(() => said.stored.includes(4));
    await sleep(100);
    expect(destination.puts).toEqual([1, 2]);
    held[0]!.store();
    await until(() => destination.puts.includes(3));
    for (const { store } of held.slice(1)) store();
    await scatter.settle(never);
    expect(await recorded(nodes)).toMatchObject({ 3: 'kept at the destination', 4: 'kept at 1' });
    // Also of the third it was known at once that nobody else will have it.
    expect(said.given).toEqual([
      [1, true],
      [2, true],
      [3, true],
      [4, false],
      [3, true],
    ]);
    expect(said.lost).toEqual([]);
  });

  test('is lost with the destination, like those that it had: under way, waiting, or put when it is gone', async () => {
    const nodes = await cluster.nodes(1);
    const { scatter, said, kept } = await open(nodes);
    const { held, answer } = holding();
    await join(scatter, await fakes.destination(answer));
    const frames = range(4).map((id) => frame(id, { ...LARGE, references: id > 2 ? [1] : [] }));
    for (const one of frames) scatter.put(one);
    await until(() => held.length === 2);
    held[0]!.store();
    await until(() => held.length === 3);
    // The second may go to nodes, and does.
    expect(scatter.loseDestination()).toBe(true);
    expect(said.lost).toEqual([[1, 3, 4]]);
    const late = frame(5, { references: [2] });
    scatter.put(late);
    expect([said.lost.length, late.released]).toEqual([1, 1]);
    const settled = scatter.settle(never);
    await until(() => said.lost.length === 2);
    expect(said.lost[1]).toEqual([5]);
    expect(kept(5)).toMatchObject({ state: 'coming', generation: 1 });
    await until(() => said.stored.includes(2));
    expect([...scatter.underWay()].map(({ id }) => id).sort()).toEqual([1, 3, 4, 5]);
    // It is at nodes now: what refers to it goes there too.
    scatter.put(frame(6, { references: [2] }));
    for (const id of [1, 3, 4, 5]) scatter.put(frame(id));
    await settled;
    expect(Object.values(await recorded(nodes))).toEqual(range(6).map(() => 'kept at 1'));
    await until(() => frames.every(({ released }) => released === 1));
  });

  test('is lost if the destination refuses it, breaks off, or holds up the end', async () => {
    const nodes = await cluster.nodes(1);
    const { scatter, said, kept } = await open(nodes);
    const { held, answer } = holding();
    const destination = await fakes.destination(answer);
    await join(scatter, destination);
    scatter.put(frame(9));
    await until(() => held.length === 1);
    held[0]!.store();
    scatter.put(frame(1, { references: [9] }));
    await until(() => held.length === 2);
    held[1]!.refuse('FRAME_CHECKSUM');
    await until(() => said.lost.length === 1);
    expect(kept(1).isDoubtful).toBe(false);
    scatter.put(frame(1));
    await until(() => held.length === 3);
    held[2]!.store();
    scatter.put(frame(2, { references: [9] }));
    await until(() => held.length === 4);
    let over = false;
    const finished = scatter.finish(never, () => {
      over = true;
    });
    const hurried = performance.now();
    await until(() => said.lost.length === 2);
    expect(performance.now() - hurried).toBeLessThan(2_000);
    expect([over, kept(2).isDoubtful]).toEqual([false, true]);
    // It would hold that up too.
    expect(scatter.canGoStraight()).toBe(false);
    scatter.put(frame(2));
    await finished;
    expect([held.length, said.lost, said.stored.includes(2)]).toEqual([4, [[1], [2]], true]);
    scatter.hurry(false);
    scatter.put(frame(3, { references: [9] }));
    await until(() => held.some(({ id }) => id === 3));
    await destination.kill();
    await until(() => said.lost.length === 3);
    expect(said.lost[2]).toEqual([3]);
  });
});

test('a destination that holds up the end gets what is left all the same where nodes have no room', async () => {
  const busy = holding();
  const { held, answer } = holding();
  const destination = await fakes.destination(answer);
  const { scatter, said } = await open([await fakes.node(busy.answer)]);
  await join(scatter, destination);
  scatter.put(frame(9));
  await until(() => held.length === 1);
  held[0]!.store();
  scatter.put(frame(1, { references: [9] }));
  scatter.hurry(true);
  await until(() => said.lost.length === 1);
  scatter.put(frame(2));
  await until(() => busy.held.some(({ id }) => id === 2));
  expect(destination.puts).toEqual([9, 1]);
  for (const one of busy.held) one.refuse('NO_ROOM');
  await until(() => destination.puts.includes(2));
  held.at(-1)!.store();
  await until(() => said.stored.includes(2));
  scatter.end();
});

describe('a frame that others refer to', () => {
  /** A destination and a node whose windows are full, and frame 9 waits. */
  async function crowded(live: boolean) {
    const busy = holding();
    const node = await fakes.node(busy.answer);
    const far = holding();
    const destination = await fakes.destination(far.answer);
    const { scatter, said, kept } = await open([node], { live });
    scatter.addDestination(destination.address);
    await until(() => scatter.mam.destination !== null);
    for (const id of range(4)) scatter.put(frame(id, LARGE));
    scatter.put(frame(9, LARGE));
    await until(() => far.held.length === 2 && busy.held.length === 2);
    return { scatter, said, kept, node, destination, far: far.held, near: busy.held };
  }

  test('and that has no holder yet goes to nodes, though the destination has room', async () => {
    const { scatter, said, node, destination, far, near } = await crowded(true);
    scatter.put(frame(10, { references: [9], bytes: 270_000 }));
    far[0]!.store();
    await until(() => said.stored.length === 1);
    // The one that refers to it may go there.
    await until(() => destination.puts.includes(10));
    near[0]!.store();
    await until(() => node.puts.includes(9));
    expect(destination.puts).toEqual([1, 2, 10]);
    scatter.end();
  });

  test('goes where there is room first, where no guest is', async () => {
    const { scatter, destination, far } = await crowded(false);
    scatter.put(frame(10, { references: [9], bytes: 270_000 }));
    far[0]!.store();
    await until(() => destination.puts.includes(9));
    expect(destination.puts).toEqual([1, 2, 9]);
    scatter.end();
  });

  test('and is made anew goes to nodes again', async () => {
    const { scatter, said, kept } = await open([await fakes.node(stored)]);
    const destination = await fakes.destination(stored);
    await join(scatter, destination);
    scatter.put(frame(1));
    await until(() => said.stored.length === 1);
    scatter.put(frame(2, { references: [1] }));
    await until(() => said.stored.length === 2);
    expect(destination.puts).toEqual([1, 2]);
    scatter.loseDestination();
    await join(scatter, destination);
    scatter.put(frame(1));
    scatter.put(frame(2));
    await until(() => said.stored.length === 4);
    expect([holderOf(kept(1)), kept(2).holders]).toEqual([expect.stringMatching(/./), 'destination']);
  });
});

test('whoever divides hears who is given a frame before the next one is divided', async () => {
  const { scatter, said } = await open(await cluster.nodes(1));
  await join(scatter, await fakes.destination(silent));
  for (const [id, expected] of [
    [1, true],
    [2, true],
    [3, false],
  ] as const) {
    scatter.put(frame(id, LARGE));
    expect(said.given.at(-1)).toEqual([id, expected]);
  }
});

describe('a frame may refer to what went straight', () => {
  test('while the destination is there, and little waits that can go nowhere else', async () => {
    const { scatter } = await open([await fakes.node(stored)]);
    expect(scatter.canGoStraight()).toBe(false);
    const { held, answer } = holding();
    const destination = await fakes.destination(answer);
    await join(scatter, destination);
    expect(scatter.canGoStraight()).toBe(true);
    // Its window is full with two; what can go to nodes as well does, and says nothing of what cannot.
    for (const id of [1, 2, 3]) scatter.put(frame(id, LARGE));
    expect(scatter.canGoStraight()).toBe(true);
    const referring = (id: number, bytes: number) => frame(id, { bytes, references: [1] });
    scatter.put(referring(4, 100_000));
    expect(scatter.canGoStraight()).toBe(true);
    scatter.put(referring(5, 66_150));
    expect(scatter.canGoStraight()).toBe(false);
    await until(() => held.length === 2);
    held[0]!.store();
    await until(() => scatter.canGoStraight());
    await until(() => destination.puts.length === 4);
    expect(destination.puts).toEqual([1, 2, 4, 5]);
    await destination.kill();
    await until(() => !scatter.canGoStraight());
  });

  test('and a slow destination is not taken for one that keeps up, because all that waits for it may go nowhere else', async () => {
    const { scatter, said } = await open([await fakes.node(stored)]);
    const { held, answer } = holding();
    await join(scatter, await fakes.destination(answer));
    scatter.setAhead({ ms: 30, frames: 2 });
    // The source makes two a millisecond, of which it takes two fifths.
    const began = performance.now();
    const elapsed = () => performance.now() - began;
    let taken = 0;
    const slow = setInterval(() => {
      const due = held.splice(0, Math.max(0, 0.8 * elapsed() - taken));
      taken += due.length;
      for (const { store } of due) store();
    }, 5);
    onTestFinished(() => clearInterval(slow));
    let before = 0;
    let after = 0;
    let id = 1;
    // On a busy machine it may take another trial to see that.
    for (; elapsed() < 1600 || !scatter.isSlow; await sleep(2)) {
      for (; id < 2 * elapsed() && id - said.stored.length < 200; id++) {
        scatter.put(frame(id, { bytes: 20_000, references: id > 1 && scatter.canGoStraight() ? [1] : [] }));
      }
      if (elapsed() < 1000) before = said.stored.length;
      if (elapsed() < 1600) after = said.stored.length;
    }
    // Of 1200; alone it takes 480.
    expect(after - before).toBeGreaterThan(680);
    // It is known to be slow, so that less may be ahead of it.
    clearInterval(slow);
    scatter.setAhead({ ms: 0, frames: 2 }, { ms: 0, frames: 1 });
    await until(() => {
      for (const { store } of held.splice(0)) store();
      return said.stored.length === id - 1;
    });
    for (let i = 0; i < 3; i++) scatter.put(frame(id + i, { bytes: 66_150 }));
    await until(() => said.stored.length === id + 1);
    expect(held).toHaveLength(1);
    scatter.end();
  });

  test('and one that is as fast is not taken for slow, because each frame refers to the one before', async () => {
    const nodes = holding();
    const { scatter, said } = await open([await fakes.node(nodes.answer)]);
    const there = holding();
    await join(scatter, await fakes.destination(there.answer));
    scatter.setAhead({ ms: 30, frames: 2 });
    // Only the source's link takes time: two frames a millisecond, in the order in which they came; the source makes more.
    const began = performance.now();
    const elapsed = () => performance.now() - began;
    const onLink: (typeof there.held)[number][] = [];
    let carried = 0;
    const link = setInterval(() => {
      onLink.push(...there.held.splice(0), ...nodes.held.splice(0));
      const due = onLink.splice(0, Math.max(0, 2 * elapsed() - carried));
      carried += due.length;
      for (const { store } of due) store();
    }, 5);
    onTestFinished(() => clearInterval(link));
    const straightOfLast = () => {
      const straight = new Map(said.given.map(([id, isStraight]) => [id, isStraight]));
      return said.stored.slice(-300).filter((id) => straight.get(id)).length;
    };
    for (let id = 1; elapsed() < 600 || (elapsed() < 6_000 && straightOfLast() < 280); await sleep(2)) {
      for (; id - said.stored.length < 190; id++) {
        const isFetchable = !said.given.some(([given, isStraight]) => given === id - 1 && isStraight);
        const references = id > 1 && (isFetchable || scatter.canGoStraight()) ? [id - 1] : [];
        scatter.put(frame(id, { bytes: 20_000, references }));
      }
    }
    expect(straightOfLast()).toBeGreaterThanOrEqual(280);
    scatter.end();
  }, 10_000);
});

describe('the destination is preferred', () => {
  test.each([1, 2])('less, when little may be ahead of it: %d frames of 64 KiB, and no more', async (frames) => {
    const node = await fakes.node(stored);
    const { scatter, said } = await open([node]);
    const { held, answer } = holding();
    const destination = await fakes.destination(answer);
    await join(scatter, destination);
    scatter.setAhead({ ms: 10, frames });
    for (const id of range(3)) scatter.put(frame(id, { bytes: 66_150 }));
    await until(() => held.length === frames && said.stored.length === 3 - frames);
    expect(destination.puts).toEqual(range(frames));
    // Also whoever is there after the connection broke.
    await destination.kill();
    scatter.loseDestination();
    const other = await fakes.destination(holding().answer);
    await join(scatter, other);
    for (const id of [4, 5, 6]) scatter.put(frame(id, { bytes: 66_150 }));
    await until(() => said.stored.includes(6));
    expect(other.puts).toEqual([4, 5].slice(0, frames));
    scatter.end();
  });

  test('and while it is found out how much it takes, nodes get but a few frames at a time; and never nothing if that is little', async () => {
    const nodes = holding();
    const { scatter, said } = await open([await fakes.node(nodes.answer), await fakes.node(nodes.answer)]);
    const there = holding();
    await join(scatter, await fakes.destination(there.answer));
    const began = performance.now();
    const elapsed = () => performance.now() - began;
    /** What is at nodes and not answered, every 5 ms. */
    const seen: number[] = [];
    const runs = () => seen.map((_, at) => seen.slice(at, at + 4)).filter(({ length }) => length === 4);
    const yields = () => runs().some((run) => run.every((frames) => frames > 0 && frames <= 3));
    // On a busy machine one may not see the first trial.
    for (let id = 1; elapsed() < 500 || (elapsed() < 10_000 && !yields()); await sleep(5)) {
      seen.push(nodes.held.length);
      for (const { store } of nodes.held.splice(0)) store();
      there.held.shift()?.store();
      for (; id - said.stored.length < 100; id++) scatter.put(frame(id, { bytes: 66_150 }));
    }
    expect(yields()).toBe(true);
    expect(runs().some((run) => run.every((frames) => frames > 8))).toBe(true);
    expect(runs().every((run) => run.some((frames) => frames > 0))).toBe(true);
    scatter.end();
  });
});

describe('what somebody waits for', () => {
  test('goes to the destination at once, whatever is on its way there', async () => {
    const nodes = await cluster.nodes(1);
    const { scatter, said, kept } = await open(nodes);
    const [bulk, urgent] = [holding(), holding()];
    await join(scatter, await fakes.destination(bulk.answer, urgent.answer));
    scatter.put(frame(1, LARGE));
    scatter.put(frame(2, LARGE));
    const awaited = frame(3);
    scatter.urgent(awaited);
    expect(said.given.at(-1)).toEqual([3, true]);
    expect([...scatter.underWay()].map(({ id }) => id)).toContain(3);
    await until(() => bulk.held.length === 2 && urgent.held.length === 1);
    for (const { store } of bulk.held) store();
    let settled = false;
    const settling = scatter.settle(never).then(() => {
      settled = true;
    });
    await until(() => said.stored.length === 2);
    await sleep(50);
    expect([settled, awaited.released]).toEqual([false, 0]);
    urgent.held[0]!.store();
    await settling;
    expect(said.stored).toEqual([1, 2, 3]);
    expect([kept(3).holders, awaited.released]).toEqual(['destination', 1]);
    expect(await recorded(nodes)).toMatchObject({ 3: 'kept at the destination' });
    expect(scatter.mam.shares.at(-1)).toMatchObject({ frames: 3 });
    // It is lost with the destination, as all others there.
    expect(scatter.loseDestination()).toBe(true);
    expect(said.lost).toEqual([[1, 2, 3]]);
  });

  test('goes to nodes if the destination is silent for two seconds, and is settled by then and not before', async () => {
    const nodes = await cluster.nodes(1);
    const awaited = frame(2);
    const given: unknown[] = [];
    const onGiven = ({ id }: Kept, straight: boolean) => given.push([id, straight, awaited.released]);
    const { scatter, said } = await open(nodes, { onGiven });
    const { held, answer } = holding();
    await join(scatter, await fakes.destination(silent, answer));
    // Bulk has its window full too.
    scatter.setAhead({ ms: 0, frames: 2 });
    scatter.put(frame(1, LARGE));
    const begun = performance.now();
    scatter.urgent(awaited);
    let settled = false;
    void scatter.settle(never).then(() => {
      settled = true;
    });
    await until(() => said.stored.includes(2));
    expect(performance.now() - begun).toBeGreaterThan(1_900);
    expect(performance.now() - begun).toBeLessThan(4_000);
    expect(given.slice(1)).toEqual([
      [2, true, 0],
      [2, false, 0],
    ]);
    expect(settled).toBe(false);
    scatter.void([scatter.ledger.get(1)!]);
    await until(() => settled);
    expect(await recorded(nodes)).toMatchObject({ 2: 'kept at 1' });
    // A late answer changes nothing.
    held[0]!.store();
    await sleep(50);
    expect(said.stored).toEqual([2]);
    expect(awaited.released).toBe(1);
    const client = await cluster.connect(nodes[0]!, { role: 'destination' });
    expect(await has(client, 2, 1000)).toBe(true);
  });

  test('goes to nodes at once if the destination is gone, refuses it, or takes none', async () => {
    const nodes = await cluster.nodes(1);
    const { scatter, said, kept } = await open(nodes);
    scatter.urgent(frame(1));
    await until(() => said.stored.length === 1);
    const { held, answer } = holding();
    const destination = await fakes.destination(silent, answer);
    await join(scatter, destination);
    scatter.setAhead({ ms: 0, frames: 2 });
    scatter.put(frame(9, LARGE));
    const [refused, cut] = [frame(2), frame(3)];
    const begun = performance.now();
    scatter.urgent(refused);
    await until(() => held.length === 1);
    held[0]!.refuse('FRAME_CHECKSUM');
    await until(() => said.stored.length === 2);
    scatter.urgent(cut);
    await until(() => held.length === 2);
    scatter.loseDestination();
    await until(() => said.stored.length === 4);
    expect(performance.now() - begun).toBeLessThan(1_900);
    expect(range(3).map((id) => holderOf(kept(id)))).toEqual(range(3).map(() => nodes[0]!.id));
    await until(() => refused.released + cut.released === 2);
    await scatter.settle(never);
  });

  test('may be void meanwhile', async () => {
    const { scatter, said, kept } = await open(await cluster.nodes(1));
    const { held, answer } = holding();
    await join(scatter, await fakes.destination(silent, answer));
    const one = frame(1);
    scatter.urgent(one);
    await until(() => held.length === 1);
    scatter.void([kept(1)]);
    await scatter.settle(never);
    expect(one.released).toBe(0);
    held[0]!.store();
    await until(() => one.released === 1);
    expect([said.stored, kept(1).state]).toEqual([[], 'void']);
  });
});

test('what a dead node had waits in line like everything else: not all of it looks for another one whenever something happens', async () => {
  const held = [holding(), holding(), holding()];
  const nodes = await Promise.all(held.map(({ answer }) => fakes.node(answer)));
  const { scatter, said } = await open(nodes);
  const { mam } = scatter;
  const frames = range(1000).map((id) => frame(id));
  for (const one of frames.slice(0, 300)) scatter.put(one);
  await until(() => held.every((node) => node.held.length === 64));
  let chosen = 0;
  const choose = mam.choose.bind(mam);
  mam.choose = (...how) => {
    chosen++;
    return choose(...how);
  };
  await nodes[0]!.kill();
  await until(() => mam.members.length === 2);
  await sleep(20);
  for (const one of frames.slice(300)) scatter.put(one);
  expect(chosen).toBeLessThan(4_000);
  while (said.stored.length < 1000) {
    for (const { held: those } of held) for (const { store } of those.splice(0)) store();
    await sleep(5);
  }
  expect(frames.every(({ released }) => released === 1)).toBe(true);
});
