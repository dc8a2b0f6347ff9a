// Which version of a page is put in place: what is superseded is not fetched, nothing older comes over something newer, and nothing at all over what a guest
// runs on.
import { describe, expect, test } from 'vitest';
import { discard, LiveNode, Maker, type MemoryGuest, Scene, sleep } from './live.js';
import { until } from './world.js';

const range = (from: number, end: number) => Array.from({ length: end - from }, (_, i) => from + i);
const fill = (from: number, end: number, seed: number) =>
  Object.fromEntries(range(from, end).map((pfn) => [pfn, seed + pfn]));

describe('a frame whose pages all come in later ones', () => {
  test('is not fetched; one that has a page left is', async () => {
    const maker = await Maker.create();
    const first = maker.frame(fill(0, 16, 100));
    const second = maker.frame(fill(16, 32, 100));
    const third = maker.frame(fill(0, 31, 500));
    const node = await LiveNode.start(first, second, third);
    const scene = await Scene.open(maker, [32], [node]);
    scene.kept(first, second, third);
    scene.session.divided(3);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    expect(node.askedIds.sort()).toEqual([second.id, third.id]);
    scene.expectPages({ ...fill(0, 31, 500), 31: 131 });
  });

  test('is withdrawn while it waits in the queue', async () => {
    const maker = await Maker.create();
    const frames = maker.frames(0, 320);
    const last = frames.at(-1)!;
    const later = maker.frame(fill(304, 320, 700));
    const node = await LiveNode.start(...frames, later);
    node.holdsBack = () => true;
    const scene = await Scene.open(maker, [320], [node]);
    scene.kept(...frames);
    await until(() => node.asked.length > 5, 'a window');
    expect(node.askedIds).not.toContain(last.id);
    scene.kept(later);
    scene.session.divided(frames.length + 1);
    node.answer();
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    expect(node.askedIds).not.toContain(last.id);
    scene.expectPages(fill(304, 320, 700));
  });

  test('is withdrawn as well if the later one comes straight, and in no record', async () => {
    const maker = await Maker.create();
    const frames = maker.frames(0, 320);
    const last = frames.at(-1)!;
    const later = maker.frame(fill(304, 320, 700));
    const node = await LiveNode.start(...frames);
    node.holdsBack = () => true;
    const scene = await Scene.open(maker, [320], [node]);
    scene.kept(...frames);
    await until(() => node.asked.length > 5, 'a window');
    expect(scene.lane().put(later)).toBe(true);
    scene.session.divided(frames.length + 1);
    node.answer();
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    expect(node.askedIds).not.toContain(last.id);
    scene.expectPages(fill(304, 320, 700));
  });

  test('is fetched if a duplicate waits for what it holds', async () => {
    const maker = await Maker.create();
    const first = maker.frame({ 0: 1, 1: 2 });
    const second = maker.frame({ 2: 1 });
    const third = maker.frame({ 0: 3, 1: 4 });
    const node = await LiveNode.start(first, second, third);
    const scene = await Scene.open(maker, [3], [node]);
    scene.kept(first, second, third);
    scene.session.divided(3);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    expect(node.askedIds).toContain(first.id);
    scene.expectPages({ 0: 3, 1: 4, 2: 1 });
  });

  test('does not matter when nobody has it any more', async () => {
    const maker = await Maker.create();
    const first = maker.frame(fill(0, 16, 100));
    const second = maker.frame(fill(0, 16, 500));
    const node = await LiveNode.start(second);
    const scene = await Scene.open(maker, [16], [node]);
    scene.hasSource = false;
    scene.session.hasSource = false;
    scene.records([first, []], [second]);
    scene.session.divided(2);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    scene.expectPages(fill(0, 16, 500));
  });
});

test('an older version that comes late is not put in place', async () => {
  const maker = await Maker.create();
  const first = maker.frame(fill(0, 16, 100));
  const second = maker.frame(fill(0, 8, 500));
  const node = await LiveNode.start(first, second);
  node.holdsBack = (id) => id === first.id;
  const scene = await Scene.open(maker, [16], [node]);
  scene.kept(first);
  await until(() => node.asked.length === 1, 'the first is asked for');
  scene.kept(second);
  await until(() => scene.session.merger.mergedPages(0) === 8, 'the second is merged');
  node.answer();
  await until(() => scene.session.merger.mergedPages(0) === 16, 'the first is merged');
  scene.expectPages({ ...fill(0, 8, 500), ...fill(8, 16, 100) });
});

test('a frame that never comes is not asked for, nor waited for: its pages are in later ones', async () => {
  const maker = await Maker.create();
  const frames = maker.frames(0, 320);
  const last = frames.at(-1)!;
  const node = await LiveNode.start(...frames);
  node.holdsBack = () => true;
  const scene = await Scene.open(maker, [320], [node]);
  const unseen = maker.frame({ 0: 9 });
  scene.kept(...frames);
  await until(() => node.asked.length > 5, 'a window');
  scene.records([last, 'void'], [unseen, 'void']);
  // A node's late word of it changes nothing.
  scene.kept(last);
  scene.session.divided(frames.length + 1);
  node.answer();
  await until(() => scene.ending !== null, 'an end');
  expect(scene.ending).toMatchObject({ how: 'lost', lost: [{ vm: 'vm0', ranges: [[304, 319]] }] });
  expect(node.askedIds).not.toContain(last.id);
  expect(node.askedIds).not.toContain(unseen.id);
});

describe('DISCARD', () => {
  test('pages come only in frames from the floor on, and the guest does not see what was there', async () => {
    const maker = await Maker.create();
    const first = maker.frame(fill(0, 16, 100));
    const under = maker.frame(fill(16, 32, 100));
    const final = maker.frame({ 3: 903, 20: 920 });
    const node = await LiveNode.start(first, under, final);
    node.holdsBack = (id) => id === under.id;
    const scene = await Scene.open(maker, [32], [node]);
    scene.kept(first, under);
    await until(() => scene.session.merger.mergedPages(0) === 16, 'the first is merged');
    scene.session.onDiscard(discard(0, 0, 32, final.id, [3, 20]));
    expect(scene.session.merger.isMerged(0, 3)).toBe(false);
    node.answer(under.id);
    await until(() => scene.session.merger.mergedPages(0) === 30, 'all else');
    const guest = scene.run();
    expect([guest.has(3), guest.has(20), guest.has(4)]).toEqual([false, false, true]);
    scene.kept(final);
    await until(() => scene.whole.length > 0, 'it is whole');
    scene.expectPages({ ...fill(0, 32, 100), 3: 903, 20: 920 });
    expect(guest.spoilt).toEqual([]);
  });

  test('a frame of which nothing is left is not fetched', async () => {
    const maker = await Maker.create();
    const frames = maker.frames(0, 320);
    const node = await LiveNode.start(...frames);
    node.holdsBack = () => true;
    const scene = await Scene.open(maker, [320], [node]);
    scene.kept(...frames);
    await until(() => node.asked.length > 5, 'a window');
    scene.session.onDiscard(discard(0, 160, 160, 1000, range(160, 320)));
    node.answer();
    await until(() => scene.session.merger.mergedPages(0) === 160, 'the rest');
    await sleep(50);
    for (const frame of frames.slice(-4)) expect(node.askedIds).not.toContain(frame.id);
  });

  const good = discard(0, 8, 16, 5, [9]);
  const changed = (change: (view: DataView) => void) => {
    const body = good.slice();
    change(new DataView(body.buffer));
    return body;
  };
  test.each<[string, RegExp, Uint8Array]>([
    ['cut short', /26 bytes|25 bytes/, good.subarray(0, 25)],
    ['nothing but its head', /24 bytes/, good.subarray(0, 24)],
    ['too long', /27 bytes/, Uint8Array.of(...good, 0)],
    ['of a VM that there is not', /vm 1/, changed((view) => view.setUint16(0, 1, true))],
    ['with a reserved field', /reserved/, changed((view) => view.setUint16(2, 1, true))],
    ['of no pages', /0 pages/, changed((view) => view.setUint32(4, 0, true))],
    ['of too many pages', /pages/, changed((view) => view.setUint32(4, 2 ** 31, true))],
    ['beyond the image', /page 24/, changed((view) => view.setBigUint64(8, 9n, true))],
    ['far beyond the image', /page/, changed((view) => view.setBigUint64(8, 2n ** 64n - 1n, true))],
    ['with the floor 0', /floor 0/, changed((view) => view.setBigUint64(16, 0n, true))],
    ['with a floor that no frame has', /floor/, changed((view) => view.setBigUint64(16, 2n ** 60n, true))],
  ])('that is %s is refused', async (_, reason, body) => {
    const maker = await Maker.create();
    const scene = await Scene.open(maker, [24], []);
    expect(() => scene.session.onDiscard(good)).not.toThrow();
    expect(() => scene.session.onDiscard(body)).toThrow(
      expect.objectContaining({ code: 'PROTOCOL', message: expect.stringMatching(reason) }),
    );
  });
});

test('what a guest runs on is never written again, whatever comes', async () => {
  const maker = await Maker.create();
  const first = maker.frame(fill(0, 16, 100));
  const second = maker.frame(fill(0, 32, 500));
  const node = await LiveNode.start(first, second);
  const scene = await Scene.open(maker, [32], [node]);
  scene.kept(first);
  await until(() => scene.session.merger.mergedPages(0) === 16, 'the first is merged');
  const guest = scene.run();
  guest.scribble(7);
  scene.session.onDiscard(discard(0, 0, 32, second.id, range(0, 16)));
  scene.kept(second);
  await until(() => scene.whole.length > 0, 'it is whole');
  scene.lane().put(second);
  scene.lane().put(first);
  expect(guest.spoilt).toEqual([]);
  expect(guest.page(7).every((byte) => byte === 0x5a)).toBe(true);
  scene.expectPages({ 0: 100, 6: 106, 16: 516, 31: 531 });
});

test('what was in place and is superseded by what is on its way is not there for the guest', async () => {
  const maker = await Maker.create();
  const first = maker.frame(fill(0, 16, 100));
  const second = maker.frame({ 2: 902, 3: 903, 9: 909 });
  const node = await LiveNode.start(first);
  const scene = await Scene.open(maker, [16], [node]);
  scene.kept(first);
  await until(() => scene.session.merger.mergedPages(0) === 16, 'the first is merged');
  scene.records([second, 'coming']);
  const guest = scene.run();
  expect(range(0, 16).filter((pfn) => !guest.has(pfn))).toEqual([2, 3, 9]);
  scene.lane().put(second);
  expect(scene.whole).toEqual([0]);
  scene.expectPages({ ...fill(0, 16, 100), 2: 902, 3: 903, 9: 909 });
  expect(guest.spoilt).toEqual([]);
});

test('a guest that has run before a destination is started again keeps what it has, and nothing of that is fetched', async () => {
  const maker = await Maker.create();
  const [first, second, third] = maker.frames(0, 48);
  const node = await LiveNode.start(first!, second!, third!);
  const scene = await Scene.open(maker, [48], [node], {
    before: ([guest]) => {
      guest!.hasRun = true;
      guest!.runs = true;
      for (let pfn = 0; pfn < 20; pfn++) guest!.present[pfn >> 3]! |= 1 << (pfn & 7);
      guest!.scribble(3);
    },
  });
  scene.kept(first!, second!, third!);
  scene.session.sure(0);
  await until(() => scene.whole.length > 0, 'it is whole');
  expect(node.askedIds).toEqual([second!.id, third!.id]);
  expect(scene.guests[0]!.spoilt).toEqual([]);
  expect(scene.guests[0]!.page(3)[0]).toBe(0x5a);
  scene.expectPages(Object.fromEntries(range(20, 48).map((pfn) => [pfn, pfn])));
});

describe('a guest that has run before a destination is started again', () => {
  const before = ([guest]: MemoryGuest[]) => void Object.assign(guest!, { hasRun: true, runs: true });

  async function restarted(oneVersion = false) {
    const maker = await Maker.create();
    const old = maker.frame(fill(0, 16, 100));
    const straight = maker.frame(fill(16, 24, 300));
    const last = maker.frame({ 3: 903 });
    const node = await LiveNode.start(old, last);
    const scene = await Scene.open(maker, [24], [node], { before, oneVersion });
    return { scene, node, old, straight, last };
  }

  test('gets no page before it is known which version is the last: the source says so, at the end of all', async () => {
    const { scene, node, old, straight, last } = await restarted();
    scene.kept(old);
    scene.session.fault(0, 3);
    expect(scene.lane().put(straight)).toBe(false);
    await sleep(100);
    expect([node.askedIds, scene.asked, scene.session.merger.frames]).toEqual([[], [], 0]);
    scene.kept(last);
    scene.session.sure(0);
    expect(scene.lane().put(straight)).toBe(true);
    await until(() => scene.whole.length > 0, 'it is whole');
    scene.expectPages({ ...fill(0, 16, 100), ...fill(16, 24, 300), 3: 903 });
    expect(scene.guests[0]!.spoilt).toEqual([]);
  });

  test('or the nodes have told of all frames that there are', async () => {
    const { scene, node, old, straight, last } = await restarted();
    scene.kept(old);
    scene.session.divided(3);
    expect(scene.lane().put(straight)).toBe(false);
    await sleep(100);
    expect([node.askedIds, scene.session.merger.frames]).toEqual([[], 0]);
    scene.records([last], [straight, []]);
    expect(scene.lane().put(straight)).toBe(true);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    scene.expectPages({ ...fill(0, 16, 100), ...fill(16, 24, 300), 3: 903 });
  });

  test('or its source is gone, and nobody knows: then what it has not is lost', async () => {
    const { scene, node, old } = await restarted();
    scene.kept(old);
    scene.session.forsaken();
    expect(scene.ending).toMatchObject({ how: 'lost', lost: [{ ranges: [[0, 23]] }] });
    expect(node.askedIds).toEqual([]);
  });

  test('but if it stood still before its first page was sent, each is the last', async () => {
    const { scene, node, old, straight } = await restarted(true);
    scene.kept(old);
    expect(scene.lane().put(straight)).toBe(true);
    scene.session.forsaken();
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    expect(node.askedIds).toEqual([old.id]);
    scene.expectPages({ ...fill(0, 16, 100), ...fill(16, 24, 300) });
  });
});

describe('a VM is whole', () => {
  test('not before a frame that was found at a node, and is in no record, has said what is in it', async () => {
    const maker = await Maker.create();
    const first = maker.frame(fill(0, 16, 100));
    const second = maker.frame(fill(0, 16, 500));
    const node = await LiveNode.start(first, second);
    const scene = await Scene.open(maker, [16], [node]);
    scene.kept(first);
    await until(() => scene.session.merger.mergedPages(0) === 16, 'the first is merged');
    node.holdsBack = () => true;
    scene.session.divided(2);
    await until(() => node.askedIds.includes(second.id), 'the second is asked for');
    scene.kept(first);
    expect(scene.ending).toBe(null);
    node.answer();
    await until(() => scene.ending !== null, 'an end');
    expect(scene.ending).toEqual({ how: 'whole' });
    scene.expectPages(fill(0, 16, 500));
  });

  test('as soon as its guest runs and has all of its pages, whatever else comes', async () => {
    const maker = await Maker.create();
    const own = maker.frame(fill(0, 16, 100));
    const other = maker.frame(fill(0, 8, 300), { vm: 1 });
    const node = await LiveNode.start(own, other);
    const scene = await Scene.open(maker, [16, 16], [node]);
    scene.kept(own, other);
    await until(() => scene.session.merger.mergedPages(0) === 16, 'it is merged');
    expect(scene.whole).toEqual([]);
    scene.run();
    expect(scene.whole).toEqual([0]);
    expect(scene.ending).toBe(null);
  });

  test('if it does not run, only when all frames are known', async () => {
    const maker = await Maker.create();
    const first = maker.frame(fill(0, 16, 100));
    const second = maker.frame({ 3: 900 });
    const node = await LiveNode.start(first, second);
    const scene = await Scene.open(maker, [16], [node]);
    scene.kept(first);
    scene.session.divided(2);
    await until(() => scene.session.merger.mergedPages(0) === 16, 'it is merged');
    expect(scene.whole).toEqual([]);
    scene.kept(second);
    await until(() => scene.ending !== null, 'an end');
    expect(scene.whole).toEqual([0]);
    scene.expectPages({ 3: 900 });
  });
});
