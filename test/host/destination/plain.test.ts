// Frames that go straight to a destination where connections are secured: over a plain one beside the one that speaks TLS.
import { afterEach, expect, onTestFinished, test } from 'vitest';
import type { Merger } from '#abdm/bindings/merger.js';
import { SourceControl } from '#abdm/host/destination/control.js';
import { FrameLane } from '#abdm/host/destination/frames.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { connect } from '#abdm/host/wire/connect.js';
import { decodeJson, encodeJson } from '#abdm/host/wire/json.js';
import { MAX_FRAME_BYTES, MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import { RateLimit } from '#abdm/host/wire/rate.js';
import type { Security } from '#abdm/host/wire/security.js';
import { needTicket } from '#abdm/host/wire/tickets.js';
import { range } from '../intermediate/cluster.js';
import { cleanUp, Probe, pattern, same, until } from '../wire/pair.js';
import { Way } from '../wire/way.js';

afterEach(cleanUp);

const KEY: Security = { clusterKey: pattern(32, 77_777), tls: null };
const MIGRATION = 'ab'.repeat(16);
const BYTES = 100_000;

/** A destination that takes frames and merges nothing; some of its slots may be out. */
async function destination() {
  const got = { frames: new Set<number>(), lanes: 0, slots: 4, filled: 0 };
  const merger = {
    get freeSlots() {
      return got.slots;
    },
    acquire: () => {
      got.slots--;
      return { bytes: new Uint8Array(MAX_FRAME_BYTES), release: () => got.slots++ };
    },
  } as unknown as Merger;
  const control = await SourceControl.listen('127.0.0.1:0', KEY, MIGRATION, {
    onImages: async () => [null],
    onReady: () => {},
    onDiscard: () => {},
    onState: () => null,
    onRun: async () => {},
    onVmOver: () => {},
    onNodes: () => {},
    onRecords: () => {},
    onDivided: () => {},
    onLost: () => {},
    onError: () => {},
    onFrames: () => {
      got.lanes++;
      return new FrameLane(
        { merger, limit: new RateLimit(), isUrgent: false, spareSlots: 0, isHeld: () => false, isBusy: () => false },
        {
          onFilled: () => {
            got.filled++;
          },
          onFrame: (id, slot, bytes) => {
            if (same(slot.bytes.subarray(0, bytes), pattern(BYTES, id))) got.frames.add(id);
            return null;
          },
          onClose: () => got.lanes--,
        },
      );
    },
  });
  const way = await Way.to(control.address);
  onTestFinished(async () => {
    await control.close();
    await way.close();
  });
  return { got, way };
}

const puts = (node: MamNode, ids: number[]) => Promise.all(ids.map((id) => node.put(id, pattern(BYTES, id))));

test('they do, and whichever of the two breaks, both are made again', async () => {
  const { got, way } = await destination();
  const node = await MamNode.connect(way.address, { migration: MIGRATION, role: 'frames', security: KEY });
  for (const [round, kind] of (['plain', 'tls', 'plain', 'tls'] as const).entries()) {
    const all = puts(node, range(30, 1 + 30 * round));
    await until(() => got.frames.size > 30 * round + 5);
    way.reset(kind);
    expect((await all).every(({ stored }) => stored)).toBe(true);
  }
  expect(got.frames.size).toBe(120);
  expect(way.connections.tls).toBeGreaterThan(4);
  expect(way.heard('plain').byteLength).toBeGreaterThan(120 * BYTES);
  expect(way.heard('tls').byteLength).toBeLessThan(50_000);
  await until(() => got.lanes === 1);
  node.end();
  await until(() => got.lanes === 0);
  expect(got.slots).toBe(4);
});

test('some of them say that they fill the link', async () => {
  const { got, way } = await destination();
  const node = await MamNode.connect(way.address, { migration: MIGRATION, role: 'frames', security: KEY });
  for (const id of range(6, 1)) await node.put(id, pattern(BYTES, id), [], { fills: id > 4 });
  expect(got.frames.size).toBe(6);
  expect(got.filled).toBe(2);
  node.end();
});

const { HELLO, DROP, CHAIN, GET, PUT, REGISTER } = MessageType;
test.each<[string, MessageType, 'plain' | 'tls', number?, Uint8Array?]>([
  ['HELLO', HELLO, 'plain', 0, encodeJson({ protocol: PROTOCOL_VERSION, role: 'source', migration: MIGRATION })],
  ['DROP', DROP, 'plain'],
  ['CHAIN', CHAIN, 'plain', 0, encodeJson({})],
  ['GET', GET, 'plain', 1],
  ['REGISTER', REGISTER, 'plain', 0, encodeJson({})],
  ['PUT', PUT, 'tls', 1, pattern(BYTES, 1)],
])('%s is not taken on the wrong one, %# (type %i, %s)', async (_, type, where, id = 0, body = undefined) => {
  const { got, way } = await destination();
  const [first, second] = [new Probe(), new Probe()];
  const talk = await connect(way.address, first, { security: KEY, lingerMs: 200 });
  talk.send(HELLO, 0, encodeJson({ protocol: PROTOCOL_VERSION, role: 'frames', migration: MIGRATION }));
  await until(() => first.messages.length > 0);
  const ticket = needTicket(decodeJson(first.messages[0]!.body, 'WELCOME'), 'ticket', 'WELCOME')!;
  const plain = await connect(way.address, second, { ticket, lingerMs: 200 });
  plain.send(MessageType.PING, 0);
  await until(() => second.messages.length > 0);
  (where === 'plain' ? plain : talk).send(type, id, body);
  const [wrong, other] = where === 'plain' ? [second, first] : [first, second];
  expect(await wrong.closed).toMatchObject({ code: 'PEER_ABORTED', cause: { code: 'PROTOCOL' } });
  // The other one ends too.
  await other.closed;
  await until(() => got.lanes === 0);
  expect([got.frames.size, got.slots]).toEqual([0, 4]);
});
