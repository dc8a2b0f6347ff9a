// What a source and a destination say of a guest, and who has it afterwards: in whatever order it comes, whatever breaks in between.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { AbdmError } from '#abdm/bindings/errors.js';
import type { Destination, DestinationOptions } from '#abdm/host/destination/destination.js';
import type { ImageTarget } from '#abdm/host/destination/images.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { FakeGuest, stateBodies, stateBody } from './fake-guest.js';
import { type Keeper, Place, TestSource, trueNodes, until } from './world.js';

const { READY, LOADED, RUN, RUNNING, FAULT, STATE, VM_OVER, DISCARD } = MessageType;
const PAGES = 300;

/** An image that is no guest, and where it goes. */
const FILE = { name: 'b', bytes: 4096, pages: 1, regions: [{ name: 'b', address: 0, bytes: 4096 }] };
const NOWHERE = {
  description: 'nowhere',
  write: () => {},
  zero: () => {},
  read: () => {},
  commit: async () => {},
  discard: async () => {},
};

/** A destination with a guest that waits, and a source with one that leaves. */
class Scene {
  readonly place = new Place();
  readonly guest = new FakeGuest(PAGES);
  readonly ran: string[] = [];
  nodes: Awaited<ReturnType<typeof trueNodes>> = [];
  source!: TestSource;

  static async of(keepers: number, guest = true): Promise<Scene> {
    const scene = new Scene();
    scene.nodes = await trueNodes(keepers);
    scene.source = await TestSource.of(PAGES, { guest });
    return scene;
  }

  target(guest = this.guest): Pick<ImageTarget, 'statePath' | 'open'> {
    return { statePath: `${this.place.path()}.abdm`, open: (_, left) => guest.open(left) };
  }

  start(options: Partial<DestinationOptions> = {}, guest = this.guest): Promise<Destination> {
    return this.place.start({
      images: [{ name: 'a', ...this.target(guest) }],
      onRunning: (name) => this.ran.push(name),
      ...options,
    });
  }

  parked(): Partial<DestinationOptions> {
    return { parked: { vmKey: this.source.vmKey, intermediates: this.nodes.map(({ address }) => address) } };
  }

  state(text = 'state'): void {
    for (const body of stateBodies(0, Buffer.from(text))) this.source.send(STATE, body);
  }

  run(vm = 0): void {
    this.source.send(RUN, encodeJson({ vm }));
  }

  /** Everything at the nodes. */
  async scatter(keepers: readonly Keeper[] = this.nodes): Promise<void> {
    await this.source.register(keepers, false);
    await this.source.scatter((i) => [this.nodes[i % this.nodes.length]!]);
    await this.source.index(keepers);
  }

  expectWhole(guest = this.guest): void {
    expect(Buffer.compare(guest.memory, this.source.image)).toBe(0);
    expect(guest.spoilt).toEqual([]);
  }

  noted(): { fate: string; guest: string | null } {
    return JSON.parse(readFileSync(`${this.place.path()}.abdm`, 'utf8')).notes[0];
  }
}

describe('a source and a destination', () => {
  test('agree on when it runs; then its pages follow, those first that it waits for', async () => {
    const scene = await Scene.of(1);
    const { source, guest } = scene;
    const destination = await scene.start();
    await source.announce(destination, scene.nodes, false, 'post-copy');
    expect(await source.hears(READY)).toEqual({ vms: [{ state: 'waiting', guest: guest.guestId }] });
    scene.state();
    expect(await source.hears(LOADED)).toEqual({ vm: 0, guest: guest.guestId });
    expect(destination.handedOver).toBe(false);
    scene.run();
    expect(await source.hears(RUNNING)).toEqual({ vm: 0 });
    expect([destination.handedOver, scene.ran]).toEqual([true, ['a']]);
    expect(scene.noted()).toEqual({ guest: guest.guestId, fate: 'running' });
    guest.onFault(7);
    expect(await source.hears(FAULT)).toEqual({ vm: 0, pfns: [7] });
    await source.scatter(() => scene.nodes);
    source.records(scene.nodes);
    source.divided();
    const summary = await destination.done;
    expect(summary).toMatchObject({ outcome: 'completed', reason: null, mode: 'post-copy' });
    expect(summary.vms[0]).toMatchObject({ mode: 'post-copy', postcopyRequests: 1, verified: true });
    expect(guest.asked).toEqual(['open refuse', 'load state', 'run', 'commit']);
    scene.expectWhole();
    expect(readdirSync(scene.place.dir)).toEqual([]);
  });

  test('say it all again when the connection was lost, and it is done once', async () => {
    const scene = await Scene.of(1);
    const { source, guest, nodes } = scene;
    const destination = await scene.start();
    const again = async () => {
      source.cut();
      await source.announce(destination, nodes, false, 'post-copy');
    };
    await source.announce(destination, nodes, false, 'post-copy');
    // Half of a state is of no use.
    const [half] = stateBodies(0, new Uint8Array(300_000));
    source.send(STATE, half!);
    await again();
    scene.state('one');
    await source.hears(LOADED);
    await again();
    expect((await source.hears(READY, 3)).vms[0].state).toBe('loaded');
    // It had gone on there, and stopped again.
    scene.state('two');
    await source.hears(LOADED, 2);
    scene.run();
    await source.hears(RUNNING);
    await again();
    expect((await source.hears(READY, 4)).vms[0].state).toBe('running');
    scene.state('two');
    scene.run();
    await source.hears(RUNNING, 2);
    await source.scatter(() => nodes);
    source.records(nodes);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    expect(guest.asked).toEqual(['open refuse', 'load one', 'load two', 'run', 'commit']);
    scene.expectWhole();
  });

  test('are given RUN in mode stop: it runs when all is in place', async () => {
    const scene = await Scene.of(2);
    const { source, guest, nodes } = scene;
    const destination = await scene.start();
    await source.announce(destination, nodes);
    await scene.scatter();
    scene.state();
    await source.hears(LOADED);
    source.records(nodes, source.frames.slice(0, 3));
    scene.run();
    await until(() => destination.status().mergedBytes! >= 3 * 64 * 4096, 'a part is merged');
    expect([guest.runs, destination.handedOver]).toEqual([false, true]);
    source.records(nodes);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    expect(guest.asked).toEqual(['open refuse', 'load state', 'run', 'commit']);
    scene.expectWhole();
  });

  test('have no nodes: it runs in mode stop as soon as all has come, before that was all', async () => {
    const scene = await Scene.of(0);
    const { source } = scene;
    const destination = await scene.start();
    await source.announce(destination, [], true);
    await source.sendFrames(destination, 0, source.frames.length);
    scene.state();
    await source.hears(LOADED);
    scene.run();
    await source.hears(RUNNING);
    source.divided();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null, direct: true });
    scene.expectWhole();
  });

  test.each<[string, boolean, RegExp, (scene: Scene) => void]>([
    ['RUN before LOADED', true, /RUN came before/, (scene) => scene.run()],
    ['RUN of no VM', true, /VM 1 is no guest/, (scene) => scene.run(1)],
    ['RUN of what is no guest', false, /VM 0 is no guest/, (scene) => scene.run()],
    ['STATE of what is no guest', false, /VM 0 is no guest/, (scene) => scene.state()],
    ['STATE out of order', true, /not the next/, ({ source }) => source.send(STATE, stateBody(0, 1, 2, Buffer.of(1)))],
    [
      'DISCARD of no VM',
      true,
      /vm 9/,
      ({ source }) => source.send(DISCARD, Buffer.concat([Buffer.of(9), new Uint8Array(24)])),
    ],
    [
      'VM_OVER of no VM',
      true,
      /no VM 3/,
      ({ source }) => source.send(VM_OVER, encodeJson({ vm: 3, code: 'X', message: '' })),
    ],
    ['LOADED', true, /not its turn/, ({ source }) => source.send(LOADED, encodeJson({ vm: 0, guest: '' }))],
    [
      'DIVIDED without RUN, where nobody else has it',
      true,
      /has not said that a may run/,
      ({ source }) => source.divided(),
    ],
  ])('end it when the source says %s', async (_, isGuest, message, say) => {
    const scene = await Scene.of(0, isGuest);
    const destination = isGuest ? await scene.start() : await scene.place.start();
    await scene.source.announce(destination, [], true);
    say(scene);
    const { outcome, reason } = await destination.done;
    expect([outcome, reason!.code]).toEqual(['aborted', 'PROTOCOL']);
    expect(reason!.message).toMatch(message);
    expect(scene.guest.runs).toBe(false);
    expect(readdirSync(scene.place.dir)).toEqual([]);
  });

  test('do not agree on whether it is a guest: nothing is begun', async () => {
    const scene = await Scene.of(0, false);
    const destination = await scene.start();
    await scene.source.announce(destination, [], true);
    expect(await destination.done).toMatchObject({ outcome: 'aborted', reason: { code: 'USAGE' } });
    expect(scene.guest.asked).toEqual(['open refuse', 'discard']);
    expect(readdirSync(scene.place.dir)).toEqual([]);
  });
});

describe('a source that left all with the nodes, and could not say so', () => {
  test('is not missed: the nodes have the state too', async () => {
    const scene = await Scene.of(2);
    const { source, nodes, guest } = scene;
    const destination = await scene.start();
    await source.announce(destination, nodes, false, 'pre-copy');
    scene.state('an old one');
    await source.hears(LOADED);
    source.cut();
    await scene.scatter();
    await source.putState(nodes, Buffer.from('the last'));
    await source.register(nodes, true);
    source.die();
    expect(await destination.done).toMatchObject({ outcome: 'completed', reason: null });
    expect(guest.asked).toEqual(['open refuse', 'load an old one', 'load the last', 'run', 'commit']);
    scene.expectWhole();
  });

  test('but not the state: nobody runs it, and it is not given up', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const destination = await scene.start({ answerMs: 1_000 });
    await source.announce(destination, nodes, false, 'pre-copy');
    await scene.scatter();
    await source.register(nodes, true);
    source.die();
    const { outcome, reason } = await destination.done;
    expect([outcome, reason!.message]).toEqual(['paused-recoverable', expect.stringMatching(/execution state/)]);
    expect(guest.runs).toBe(false);
    expect(nodes[0]!.node.status().frames).toBeGreaterThan(0);
  });

  test('is gone before it said so, and the guest may run: what is missing is lost', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const destination = await scene.start();
    await source.announce(destination, nodes, false, 'post-copy');
    await source.register(nodes, false);
    scene.state();
    await source.hears(LOADED);
    scene.run();
    await source.hears(RUNNING);
    await source.scatter(() => nodes, 0, 2);
    source.records(nodes, source.frames.slice(0, 2));
    await until(() => destination.status().mergedBytes! >= 2 * 64 * 4096, 'what there is, is merged');
    source.die();
    const { outcome, reason, lost } = await destination.done;
    expect([outcome, reason!.code, lost]).toEqual(['aborted', 'FRAME_LOST', [{ vm: 'a', ranges: [[128, PAGES - 1]] }]]);
    expect([guest.runs, guest.asked.at(-1), destination.hasLost]).toEqual([true, 'leave', true]);
  });
});

describe('a source that is connected and does not answer', () => {
  test('is not waited for: what it has is lost, what nodes have is not', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const destination = await scene.start();
    await source.register(nodes, false);
    await source.announce(destination, nodes, false, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    scene.run();
    await source.hears(RUNNING);
    await source.scatter(() => nodes, 0, 2);
    source.records(nodes, source.frames.slice(0, 2));
    guest.onFault(200);
    const { outcome, reason, lost } = await destination.done;
    expect([outcome, reason!.code, lost]).toEqual(['aborted', 'FRAME_LOST', [{ vm: 'a', ranges: [[128, PAGES - 1]] }]]);
    expect([guest.runs, guest.asked.at(-1)]).toEqual([true, 'leave']);
  });
});

describe('a destination that gives up', () => {
  test('before the guest runs says so first, and the guest never does', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const destination = await scene.start();
    await source.announce(destination, nodes, false, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    destination.cancel('no more');
    expect(await source.hears(VM_OVER)).toEqual({ vm: 0, code: 'CANCELLED', message: 'no more' });
    expect(await destination.done).toMatchObject({ outcome: 'aborted', reason: { code: 'CANCELLED' } });
    expect(guest.asked).toEqual(['open refuse', 'load state', 'discard']);
    expect(readdirSync(scene.place.dir)).toEqual([]);
  });

  test('when RUN crosses that: it does not run either', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const destination = await scene.start();
    await source.announce(destination, nodes, false, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    destination.cancel();
    scene.run();
    await destination.done;
    await sleep(50);
    expect([guest.runs, scene.ran]).toEqual([false, []]);
  });

  test('when the guest runs leaves it, and the same command goes on', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const first = await scene.start();
    await source.announce(first, nodes, false, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    scene.run();
    await source.hears(RUNNING);
    first.cancel();
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable', vms: [{ outcome: 'paused-recoverable' }] });
    expect(await source.hears(VM_OVER)).toBeUndefined();
    const again = await scene.start();
    await source.announce(again, nodes, false, 'post-copy');
    expect((await source.hears(READY, 2)).vms[0]).toEqual({ state: 'running', guest: guest.guestId });
    await source.scatter(() => nodes);
    source.records(nodes);
    scene.run();
    source.divided();
    expect(await again.done).toMatchObject({ outcome: 'completed', reason: null });
    expect(guest.asked.filter((what) => what === 'run').length).toBe(1);
    expect(guest.asked).toContain('open keep');
    scene.expectWhole();
    expect(readdirSync(scene.place.dir)).toEqual([]);
  });

  test('when it has RUN, and waits for pages: the nodes have all, and the same command runs it', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    const first = await scene.start({ rateBytesPerS: 1e5 });
    await source.announce(first, nodes);
    await scene.scatter();
    await source.putState(nodes, Buffer.from('state'));
    scene.state();
    await source.hears(LOADED);
    scene.run();
    source.records(nodes);
    await source.register(nodes, true);
    source.divided();
    await until(() => first.status().phase === 'gathering' && first.handedOver, 'it is ours');
    first.cancel();
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable' });
    expect(guest.runs).toBe(false);
    source.die();
    expect(await (await scene.start()).done).toMatchObject({ outcome: 'completed', reason: null });
    expect(guest.runs).toBe(true);
    scene.expectWhole();
  });
});

describe('a guest that fails', () => {
  const broken = new AbdmError('IMAGE', 'it does not understand this');

  test('to take its state is refused', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    guest.refuse.load = broken;
    const destination = await scene.start();
    await source.announce(destination, nodes, false, 'post-copy');
    scene.state();
    expect(await source.hears(VM_OVER)).toMatchObject({ vm: 0, code: 'IMAGE', message: broken.message });
    expect(await destination.done).toMatchObject({ outcome: 'aborted', reason: { code: 'IMAGE' } });
    expect(destination.handedOver).toBe(false);
  });

  test('to begin may have begun: it is not given back, and the next one asks it', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    guest.refuse.run = broken;
    const first = await scene.start();
    await source.announce(first, nodes, false, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    scene.run();
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'IMAGE' } });
    expect(await source.hears(VM_OVER)).toBeUndefined();
    expect(scene.noted().fate).toBe('running');
    // It had not: as if nothing had been.
    guest.refuse = {};
    const again = await scene.start();
    await source.announce(again, nodes, false, 'post-copy');
    expect((await source.hears(READY, 2)).vms[0].state).toBe('waiting');
    expect(scene.noted().fate).toBe('open');
  });

  test('and another one is in its place, when it has run: nobody runs that', async () => {
    const scene = await Scene.of(1);
    const { source, nodes } = scene;
    const first = await scene.start();
    await source.announce(first, nodes, false, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    scene.run();
    await source.hears(RUNNING);
    first.cancel();
    await first.done;
    const other = new FakeGuest(PAGES);
    const again = await scene.start({}, other);
    expect(await again.done).toMatchObject({ outcome: 'aborted', lost: [{ vm: 'a', ranges: [[0, PAGES - 1]] }] });
    expect([again.hasLost, other.runs]).toEqual([true, false]);
    expect(other.asked).not.toContain('load state');
  });

  test.each([0, 1])('when it is told to run, and has surely not, goes on at the source: %i nodes', async (keepers) => {
    const scene = await Scene.of(keepers);
    const { source, nodes, guest } = scene;
    guest.mayHaveRun = async () => false;
    guest.refuse.run = broken;
    const destination = await scene.start();
    await source.announce(destination, nodes, keepers === 0, 'post-copy');
    scene.state();
    await source.hears(LOADED);
    scene.run();
    expect(await source.hears(VM_OVER)).toMatchObject({ vm: 0, code: 'IMAGE', message: broken.message });
    expect(await destination.done).toMatchObject({ outcome: 'aborted', reason: { code: 'IMAGE' } });
    expect([destination.hasLost, destination.handedOver]).toEqual([false, false]);
    expect(readdirSync(scene.place.dir)).toEqual([]);
  });

  test('before it can be opened is refused alone, and the others come', async () => {
    const scene = await Scene.of(1);
    const { source, nodes } = scene;
    Object.defineProperty(source, 'vms', { value: [...source.vms, FILE] });
    const open = () => Promise.reject(new AbdmError('IMAGE', 'no guest can be reached'));
    const file = { name: FILE.name, statePath: `${scene.place.path('b')}.abdm`, open: () => NOWHERE };
    const destination = await scene.start({ images: [{ name: 'a', open }, file] });
    await source.announce(destination, nodes, false, 'auto');
    expect((await source.hears(READY)).vms[0].state).toBe('waiting');
    // What crosses that is passed over.
    scene.state();
    expect(await source.hears(VM_OVER)).toMatchObject({ vm: 0, code: 'IMAGE', message: 'no guest can be reached' });
    const noted = JSON.parse(readFileSync(file.statePath, 'utf8')).notes;
    expect(noted.map(({ fate }: { fate: string }) => fate)).toEqual(['refused', 'open']);
    await sleep(50);
    expect(destination.status().phase).toBe('gathering');
    destination.cancel();
    expect((await destination.done).vms.map(({ reason }) => reason!.code)).toEqual(['IMAGE', 'CANCELLED']);
  });

  test('while its source is away is refused when that is back, and by whoever comes later', async () => {
    const scene = await Scene.of(1);
    const { source, nodes, guest } = scene;
    // Another VM, so that this one can end alone.
    Object.defineProperty(source, 'vms', { value: [...source.vms, FILE] });
    const file = { name: FILE.name, open: () => NOWHERE };
    const destination = await scene.start({ images: [{ name: 'a', ...scene.target() }, file] });
    await source.register(nodes, false);
    await source.announce(destination, nodes, false, 'auto');
    source.cut();
    await sleep(50);
    guest.onGone(new Error('killed'));
    expect(scene.noted().fate).toBe('open');
    await source.announce(destination, nodes, false, 'auto');
    expect(await source.hears(VM_OVER)).toMatchObject({ vm: 0, code: 'IMAGE', message: 'killed' });
    expect(scene.noted().fate).toBe('refused');
    source.cut();
    await source.announce(destination, nodes, false, 'auto');
    expect(await source.hears(VM_OVER, 2)).toMatchObject({ vm: 0 });
    destination.cancel();
    await destination.done;
  });
});

describe('a guest that was parked', () => {
  async function parked() {
    const scene = await Scene.of(3);
    const { source, nodes } = scene;
    await source.register(nodes, false, true);
    await source.scatter(() => nodes);
    await source.putState(nodes, Buffer.from('state'));
    await source.index(nodes);
    await source.register(nodes, true, true);
    source.leaveNodes();
    return scene;
  }

  test('runs at once, and only its destination may ever have it', async () => {
    const scene = await parked();
    const { guest } = scene;
    const first = await scene.start({ ...scene.parked(), rateBytesPerS: 1e5 });
    await until(() => guest.runs, 'it runs');
    expect(guest.asked).toEqual(['open refuse', 'load state', 'run']);
    expect(first.status().mergedBytes).toBeLessThan(PAGES * 4096);
    first.cancel();
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable', parked: true });
    // Another place: nothing is known there.
    const place = new Place();
    const other = new FakeGuest(PAGES);
    const images = [{ name: 'a', statePath: `${place.path()}.abdm`, open: () => other.open() }];
    const second = await place.start({ ...scene.parked(), images });
    expect(await second.done).toMatchObject({ outcome: 'aborted', reason: { code: 'CLAIMED' } });
    expect(other.asked).toEqual([]);
    expect(await (await scene.start(scene.parked())).done).toMatchObject({ outcome: 'completed', reason: null });
    scene.expectWhole();
  });

  test('and dies just before it runs waits at the nodes, for whoever comes', async () => {
    const scene = await parked();
    const { guest } = scene;
    guest.mayHaveRun = async () => false;
    guest.run = async () => {
      const gone = new AbdmError('IMAGE', 'killed');
      guest.onGone(gone);
      throw gone;
    };
    const first = await scene.start(scene.parked());
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable', reason: { code: 'IMAGE' } });
    expect([guest.runs, scene.noted().fate]).toEqual([false, 'open']);
    // Another place: nothing is known there, and nobody has it for good.
    const place = new Place();
    const other = new FakeGuest(PAGES);
    const images = [{ name: 'a', statePath: `${place.path()}.abdm`, open: () => other.open() }];
    const second = await place.start({ ...scene.parked(), images });
    expect(await second.done).toMatchObject({ outcome: 'completed', reason: null });
    scene.expectWhole(other);
  });

  test('is left to others by a destination that gives up before it runs', async () => {
    const scene = await parked();
    const { guest } = scene;
    let go!: () => void;
    guest.hold.load = new Promise((resolve) => {
      go = resolve;
    });
    const first = await scene.start({ ...scene.parked(), rateBytesPerS: 1e5 });
    await until(() => guest.asked.length > 0 && first.status().phase === 'gathering', 'it is being loaded');
    await sleep(300);
    first.cancel();
    go();
    expect(await first.done).toMatchObject({ outcome: 'paused-recoverable' });
    expect(guest.runs).toBe(false);
    const place = new Place();
    const other = new FakeGuest(PAGES);
    const images = [{ name: 'a', statePath: `${place.path()}.abdm`, open: () => other.open() }];
    expect(await (await place.start({ ...scene.parked(), images })).done).toMatchObject({ outcome: 'completed' });
    expect(other.runs).toBe(true);
    scene.expectWhole(other);
    expect(await (await scene.start(scene.parked())).done).toMatchObject({ outcome: 'aborted' });
    expect(guest.runs).toBe(false);
  });
});
