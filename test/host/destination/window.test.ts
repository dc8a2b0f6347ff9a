// What is asked for in bulk while a guest runs: little enough for its faults, and enough for the link.
import { describe, expect, test } from 'vitest';
import { GatherWindow } from '#abdm/host/destination/window.js';
import { LiveNode, Maker, Scene, sleep } from './live.js';
import { until } from './world.js';

const KiB = 1024;
/** What leaves of 16 pages that do not compress. */
const SHORT_FRAME = 66_152;

/** A link that carries `bytesPerMs`, behind which holders answer within `tripMs`: gathers for `ms`, and says how that went. */
function gather({
  bytesPerMs = 0,
  tripMs = 0,
  frameBytes = SHORT_FRAME,
  ms = 5_000,
  faultsEveryMs = Infinity,
  faultsFromMs = 0,
}) {
  let now = 1_000;
  const window = new GatherWindow(() => now);
  window.isBounded = true;
  const end = now + ms;
  const arrivals: { at: number; askedAt: number }[] = [];
  let linkFreeAt = now;
  let outstanding = 0;
  let shortest = Number.POSITIVE_INFINITY;
  let nextFault = now + faultsFromMs;
  let bytes = 0;
  let waitedMs = 0;
  const ask = () => {
    const fits = () => outstanding + frameBytes <= window.bytes(Number.isFinite(shortest) ? shortest : 0);
    while (outstanding === 0 || fits()) {
      // Over the network, behind what waits in front of the link, and through it.
      linkFreeAt = Math.max(linkFreeAt, now + tripMs) + frameBytes / bytesPerMs;
      arrivals.push({ at: linkFreeAt, askedAt: now });
      outstanding += frameBytes;
    }
  };
  for (ask(); arrivals[0]!.at < end; ask()) {
    const { at, askedAt } = arrivals.shift()!;
    now = at;
    outstanding -= frameBytes;
    window.arrived(frameBytes);
    shortest = Math.min(shortest, at - askedAt);
    for (; now >= nextFault && faultsEveryMs < Infinity; nextFault = now + faultsEveryMs) window.fault();
    // Of the last half, when it has settled.
    if (now < end - ms / 2) continue;
    bytes += frameBytes;
    // What is asked for now stands behind what will be on the link when its answer could be.
    waitedMs = Math.max(waitedMs, linkFreeAt - (now + tripMs));
  }
  return { share: bytes / (bytesPerMs * (ms / 2)), waitedMs };
}

describe('the link is full, and what is asked for now comes soon', () => {
  const mbit = (n: number) => (n * 1e6) / 8 / 1000;
  test.each([
    // Two frames, as everywhere at least.
    { link: 10, tripMs: 0.3, waitMs: 110 },
    { link: 200, tripMs: 0.3, waitMs: 10 },
    { link: 200, tripMs: 1, waitMs: 10 },
    { link: 200, tripMs: 5, waitMs: 10 },
    { link: 1000, tripMs: 0.3, waitMs: 8 },
    { link: 1000, tripMs: 1, waitMs: 8 },
    { link: 10_000, tripMs: 0.3, waitMs: 8 },
    { link: 200, tripMs: 50, waitMs: 10 },
    { link: 1000, tripMs: 20, waitMs: 8 },
  ])('$link Mbit/s, $tripMs ms', ({ link, tripMs, waitMs }) => {
    const settings = { bytesPerMs: mbit(link), tripMs, ms: 20_000 };
    const { share, waitedMs } = gather(settings);
    expect(share).toBeGreaterThan(0.96);
    expect(waitedMs).toBeLessThan(waitMs);
    // Small frames as well: compressed, or of zeros.
    expect(gather({ ...settings, frameBytes: 9 * KiB }).share).toBeGreaterThan(0.96);
  });

  test('while faults arrive, one frame is under way at 200 Mbit/s, and what that leaves is for them', () => {
    const settings = { bytesPerMs: mbit(200), tripMs: 0.3 };
    const busy = gather({ ...settings, faultsEveryMs: 100 });
    expect(busy.waitedMs).toBeLessThan(3);
    expect(busy.share).toBeGreaterThan(0.85);
    expect(gather(settings).waitedMs).toBeGreaterThan(busy.waitedMs * 2);
  });

  test.each([
    { link: 200, tripMs: 20 },
    { link: 1000, tripMs: 1 },
    { link: 1000, tripMs: 20 },
  ])('and a link with trips that are long for it stays nearly full: $link Mbit/s, $tripMs ms', ({ link, tripMs }) => {
    const settings = { bytesPerMs: mbit(link), tripMs, ms: 20_000, faultsFromMs: 5_000 };
    const { share, waitedMs } = gather({ ...settings, faultsEveryMs: 100 });
    expect(share).toBeGreaterThan(0.9);
    expect(waitedMs).toBeLessThan(gather(settings).waitedMs);
  });
});

test('there is no bound while no guest runs', () => {
  expect(new GatherWindow().bytes(0)).toBe(Number.POSITIVE_INFINITY);
});

test('half a second after the last fault the window is whole again', () => {
  let now = 0;
  const window = new GatherWindow(() => now);
  window.isBounded = true;
  expect(window.bytes(0)).toBe(2 * SHORT_FRAME);
  window.fault();
  expect(window.bytes(0)).toBe(SHORT_FRAME);
  now = 499;
  expect(window.bytes(0)).toBe(SHORT_FRAME);
  now = 501;
  expect(window.bytes(0)).toBe(2 * SHORT_FRAME);
});

describe('frames of 64 KiB at nodes that do not answer', () => {
  async function scene(nodes: number) {
    const maker = await Maker.create();
    const frames = maker.frames(0, 640);
    const all = await Promise.all(Array.from({ length: nodes }, () => LiveNode.start(...frames)));
    for (const node of all) node.holdsBack = () => true;
    const opened = await Scene.open(maker, [640], all);
    const asked = () => all.reduce((sum, { asked }) => sum + asked.length, 0);
    return { scene: opened, frames, nodes: all, asked };
  }

  test('many are asked for while no guest runs, and few when one does', async () => {
    const still = await scene(1);
    still.scene.kept(...still.frames);
    await until(() => still.asked() > 0, 'gathering');
    await sleep(50);
    expect(still.asked()).toBe(8);

    const live = await scene(1);
    live.scene.run();
    live.scene.kept(...live.frames);
    await until(() => live.asked() > 0, 'gathering');
    await sleep(50);
    expect(live.asked()).toBe(2);
  });

  test('few in total, at however many nodes; one while faults arrive', async () => {
    const live = await scene(3);
    const guest = live.scene.run();
    live.scene.kept(...live.frames);
    await until(() => live.asked() > 0, 'gathering');
    await sleep(50);
    expect(live.asked()).toBe(2);

    const faulting = await scene(3);
    const other = faulting.scene.run();
    // The source has it.
    other.onFault(600);
    faulting.scene.kept(...faulting.frames.slice(0, 30));
    await sleep(100);
    expect(faulting.asked()).toBe(1);
    expect(guest.spoilt).toEqual([]);
  });

  test('as many as before when the guest has all of its pages, and another VM has not', async () => {
    const maker = await Maker.create();
    const own = maker.frames(1000, 1016);
    const other = maker.frames(0, 640, 1);
    const node = await LiveNode.start(...own, ...other);
    const live = await Scene.open(maker, [1016, 640], [node], {
      before: ([guest]) => {
        guest!.hasRun = true;
        guest!.present.fill(255, 0, 125);
      },
    });
    node.holdsBack = () => true;
    live.kept(...other, ...own);
    live.session.sure(0);
    await sleep(50);
    expect(node.asked.length).toBe(2);
    live.lane().put(own[0]!);
    await until(() => node.asked.length >= 8, 'the window is open');
  });

  test('one that is slow does not take all the room', async () => {
    const live = await scene(2);
    live.scene.run();
    const [slow, other] = live.nodes as [LiveNode, LiveNode];
    // How much was asked of the slow one before anything was asked of the other.
    let before = -1;
    other.holdsBack = () => {
      if (before < 0) before = slow.asked.length;
      return false;
    };
    const where = (i: number) => (i < 20 ? slow : other);
    live.scene.records(...live.frames.map((frame, i): [typeof frame, LiveNode[]] => [frame, [where(i)]]));
    await until(() => live.scene.session.merger.mergedPages(0) === 320, 'all that the other one has');
    expect(before).toBeLessThan(2);
  });

  test('those that have gone without a word do not take the room of the others for long', async () => {
    const live = await scene(3);
    live.scene.run();
    const [first, second, other] = live.nodes as [LiveNode, LiveNode, LiveNode];
    other.holdsBack = () => false;
    const began = performance.now();
    live.scene.records(
      [live.frames[0]!, [first]],
      [live.frames[1]!, [second]],
      ...live.frames.slice(2).map((frame): [typeof frame, LiveNode[]] => [frame, [other]]),
    );
    await until(() => live.scene.session.merger.mergedPages(0) === 608, 'all that the other one has');
    expect(performance.now() - began).toBeLessThan(2_500);
  });
});

test('what fills the link keeps everything else back, for a moment', () => {
  let now = 0;
  const window = new GatherWindow(() => now);
  expect(window.waitMs).toBe(0);
  window.filled();
  expect(window.waitMs).toBe(40);
  now = 30;
  expect(window.waitMs).toBe(10);
  window.filled();
  now = 71;
  expect(window.waitMs).toBe(0);
});
