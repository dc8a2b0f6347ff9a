// Damages streams, and holds the parser to its promise: what it does not refuse with a coded error it has understood, so that what is written of it again
// means the same, byte for byte of memory and device state.
import { performance } from 'node:perf_hooks';
import { AbdmError } from '#abdm/bindings/errors.js';
import { StreamParser } from '#abdm/host/qemu/stream.js';
import { seeded } from '../../engine.js';
import { Digest, digestOf, Relay } from './events.js';

/** Nothing takes longer than this; a machine that is busy with other things is slower, but not by that much. */
const LIMIT_MS = 20_000;

/** Where a stream is not the content of a page. */
function structureOf(stream: Uint8Array): number[] {
  const content = new Uint8Array(stream.length);
  const handler = new Digest();
  handler.onPage = (_block, _offset, _bytes, at) => void content.fill(1, at, at + 4096);
  new StreamParser(handler).feed(stream);
  return Array.from(content.keys()).filter((at) => content[at] === 0);
}

/** @throws {Error} if one is accepted and means something else, names no reason, or takes for ever. */
export function tryMutations(stream: Uint8Array, count: number, seed: number): { refused: number; meant: number } {
  const random = seeded(seed);
  const structure = structureOf(stream);
  // The first bytes have most of what can be wrong; device state, the most of the rest, is nobody's business.
  const place = () => {
    const where = random() % 4;
    if (where === 0) return random() % stream.length;
    return structure[random() % (where === 1 ? structure.length : Math.min(structure.length, 600))]!;
  };
  let refused = 0;
  let meant = 0;
  for (let i = 0; i < count; i++) {
    let bytes: Buffer = Buffer.from(stream);
    for (let n = random() % 4 === 0 ? 3 : 1; n > 0; n--) bytes = mutate(bytes, place(), random);
    const from = performance.now();
    if (understands(bytes, random)) meant++;
    else refused++;
    const ms = performance.now() - from;
    if (ms > LIMIT_MS) throw new Error(`mutation ${i} of seed ${seed} took ${ms} ms`);
  }
  return { refused, meant };
}

function mutate(bytes: Buffer, at: number, random: () => number): Buffer {
  const some = 1 + (random() % 16);
  switch (random() % 8) {
    case 0:
      bytes[at] = random() & 255;
      return bytes;
    case 1:
      bytes[at] = 255 * (random() & 1);
      return bytes;
    case 2:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + some)]);
    case 3:
      return Buffer.concat([bytes.subarray(0, at + some), bytes.subarray(at)]);
    case 4:
      return bytes.subarray(0, at);
    case 5:
      bytes.copyWithin(at, random() % bytes.length, random() % bytes.length);
      return bytes;
    default:
      bytes[at]! ^= 1 << (random() & 7);
      return bytes;
  }
}

/** False: it was refused, with a reason. */
function understands(bytes: Buffer, random: () => number): boolean {
  const digest = new Digest();
  const relay = new Relay();
  const most = 1 + (random() % bytes.length);
  try {
    for (const handler of [digest, relay]) {
      const parser = new StreamParser(handler);
      for (let at = 0; at < bytes.length; ) {
        const size = 1 + (random() % most);
        parser.feed(bytes.subarray(at, at + size));
        at += size;
      }
      parser.end();
    }
  } catch (error) {
    const said = error as AbdmError;
    // A writer refuses what a destination would wait for ever for.
    const codes = ['PROTOCOL', 'IMAGE', 'USAGE'];
    if (!(said instanceof AbdmError) || !codes.includes(said.code) || said.message.length < 20) throw error;
    return false;
  }
  const again = digestOf(relay.bytes);
  if (again !== digest.value) throw new Error(`it is understood in two ways: ${bytes.toString('base64')}`);
  return true;
}
