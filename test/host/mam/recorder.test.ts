// The index of frames that come, are lost and come again while their records are on their way.
import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { readRecords } from '#abdm/host/mam/catalog.js';
import type { Chain, Courier } from '#abdm/host/mam/courier.js';
import { type Kept, Ledger } from '#abdm/host/mam/ledger.js';
import { Recorder } from '#abdm/host/mam/recorder.js';
import { type Block, Opener, Sealer } from '#abdm/host/mam/seal.js';

const key = new Uint8Array(randomBytes(32));

/** A recorder whose blocks are delivered when the test says so. */
async function make() {
  const sent: { bytes: Uint8Array; block: Block; deliver(chain: Chain): void }[] = [];
  const send = (block: Block) =>
    new Promise<Chain>((deliver) => sent.push({ bytes: block.bytes.slice(), block, deliver }));
  const recorder = new Recorder(await Sealer.create(key, 4), { send } as unknown as Courier, () => {});
  const opener = await Opener.create(key);
  const recorded = (i: number) => {
    const { block, bytes } = sent[i]!;
    const read: [id: number, meta: boolean | 'void'][] = [];
    const body = bytes.subarray(0, opener.open(block.id, bytes));
    readRecords(body, [{ pages: 1000 }], ({ frameId, state }, _holders, meta) => {
      read.push([frameId, state === 'void' ? state : meta !== null]);
    });
    return read;
  };
  return { recorder, sent, recorded };
}

function direct(id: number): Kept {
  const at = { vm: 0, base: 64 * (id - 1), pages: 64, deltas: undefined, references: [], bytes: 1000 };
  const going = { isPinned: false, isStraight: true, isDoubtful: false };
  return { id, ...at, ...going, generation: 0, state: 'kept', holders: 'destination', meta: new Uint8Array(700) };
}

const chain = [{ address: '127.0.0.1:1', id: 'ab'.repeat(16), gone: false }] as unknown as Chain;
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('a frame that is lost before its record is sent, and made anew, is recorded anew', async () => {
  const { recorder, sent, recorded } = await make();
  const frame = direct(1);
  const ledger = new Ledger();
  recorder.add(frame);
  // Lost, and on its way again: its record is of the first making.
  ledger.forget(frame);
  frame.meta = new Uint8Array(600);
  recorder.flush();
  sent[0]!.deliver(chain);
  await settled();
  expect(recorder.idle).toBe(true);
  // The destination takes the second making: what it needs for the record is still there.
  ledger.keep(frame, 'destination');
  recorder.add(frame);
  recorder.flush();
  expect(recorded(1)).toEqual([[1, true]]);
  sent[1]!.deliver(chain);
  await settled();
  expect(frame.meta).toBeUndefined();
  // Told once more, it is recorded already.
  recorder.add(frame);
  recorder.flush();
  expect(sent).toHaveLength(2);
  recorder.stop();
});

test('a frame that never comes is recorded so, after what was said of it, and again when nobody has that any more', async () => {
  const { recorder, sent, recorded } = await make();
  const ledger = new Ledger();
  const [frame, other] = [direct(1), direct(2)];
  for (const one of [frame, other]) recorder.add(one);
  recorder.flush();
  ledger.void(frame);
  recorder.add(frame);
  expect(recorder.idle).toBe(false);
  recorder.flush();
  expect([recorded(0), recorded(1)]).toEqual([
    [
      [1, true],
      [2, true],
    ],
    [[1, 'void']],
  ]);
  const gone = [{ ...chain[0], gone: true }] as unknown as Chain;
  sent[0]!.deliver(gone);
  sent[1]!.deliver(gone);
  await settled();
  expect(recorder.idle).toBe(true);
  // What went to the destination cannot be proved any more; what never comes can.
  expect(recorder.recover()).toEqual([other]);
  recorder.flush();
  expect(recorded(2)).toEqual([[1, 'void']]);
  recorder.stop();
});
