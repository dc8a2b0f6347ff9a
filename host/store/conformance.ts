// What every keeper of blocks has to show, as checks that any implementation can be run through (docs/stores.md shows how): each gets a way to connect, and
// throws if what it finds is not what it should be.
//
//   for (const { name, run } of CONFORMANCE) test(name, () => run(dial));

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { FRAME_PAGES, frameBound } from '../../bindings/abi.js';
import type { FoundMigration, Registration } from '../mam/bodies.js';
import { MANIFEST_ID, RECORDS_ID, STATE_ID } from '../mam/catalog.js';
import { type FrameKeeper, isSurelyGone, type KeeperOptions, peerCode } from '../mam/keeper.js';
import { Sealer } from '../mam/seal.js';
import { MAX_FRAME_BYTES } from '../wire/messages.js';

/** How an implementation is reached. */
export interface Conforming {
  /** A new connection to it. */
  connect(options: Pick<KeeperOptions, 'migration' | 'role' | 'id' | 'onState'>): Promise<FrameKeeper>;
  /** What it knows of migrations with a VM of this name. */
  lookUp(name: string): Promise<FoundMigration[]>;
}

/** One of the checks. */
export interface Check {
  readonly name: string;
  /** Rejects with what is not as it should be. */
  readonly run: (keepers: Conforming) => Promise<void>;
}

/** A frame that cannot be compressed. */
const LONGEST_BODY = frameBound(FRAME_PAGES);

const newId = () => randomBytes(16).toString('hex');

/** Checks, and ends all connections however that goes. */
class Scene {
  readonly migration = newId();
  readonly #keepers: Conforming;
  readonly #open: FrameKeeper[] = [];

  constructor(keepers: Conforming) {
    this.#keepers = keepers;
  }

  async connect(role: 'source' | 'destination' = 'source', more: { id?: string; migration?: string } = {}) {
    const keeper = await this.#keepers.connect({ migration: this.migration, role, ...more });
    this.#open.push(keeper);
    return keeper;
  }

  lookUp(name: string): Promise<FoundMigration[]> {
    return this.#keepers.lookUp(name);
  }

  registration(keeper: FrameKeeper, more: Partial<Registration>): Registration {
    const voters = [{ address: keeper.address, id: keeper.id }];
    const what = { vms: [`vm ${this.migration}`], replicas: 1, parked: true, leaseMs: 60_000, voters, token: null };
    return { ...what, complete: false, frames: 0, ...more };
  }

  async end(): Promise<void> {
    // One that has ended without a word has left what it put.
    await this.connect().catch(() => {});
    for (const keeper of this.#open) {
      if (!keeper.gone) await keeper.drop(20_000).catch(() => {});
      keeper.end();
    }
  }
}

function check(name: string, run: (scene: Scene) => Promise<void>): Check {
  const whole = async (keepers: Conforming) => {
    const scene = new Scene(keepers);
    try {
      await run(scene);
    } finally {
      await scene.end();
    }
  };
  return { name, run: whole };
}

/** Sealed blocks, as a keeper may look at them: it tells damage by the checksum. */
async function blocksOf(...sizes: readonly (readonly [id: number, bytes: number])[]): Promise<Map<number, Uint8Array>> {
  const sealer = await Sealer.create(randomBytes(32), 1);
  const blocks = new Map<number, Uint8Array>();
  for (const [id, bytes] of sizes) {
    const block = sealer.seal(id, randomBytes(bytes));
    blocks.set(id, block.bytes.slice());
    block.release();
  }
  return blocks;
}

async function putAll(keeper: FrameKeeper, blocks: Map<number, Uint8Array>): Promise<void> {
  const puts = [...blocks].map(([id, bytes]) => keeper.put(id, bytes));
  for (const result of await Promise.all(puts)) assert.equal(result.stored, true, JSON.stringify(result));
}

async function expectBlock(keeper: FrameKeeper, id: number, bytes: Uint8Array): Promise<void> {
  const into = new Uint8Array(MAX_FRAME_BYTES);
  const length = await keeper.get(id, into, { deadlineMs: 5_000 });
  assert.equal(length, bytes.byteLength);
  assert.equal(Buffer.compare(into.subarray(0, length), bytes), 0, `block ${id} is not what was put`);
}

async function listed(keeper: FrameKeeper, from: number): Promise<number[]> {
  const all: number[] = [];
  for (let next = from; ; next = all.at(-1)! + 1) {
    const ids = await keeper.list(next);
    if (ids.length === 0) return all;
    all.push(...ids);
  }
}

const isCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

/** What every implementation has to do. */
export const CONFORMANCE: readonly Check[] = [
  check('gives back what was put, of any length, over any connection', async (scene) => {
    const source = await scene.connect();
    const blocks = await blocksOf([1, 1], [2, 4096], [3, LONGEST_BODY], [70_000, 100], [RECORDS_ID, 9]);
    await putAll(source, blocks);
    const destination = await scene.connect('destination', { id: source.id });
    assert.equal(destination.id, source.id);
    for (const [id, bytes] of blocks) await expectBlock(destination, id, bytes);
    await Promise.all([...blocks].map(([id, bytes]) => expectBlock(source, id, bytes)));
  }),
  check('says that it does not have what it does not have', async (scene) => {
    const source = await scene.connect();
    await assert.rejects(source.get(7, new Uint8Array(MAX_FRAME_BYTES)), isCode('FRAME_LOST'));
  }),
  check('keeps the first of two blocks with one id', async (scene) => {
    const source = await scene.connect();
    const first = await blocksOf([5, 1000]);
    await putAll(source, first);
    await putAll(source, await blocksOf([5, 2000]));
    await expectBlock(source, 5, first.get(5)!);
  }),
  check('gives bytes back when it does not need them any more', async (scene) => {
    const source = await scene.connect();
    const [[id, bytes]] = [...(await blocksOf([9, 200_000]))] as [[number, Uint8Array]];
    const copy = bytes.slice();
    await new Promise<void>((resolve, reject) => {
      source.put(id, bytes, [], { onFree: resolve, deadlineMs: 5_000 }).catch(reject);
    });
    bytes.fill(0);
    await expectBlock(source, id, copy);
  }),
  check('lists what it has, ascending, from any id on', async (scene) => {
    const source = await scene.connect();
    const ids = [1, 2, 700, 5000, MANIFEST_ID, RECORDS_ID + 3, STATE_ID + 2 ** 16 + 1];
    await putAll(source, await blocksOf(...ids.map((id) => [id, 50] as const)));
    const destination = await scene.connect('destination');
    assert.deepEqual(await listed(destination, 1), ids);
    assert.deepEqual(await listed(destination, 3), ids.slice(2));
    assert.deepEqual(await listed(destination, MANIFEST_ID + 1), ids.slice(5));
  }),
  check('keeps migrations apart', async (scene) => {
    const source = await scene.connect();
    const other = await scene.connect('source', { migration: newId() });
    await putAll(source, await blocksOf([1, 10]));
    await assert.rejects(other.get(1, new Uint8Array(MAX_FRAME_BYTES)), isCode('FRAME_LOST'));
    await other.drop();
    assert.deepEqual(await listed(source, 1), [1]);
  }),
  check('finds a migration by the names of its VMs, as its source registered it', async (scene) => {
    const source = await scene.connect();
    const [name] = scene.registration(source, {}).vms as [string];
    assert.deepEqual(await scene.lookUp(name), []);
    await source.register(scene.registration(source, {}));
    const [begun] = await scene.lookUp(name);
    assert.ok(begun, 'it was not found');
    assert.equal(begun.migration, scene.migration);
    assert.deepEqual([begun.complete, begun.sourceConnected, begun.claimed], [false, true, null]);
    await putAll(source, await blocksOf([1, 10]));
    await source.register(scene.registration(source, { complete: true, frames: 1 }));
    const [whole] = await scene.lookUp(name);
    assert.deepEqual([whole!.complete, whole!.frames, whole!.voters], [true, 1, begun.voters]);
    assert.ok(whole!.expiresInMs > 50_000 && whole!.expiresInMs <= 61_000, `it stays for ${whole!.expiresInMs} ms`);
    assert.deepEqual(await scene.lookUp(`${name} too`), []);
  }),
  check('refuses a second parked VM of a name', async (scene) => {
    const source = await scene.connect();
    await source.register(scene.registration(source, {}));
    const other = await scene.connect('source', { migration: newId() });
    const refused = (error: unknown) => peerCode(error) === 'USAGE';
    await assert.rejects(other.register(scene.registration(other, {})), refused);
  }),
  check('grants a claim once, and to the next when it is given back', async (scene) => {
    const source = await scene.connect();
    await source.register(scene.registration(source, { complete: true }));
    const [one, two] = [await scene.connect('destination'), await scene.connect('destination')];
    const [a, b] = [newId(), newId()];
    const claims = await Promise.all([one.claim(a, 'a'), two.claim(b, 'b')]);
    assert.equal(claims.filter(({ granted }) => granted).length, 1, JSON.stringify(claims));
    const [winner, loser] = claims[0]!.granted ? [a, b] : [b, a];
    assert.equal(claims.find(({ granted }) => !granted)!.by, winner === a ? 'a' : 'b');
    assert.equal((await one.claim(winner, 'again')).granted, true);
    assert.equal((await two.claim(loser, 'c', { forGood: true })).granted, false);
    assert.equal((await scene.lookUp(`vm ${scene.migration}`))[0]!.claimed, 'again');
    await two.release(loser, 'c');
    assert.equal((await two.claim(loser, 'c')).granted, false, 'whoever has it not cannot give it back');
    await one.release(winner, 'again');
    assert.equal((await two.claim(loser, 'c', { forGood: true })).granted, true);
  }),
  check('holds a claim of the destination that the source chose', async (scene) => {
    const source = await scene.connect();
    const token = newId();
    await source.register(scene.registration(source, { token, parked: false }));
    const destination = await scene.connect('destination');
    assert.equal((await destination.claim(newId(), 'another')).granted, false);
    assert.equal((await destination.claim(token, 'the one')).granted, true);
  }),
  check('says that it is there, and how much room there is', async (scene) => {
    const source = await scene.connect();
    assert.equal(await source.ping(2_000), true);
    assert.ok(source.open && source.gone === null && source.freeBytes > 0 && source.copies >= 1);
    const [result] = await Promise.all([source.put(1, (await blocksOf([1, 10])).get(1)!)]);
    assert.ok(result!.stored && result.freeBytes.length === source.copies);
  }),
  check('forgets a migration when it is dropped, and has another id for what comes after', async (scene) => {
    const source = await scene.connect();
    await source.register(scene.registration(source, {}));
    await putAll(source, await blocksOf([1, 10], [2, 10], [MANIFEST_ID, 10]));
    const destination = await scene.connect('destination');
    assert.equal((await destination.drop()).frames, 3);
    assert.deepEqual(await scene.lookUp(`vm ${scene.migration}`), []);
    await assert.rejects(scene.connect('destination', { id: source.id }), isSurelyGone);
    // Whoever had put it learns of it, sooner or later.
    for (let left = 100; left > 0 && !source.gone; left--) {
      await source.ping(1_000);
      await source.put(4, new Uint8Array(100)).catch(() => {});
      await sleep(100);
    }
    assert.ok(source.gone?.surely, 'the source was not told');
  }),
  check('lengthens and shortens a lease, and forgets everything at its end', async (scene) => {
    const source = await scene.connect();
    await putAll(source, await blocksOf([1, 10]));
    await source.register(scene.registration(source, { complete: true, frames: 1 }));
    source.end();
    const destination = await scene.connect('destination');
    // Renewed while somebody is connected: long enough that a busy machine is not late with that.
    const leaseMs = 3_000;
    const { expiresInMs } = await destination.lease(leaseMs);
    assert.ok(expiresInMs > 0 && expiresInMs <= leaseMs, `it stays for ${expiresInMs} ms`);
    await sleep(1.5 * leaseMs);
    await expectBlock(destination, 1, await first(destination));
    destination.end();
    await sleep(2.5 * leaseMs);
    assert.deepEqual(await scene.lookUp(`vm ${scene.migration}`), []);
    await assert.rejects(scene.connect('destination', { id: source.id }), isSurelyGone);
  }),
  check('asks nothing of whoever has ended', async (scene) => {
    const source = await scene.connect();
    source.end();
    assert.equal(source.open, false);
    await assert.rejects(source.put(1, new Uint8Array(10)), isCode('PEER_GONE'));
    await assert.rejects(async () => source.get(1, new Uint8Array(10)), isCode('PEER_GONE'));
  }),
];

async function first(keeper: FrameKeeper): Promise<Uint8Array> {
  const into = new Uint8Array(MAX_FRAME_BYTES);
  return into.subarray(0, await keeper.get(1, into));
}
