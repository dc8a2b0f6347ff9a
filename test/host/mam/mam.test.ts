// The client's side of the MAM: which node takes a frame.
import { afterEach, describe, expect, test } from 'vitest';
import { Mam } from '#abdm/host/mam/mam.js';
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

const frame = new Uint8Array(1000);

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
