// The client's side of the MAM: what a node may say and when, and which node takes a frame.
import { afterEach, describe, expect, test } from 'vitest';
import { Mam } from '#abdm/host/mam/mam.js';
import { MamNode } from '#abdm/host/mam/node.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, type MessageHeader, MessageType } from '#abdm/host/wire/messages.js';

const MIGRATION = 'ab'.repeat(16);
const listeners: Listener[] = [];

afterEach(async () => {
  await Promise.all(listeners.splice(0).map((listener) => listener.close()));
});

/** A node that says WELCOME, and then what `answer` says. */
async function fakeNode(answer: (header: MessageHeader, channel: Channel) => void, freeBytes = 1e9): Promise<string> {
  const listener = await listen('127.0.0.1:0', () => ({
    onMessage(header, _body, channel) {
      if (header.type !== MessageType.HELLO) return answer(header, channel);
      const welcome = { protocol: 2, role: 'intermediate', id: 'cd'.repeat(16), freeBytes, memoryBytes: freeBytes };
      channel.send(MessageType.WELCOME, 0, encodeJson(welcome));
    },
  }));
  listeners.push(listener);
  return `127.0.0.1:${listener.address.port}`;
}

const connectTo = (address: string, answerMs = 60_000) =>
  MamNode.connect(address, { migration: MIGRATION, role: 'source', answerMs });
const frame = new Uint8Array(1000);

describe('a node', () => {
  test('that takes a frame and never says so is given up', async () => {
    const node = await connectTo(await fakeNode(() => {}), 100);
    await expect(node.put(1, frame)).rejects.toMatchObject({
      code: 'PEER_GONE',
      message: /has not answered for 100 ms/,
    });
    expect(node.open).toBe(false);
    await expect(node.put(2, frame)).rejects.toMatchObject({ code: 'PEER_GONE' });
  });

  test('that answers in time, again and again, is not', async () => {
    const slow = await fakeNode(({ id }, channel) => {
      setTimeout(() => channel.send(MessageType.STORED, id, encodeU64s(5)), 60 * id);
    });
    const node = await connectTo(slow, 150);
    await Promise.all([1, 2, 3, 4, 5].map((id) => node.put(id, frame)));
    expect(node.stored).toEqual({ frames: 5, bytes: 5000 });
    expect([node.freeBytes, node.outstandingBytes]).toEqual([5, 0]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(node.open).toBe(true);
    node.end();
  });

  test('that answers what it was not asked, or too much, is left', async () => {
    const cases: [string, (header: MessageHeader, channel: Channel) => void][] = [
      ['STORED for frame 8', (_, channel) => channel.send(MessageType.STORED, 8, encodeU64s(1))],
      ['frame 8, which nobody asked for', (_, channel) => channel.send(MessageType.FRAME, 8, frame)],
      ['too many', (_, channel) => channel.send(MessageType.FRAME, 7, new Uint8Array(2000))],
      ['MISSING for frame 8', (_, channel) => channel.send(MessageType.MISSING, 8)],
      ['GET for frame 7', (_, channel) => channel.send(MessageType.GET, 7)],
    ];
    for (const [text, answer] of cases) {
      const node = await connectTo(await fakeNode(answer));
      await expect(node.get(7, new Uint8Array(1000)), text).rejects.toMatchObject({
        code: 'PROTOCOL',
        message: expect.stringContaining(text),
      });
    }
  });

  test('that refuses says whether it has no room or dislikes the frame', async () => {
    const address = await fakeNode(({ id }, channel) => {
      const code = id === 1 ? 'NO_ROOM' : 'FRAME_CHECKSUM';
      channel.send(MessageType.REFUSED, id, encodeJson({ code, message: 'no', freeBytes: 17 }));
    });
    const node = await connectTo(address);
    expect(await node.put(1, frame)).toEqual({ stored: false, code: 'NO_ROOM', message: 'no', node: address });
    expect(node.freeBytes).toBe(17);
    expect(await node.put(2, frame)).toMatchObject({ stored: false, code: 'FRAME_CHECKSUM' });
    expect(node.outstandingBytes).toBe(0);
    node.end();
  });

  test('that does not have a frame says so', async () => {
    const node = await connectTo(await fakeNode(({ id }, channel) => channel.send(MessageType.MISSING, id)));
    await expect(node.get(3, new Uint8Array(10))).rejects.toMatchObject({ code: 'FRAME_LOST' });
    node.end();
  });
});

describe('a frame', () => {
  test('goes to nodes by its place in the image, by their memory, and past those that are busy or full', async () => {
    const silent = () => {};
    const nodes = [await fakeNode(silent, 100e6), await fakeNode(silent, 100e6), await fakeNode(silent, 200e6)];
    const mam = await Mam.connect(nodes, MIGRATION, 'source');
    const picks = Array.from({ length: 2000 }, (_, extent) => mam.choose(0, extent * 64, 1000));
    // The same place, the same node; within an extent too.
    expect(mam.choose(0, 5 * 64 + 63, 1000)).toBe(picks[5]);
    const share = (node: number) => picks.filter((pick) => pick === node).length / 2000;
    expect(share(0)).toBeCloseTo(0.25, 1);
    expect(share(1)).toBeCloseTo(0.25, 1);
    expect(share(2)).toBeCloseTo(0.5, 1);
    // The best one's window is full: the next one takes it; all are full: nobody does, for now.
    const best = picks[0]!;
    void mam.nodes[best]!.put(1, new Uint8Array(260_000)).catch(() => {});
    for (let id = 2; id <= 16; id++) void mam.nodes[best]!.put(id, new Uint8Array(260_000)).catch(() => {});
    const second = mam.choose(0, 0, 260_000);
    expect(second).not.toBe(best);
    mam.markFull(second);
    const third = mam.choose(0, 0, 260_000);
    expect(new Set([best, second, third]).size).toBe(3);
    mam.markFull(third);
    expect(mam.choose(0, 0, 260_000)).toBe(-1);
    mam.markFull(best);
    expect(() => mam.choose(0, 0, 260_000)).toThrow(expect.objectContaining({ code: 'NO_ROOM' }));
    mam.end();
  });

  test('that was acknowledged by a node that is gone is missed', async () => {
    const address = await fakeNode(({ type, id }, channel) => {
      if (type === MessageType.PUT && id === 1) channel.send(MessageType.STORED, id, encodeU64s(1e9));
      else channel.end();
    });
    const mam = await Mam.connect([address], MIGRATION, 'source');
    mam.requireHolders();
    await mam.nodes[0]!.put(1, frame);
    mam.requireHolders();
    await expect(mam.nodes[0]!.put(2, frame)).rejects.toMatchObject({ code: 'PEER_GONE' });
    expect(() => mam.requireHolders()).toThrow(expect.objectContaining({ code: 'FRAME_LOST' }));
  });
});
