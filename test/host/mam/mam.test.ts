// The client's side of the MAM: which nodes take a block, and what becomes of it when they do not.
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { Courier } from '#abdm/host/mam/courier.js';
import { NodeIndex } from '#abdm/host/mam/index.js';
import type { FrameKeeper } from '#abdm/host/mam/keeper.js';
import { Mam } from '#abdm/host/mam/mam.js';
import type { Member } from '#abdm/host/mam/member.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Window, windowLimits } from '#abdm/host/mam/window.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { MAX_FRAME_BYTES, type MessageHeader, MessageType } from '#abdm/host/wire/messages.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { until } from '../wire/pair.js';
import { type FakeNode, Fakes, silent, stored } from './fakes.js';

const MIGRATION = 'ab'.repeat(16);
const NOBODY: ReadonlySet<Member> = new Set();
const fakes = new Fakes();
const fakeNode = (...how: Parameters<Fakes['node']>) => fakes.node(...how);

afterEach(() => fakes.end());

async function open(nodes: readonly FakeNode[], replicas = 1) {
  const index = await NodeIndex.open({ security: OPEN, listed: nodes.map(({ address }) => address) });
  const gone: string[] = [];
  const errors: unknown[] = [];
  let courier: Courier | undefined;
  const mam = await Mam.open({
    index,
    replicas,
    dial: (address, onState) => MamNode.connect(address, { migration: MIGRATION, role: 'source', onState }),
    onJoin: () => {},
    onGone: ({ address }) => gone.push(address),
    onChange: () => courier?.pump(),
  });
  courier = new Courier({ mam, onSlow: () => {}, onError: (error) => errors.push(error) });
  onTestFinished(() => {
    courier?.stop();
    mam.end();
    index.close();
  });
  await mam.ready(new AbortController().signal);
  return { mam, courier, index, gone, errors };
}

/** A block that remembers whether it was given back. */
function block(id: number, bytes = 1000) {
  const made = { id, bytes: new Uint8Array(bytes), released: 0, release: () => void made.released++ };
  return made;
}

/** A store, as far as placement knows it. */
function store(address: string, copies: number): FrameKeeper {
  const stored = { stored: true, freeBytes: Array.from({ length: copies }, () => 1e9) } as const;
  const put: FrameKeeper['put'] = async (_id, _block, _chain, options) => {
    options?.onFree?.();
    return stored;
  };
  const nothing = { gone: null, open: true, bytesOut: 0, end() {}, abandon() {} };
  const id = address.replace(/\W/g, '').padEnd(32, '0').slice(0, 32);
  return { ...nothing, address, id, copies, chains: false, freeBytes: 1e9, put } as unknown as FrameKeeper;
}

describe('stores', () => {
  async function openWith(stores: readonly FrameKeeper[], nodes: readonly FakeNode[], replicas: number) {
    const listed = [...stores, ...nodes].map(({ address }) => address);
    const index = await NodeIndex.open({ security: OPEN, listed });
    const mam = await Mam.open({
      index,
      replicas,
      dial: async (address, onState) => {
        const found = stores.find((one) => one.address === address);
        return found ?? MamNode.connect(address, { migration: MIGRATION, role: 'source', onState });
      },
      onJoin: () => {},
      onGone: () => {},
      onChange: () => {},
    });
    const courier = new Courier({ mam, onSlow: () => {}, onError: () => {} });
    onTestFinished(() => {
      courier.stop();
      mam.end();
      index.close();
    });
    return { mam, courier };
  }

  test('and nodes do not stand in one chain; a store that makes all copies stands alone', async () => {
    const nodes = await Promise.all([1, 2].map(() => fakeNode(stored)));
    const { mam } = await openWith(
      [store('valkey://a', 2), store('memcached://b', 1), store('memcached://c', 1)],
      nodes,
      2,
    );
    await mam.ready(new AbortController().signal);
    const kinds = new Set<string>();
    for (let key = 0; key < 200; key++) {
      const chain = mam.choose(key, 1000, NOBODY) as Member[];
      kinds.add(
        chain
          .map(({ address }) => address.replace(/:.*/, ''))
          .sort()
          .join(),
      );
    }
    expect([...kinds].sort()).toEqual(['127.0.0.1,127.0.0.1', 'memcached,memcached', 'valkey']);
  });

  test('are each given a block that several of them keep', async () => {
    const { mam, courier } = await openWith([store('memcached://b', 1), store('memcached://c', 1)], [], 2);
    await mam.ready(new AbortController().signal);
    const one = block(1);
    const chain = await courier.send(one, 5);
    expect(chain.map(({ stored }) => stored.frames)).toEqual([1, 1]);
    await until(() => one.released === 1);
  });

  test('are too few where they cannot make as many copies as are wanted, whatever nodes there are', async () => {
    const nodes = await Promise.all([1].map(() => fakeNode(stored)));
    const { mam } = await openWith([store('memcached://b', 1)], nodes, 2);
    const stop = new AbortController();
    const ready = mam.ready(stop.signal);
    setTimeout(() => stop.abort(new Error('enough')), 600);
    await expect(ready).rejects.toThrow('enough');
    expect(mam.choose(1, 1000, NOBODY)).toBe('none');
  });
});

describe('placement', () => {
  test('is by the place in the image and by free memory', async () => {
    const nodes = await Promise.all([100e6, 100e6, 200e6].map((freeBytes) => fakeNode(silent, freeBytes)));
    const { mam } = await open(nodes);
    const pick = (key: number) => (mam.choose(key, 1000, NOBODY) as Member[])[0]!.address;
    const picks = Array.from({ length: 2000 }, (_, key) => pick(key));
    expect(pick(5)).toBe(picks[5]);
    const share = (i: number) => picks.filter((address) => address === nodes[i]!.address).length / 2000;
    expect(share(0)).toBeCloseTo(0.25, 1);
    expect(share(1)).toBeCloseTo(0.25, 1);
    expect(share(2)).toBeCloseTo(0.5, 1);
  });

  test('passes over nodes whose windows are full, and those without room', async () => {
    const nodes = await Promise.all([1, 2, 3].map(() => fakeNode(silent)));
    const { mam } = await open(nodes);
    const [first, second, third] = mam.best(7) as [Member, Member, Member];
    expect(mam.choose(7, 260_000, NOBODY)).toEqual([first]);
    first.window.sent(600_000);
    expect(mam.choose(7, 260_000, NOBODY)).toEqual([second]);
    second.tell(100);
    expect(mam.choose(7, 260_000, NOBODY)).toEqual([third]);
    third.full();
    expect(mam.choose(7, 260_000, NOBODY)).toBe('busy');
    first.full();
    expect(mam.choose(7, 260_000, NOBODY)).toBe('none');
  });

  test('makes chains of different nodes, and none where there are too few', async () => {
    const nodes = await Promise.all([1, 2, 3].map(() => fakeNode(silent)));
    const { mam } = await open(nodes, 2);
    for (let key = 0; key < 50; key++) {
      const chain = mam.choose(key, 1000, NOBODY) as Member[];
      expect(chain).toHaveLength(2);
      expect(chain).toEqual(mam.best(key).slice(0, 2));
    }
    const [first, second] = mam.best(1);
    expect(mam.choose(1, 1000, new Set([first!, second!]))).toBe('none');
    await nodes[0]!.kill();
    await nodes[1]!.kill();
    await until(() => mam.choose(1, 1000, NOBODY) === 'none');
  });

  test('waits for as many nodes as are needed, and says how each stands', async () => {
    const here = await fakeNode(silent);
    const away = await fakeNode(silent);
    await away.kill();
    await expect(open([here, away], 2)).rejects.toMatchObject({
      code: 'NO_ROOM',
      message: expect.stringMatching(new RegExp(`2 nodes are needed.*${away.address}.*nothing listens`)),
    });
  });
});

describe('a block', () => {
  test('is delivered when the chain has it, and given back then', async () => {
    const { courier } = await open([await fakeNode(stored), await fakeNode(silent)], 1);
    const sent = block(1);
    const chain = await courier.send(sent, 1).then((members) => members.length);
    expect(chain).toBe(1);
    await until(() => sent.released === 1);
    expect(courier.outstanding).toBe(0);
  });

  test('that is refused goes to another node', async () => {
    const refusing = (code: string) => (header: MessageHeader, channel: Channel) => {
      channel.send(MessageType.REFUSED, header.id, encodeJson({ code, message: 'no', freeBytes: 1e9 }));
    };
    const nodes = [
      await fakeNode(refusing('NO_ROOM')),
      await fakeNode(refusing('FRAME_CHECKSUM')),
      await fakeNode(stored),
    ];
    const { courier } = await open(nodes);
    for (let id = 1; id <= 40; id++) {
      const sent = block(id);
      const [holder] = await courier.send(sent, id);
      expect(holder!.address).toBe(nodes[2]!.address);
      await until(() => sent.released === 1);
    }
    expect(nodes[0]!.puts.length + nodes[1]!.puts.length).toBe(courier.resent);
    expect(courier.resent).toBeGreaterThan(5);
  });

  test('that every node refuses ends it', async () => {
    const { courier, errors } = await open([
      await fakeNode(({ id }, channel) => {
        const refusal = { code: 'FRAME_CHECKSUM', message: 'damaged', freeBytes: 1e9 };
        channel.send(MessageType.REFUSED, id, encodeJson(refusal));
      }),
    ]);
    void courier.send(block(1), 1);
    await until(() => errors.length > 0);
    expect(errors[0]).toMatchObject({ code: 'PEER_ABORTED', message: /damaged \(FRAME_CHECKSUM\)/ });
  });

  describe('that a node cannot bring to another one', () => {
    /** So many nodes of which those that `isCutOff` say of every block, so often, that they do not reach another one. */
    async function unreached(count: number, isCutOff: (i: number) => boolean, times: number) {
      const nodes: FakeNode[] = [];
      let refusals = 0;
      for (let i = 0; i < count; i++) {
        const answer = (header: MessageHeader, channel: Channel) => {
          if (!isCutOff(i) || refusals === times) return stored(header, channel);
          const node = nodes[(i + 1 + (refusals++ % (count - 1))) % count]!.address;
          const refusal = { code: 'PEER_UNREACHABLE', message: 'does not answer', freeBytes: 1e9, node };
          channel.send(MessageType.REFUSED, header.id, encodeJson(refusal));
        };
        nodes.push(await fakeNode(answer));
      }
      return { nodes, refusals: () => refusals, ...(await open(nodes, count)) };
    }

    test('goes from that one to it', async () => {
      const { nodes, refusals, courier, mam } = await unreached(4, (i) => i === 0, Number.POSITIVE_INFINITY);
      const key = Array.from({ length: 200 }, (_, i) => i).find((i) => mam.best(i)[0]!.address === nodes[0]!.address)!;
      const chain = await courier.send(block(1), key);
      expect(chain.at(-1)!.address).toBe(nodes[0]!.address);
      expect(refusals()).toBe(1);
    });

    test('is not given up soon, however often they say so', async () => {
      const { refusals, courier, errors } = await unreached(2, () => true, 9);
      const chain = await courier.send(block(1), 1);
      expect([chain.length, refusals(), errors]).toEqual([2, 9, []]);
    }, 30_000);
  });

  test('that is at a node which falls silent goes to another one after 3 s, at the end much sooner', async () => {
    let says = true;
    const slow = await fakeNode((header, channel) => says && stored(header, channel));
    const fast = await fakeNode(stored);
    const { courier, mam } = await open([slow, fast]);
    for (let id = 1; id <= 64; id++) await courier.send(block(id), id);
    const key = Array.from({ length: 100 }, (_, i) => i).find((i) => mam.best(i)[0]!.address === slow.address)!;
    says = false;
    const begun = performance.now();
    expect((await courier.send(block(100), key))[0]!.address).toBe(fast.address);
    expect(performance.now() - begun).toBeGreaterThan(2_500);
    // It has answered to PING since: nobody knows yet that it does nothing else.
    await until(() => mam.best(key).some((member) => member.address === slow.address));
    courier.hurry = true;
    const hurried = performance.now();
    expect((await courier.send(block(101), key))[0]!.address).toBe(fast.address);
    expect(performance.now() - hurried).toBeLessThan(2_000);
  });

  test('that is at a node which is killed goes to another one, and its bytes stay until no socket takes from them', async () => {
    const nodes = [await fakeNode(silent), await fakeNode(silent)];
    const { courier, gone, mam } = await open(nodes);
    const sent = block(1, 260_000);
    const delivered = courier.send(sent, 1);
    const first = nodes.find(({ address }) => address === mam.best(1)[0]!.address)!;
    const second = nodes.find((node) => node !== first)!;
    await until(() => first.puts.length === 1);
    await first.kill();
    await until(() => second.puts.length === 1);
    expect(gone).toEqual([first.address]);
    expect(sent.released).toBe(0);
    void delivered;
  });
});

describe('a window', () => {
  test('lets as many bytes be on their way, whatever the size of frames', () => {
    expect([windowLimits().frames, windowLimits(true).frames]).toEqual([16, 64]);
    const window = new Window(windowLimits(true));
    for (let i = 0; i < 64; i++) {
      expect(window.isFull).toBe(false);
      window.sent(100);
    }
    expect(window.isFull).toBe(true);
  });

  test('reaches as far ahead as it is told, from then on', async () => {
    const limits = windowLimits();
    const window = new Window(limits);
    const settle = async () => {
      for (let i = 0; i < 6; i++) {
        window.sent(1_000_000);
        await new Promise((resolve) => setTimeout(resolve, 60));
        window.settled(1_000_000, 0);
      }
    };
    await settle();
    // About 16 MB a second.
    expect(window.bytes).toBeGreaterThan(600_000);
    const before = window.bytes;
    limits.aheadMs = 10;
    expect(window.bytes).toBe(2 * MAX_FRAME_BYTES);
    limits.minBytes = 140_000;
    expect(window.bytes).toBeCloseTo(Math.max(140_000, before / 10), -2);
  });

  test('follows what the node acknowledges, between two frames and 8 MiB', async () => {
    const window = new Window(windowLimits());
    expect(window.hasRoom(264_000)).toBe(true);
    window.sent(264_000);
    expect(window.hasRoom(264_000)).toBe(true);
    window.sent(264_000);
    expect(window.hasRoom(264_000)).toBe(false);
    // About 5 MB a second: less than two frames in a tenth of one.
    for (let i = 0; i < 8; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      window.settled(100_000, 1);
      window.sent(100_000);
    }
    expect(window.bytes).toBeLessThan(1.5e6);
    // As fast as a machine can say so.
    const until = performance.now() + 200;
    while (performance.now() < until) {
      window.sent(264_000);
      window.settled(264_000, 1);
    }
    expect(window.bytes).toBe(8 * 2 ** 20);
    expect(window.outstandingBytes).toBe(528_000);
  });
});
