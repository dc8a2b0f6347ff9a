// A guest that takes its execution state once, and may wait for pages as it does so; what was written to it cannot be read back. A QEMU is one.
import { expect, test } from 'vitest';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MessageType } from '#abdm/host/wire/messages.js';
import { FakeGuest, stateBodies } from './fake-guest.js';
import { LiveNode, Maker, Scene, sleep } from './live.js';
import { Place, TestSource, trueNodes, until } from './world.js';

const { READY, LOADED, RUN, RUNNING, FAULT, STATE } = MessageType;
const PAGES = 300;

class OnceGuest extends FakeGuest {
  readonly loadsOnce = true as const;
  readonly isWriteOnly = true as const;
  isBusy = false;
  onFree = () => {};
  /** Pages that it waits for as it loads. */
  waits: number[] = [];
  #loaded = false;

  override read(): void {
    throw new Error('it was read back');
  }

  override async load(state: Uint8Array): Promise<void> {
    expect(this.#loaded).toBe(false);
    this.#loaded = true;
    for (const pfn of this.waits) this.onFault(pfn);
    await until(() => this.waits.every((pfn) => this.has(pfn)), 'what it waits for as it loads');
    await super.load(state);
  }

  override write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    if (this.#loaded && this.has(pfn)) this.spoilt.push(pfn);
    super.write(pfn, memory, offset, bytes);
  }
}

test('is sent what it waits for before it is LOADED', async () => {
  const nodes = await trueNodes(1);
  const source = await TestSource.of(PAGES, { guest: true });
  const place = new Place();
  const guest = new OnceGuest(PAGES);
  guest.waits = [7, 250];
  const destination = await place.start({
    images: [{ name: 'a', statePath: `${place.path()}.abdm`, open: (_, left) => guest.open(left) }],
  });
  await source.announce(destination, nodes, false, 'post-copy');
  await source.hears(READY);
  for (const body of stateBodies(0, Buffer.from('state'))) source.send(STATE, body);
  expect(await source.hears(FAULT)).toMatchObject({ vm: 0 });
  await source.scatter(() => nodes);
  source.records(nodes);
  await source.hears(LOADED);
  source.send(RUN, encodeJson({ vm: 0 }));
  await source.hears(RUNNING);
  source.divided();
  expect(await destination.done).toMatchObject({ outcome: 'completed', vms: [{ verified: true }] });
  expect(guest.asked).toEqual(['open refuse', 'load state', 'run', 'commit']);
  expect(Buffer.compare(guest.memory, source.image)).toBe(0);
  expect(guest.spoilt).toEqual([]);
});

test('is taken in from the nodes: it loads when it is known where all of it is', async () => {
  const nodes = await trueNodes(2);
  const source = await TestSource.of(PAGES, { guest: true });
  const place = new Place();
  const guest = new OnceGuest(PAGES);
  guest.waits = [11];
  await source.register(nodes, false, true);
  await source.scatter((i) => [nodes[i % 2]!]);
  await source.index(nodes);
  await source.putState(nodes, Buffer.from('kept'));
  await source.register(nodes, true, true);
  source.leaveNodes();
  const destination = await place.start({
    images: [{ name: 'a', statePath: `${place.path()}.abdm`, open: (_, left) => guest.open(left) }],
    parked: { vmKey: source.vmKey, intermediates: nodes.map(({ address }) => address) },
  });
  expect(await destination.done).toMatchObject({ outcome: 'completed', vms: [{ verified: true }] });
  expect(guest.asked).toEqual(['open refuse', 'load kept', 'run', 'commit']);
  expect(Buffer.compare(guest.memory, source.image)).toBe(0);
  expect(guest.spoilt).toEqual([]);
});

test('that has much to write is sent nothing more, but what it waits for', async () => {
  const maker = await Maker.create();
  const frames = maker.frames(0, 640);
  const node = await LiveNode.start(...frames);
  const guest = new OnceGuest(640);
  guest.isBusy = true;
  const scene = await Scene.open(maker, [640], [node], { targets: [{ name: 'vm0', open: () => guest }] });
  scene.session.start(0);
  guest.onFault = (pfn) => scene.session.fault(0, pfn);
  scene.kept(...frames);
  await sleep(100);
  expect(node.asked).toEqual([]);
  guest.onFault(100);
  await until(() => guest.has(100), 'the page');
  expect(node.asked).toHaveLength(1);
  guest.isBusy = false;
  guest.onFree();
  await until(() => scene.whole.length === 1, 'all of it');
});
