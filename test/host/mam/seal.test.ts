// Sealed blocks: what was sealed comes back, and nothing else does. The layout is checked against node:crypto and an independent XXH3.
import { createDecipheriv, hkdfSync } from 'node:crypto';
import { xxh3 } from '@node-rs/xxhash';
import { describe, expect, it } from 'vitest';
import { FIXED_BYTES, MAX_FRAME_BYTES } from '#abdm/bindings/abi.js';
import { createFrameChecker } from '#abdm/bindings/check.js';
import { Divider } from '#abdm/bindings/divider.js';
import type { AbdmError } from '#abdm/bindings/errors.js';
import { Merger } from '#abdm/bindings/merger.js';
import { Opener, SEAL_BYTES, Sealer } from '#abdm/host/mam/seal.js';
import * as wire from '#abdm/host/wire/messages.js';
import { pattern, same } from '../wire/pair.js';

const KEY = pattern(32, 1);
const ID = 2 ** 48 + 3;
const sealer = await Sealer.create(KEY, 4);
const opener = await Opener.create(KEY);
let nextGeneration = 0;

/** A sealed block of its own, of `body`. */
function sealed(body: Uint8Array, id = ID, from = sealer): Uint8Array {
  const block = from.seal(id, body, nextGeneration++);
  const bytes = block.bytes.slice();
  block.release();
  return bytes;
}

/** The code that opening it throws, or null. */
function refusal(block: Uint8Array, id = ID, by = opener): string | null {
  try {
    by.open(id, block);
    return null;
  } catch (error) {
    return (error as AbdmError).code;
  }
}

/** The same block with a checksum that fits: what somebody can do who has no key. */
function mended(block: Uint8Array): Uint8Array {
  const end = block.byteLength - 8;
  new DataView(block.buffer).setBigUint64(end, xxh3.xxh64(block.subarray(0, end)), true);
  return block;
}

const SIZES = [0, 1, 15, 16, 17, 4095, 4096, 32_767, 32_768, 32_769, 65_536, 100_003, 256_000, MAX_FRAME_BYTES];

describe('a sealed block', () => {
  it.each(SIZES)('of %i bytes comes back as it was', (bytes) => {
    const body = pattern(bytes, 5);
    const block = sealed(body);
    expect(block.byteLength).toBe(bytes + SEAL_BYTES);
    if (bytes > 15) expect(Buffer.from(block).includes(Buffer.from(body.subarray(0, 16)))).toBe(false);
    expect(opener.open(ID, block)).toBe(bytes);
    expect(same(block.subarray(0, bytes), body)).toBe(true);
  });

  it('is laid out as docs/protocol.md draws it', () => {
    const body = pattern(1000, 6);
    const block = sealer.seal(ID, body, 0x1234);
    const view = new DataView(block.bytes.buffer, block.bytes.byteOffset, block.bytes.byteLength);
    expect(Buffer.from(block.bytes.subarray(0, 4)).toString()).toBe('ABDS');
    expect([view.getUint8(4), view.getUint8(5), view.getUint16(6, true)]).toEqual([1, 0, 0x1234]);
    expect(view.getBigUint64(8, true)).toBe(BigInt(ID));
    const nonce = Buffer.alloc(12);
    nonce.writeUInt16LE(0x1234, 0);
    nonce.writeBigUInt64LE(BigInt(ID), 4);
    const key = new Uint8Array(hkdfSync('sha256', KEY, '', 'abdm seal', 32));
    const plain = createDecipheriv('aes-256-gcm', key, nonce);
    plain.setAAD(block.bytes.subarray(0, 16));
    plain.setAuthTag(block.bytes.subarray(1016, 1032));
    expect(same(Buffer.concat([plain.update(block.bytes.subarray(16, 1016)), plain.final()]), body)).toBe(true);
    expect(view.getBigUint64(1032, true)).toBe(xxh3.xxh64(block.bytes.subarray(0, 1032)));
    block.release();
  });

  it('fits a message and a slot of the merger, whatever was sealed', async () => {
    expect(MAX_FRAME_BYTES + SEAL_BYTES).toBeLessThanOrEqual(wire.MAX_FRAME_BYTES);
    const divider = await Divider.create({ key: KEY, compress: 'none' });
    const merger = await Merger.create({ key: KEY, vms: [{ pages: 64 }] });
    const batch = divider.acquire();
    batch.bytes.set(pattern(batch.bytes.byteLength, 9));
    const [frame] = divider.divide(batch, { vm: 0, base: 0, pages: 64 });
    const block = sealed(frame!.bytes, frame!.id);
    const slot = merger.acquire();
    slot.bytes.set(block);
    const bytes = opener.open(frame!.id, slot.bytes.subarray(0, block.byteLength));
    const written: number[] = [];
    const sink = { write: (_: number, pfn: number) => written.push(pfn), zero: () => {}, read: () => false };
    expect(merger.merge(slot, bytes, sink).pages).toBe(64);
    expect(written).toEqual([0]);
  });

  it('is refused with any bit flipped, by the opener and by a node without the key', async () => {
    const block = sealed(pattern(70, 7));
    const check = await createFrameChecker();
    const memory = new WebAssembly.Memory({ initial: 16, maximum: 16 });
    const kept = new Uint8Array(memory.buffer, FIXED_BYTES, block.byteLength);
    const nodeSays = (bytes: Uint8Array, id = ID) => {
      kept.set(bytes);
      return check(memory, FIXED_BYTES, bytes.byteLength, id);
    };
    expect(nodeSays(block)).toBe(null);
    for (let bit = 0; bit < block.byteLength * 8; bit++) {
      const flipped = block.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      // Magic, version and the byte that is 0 are looked at first, by both. Without its magic a node takes it for a frame, and it is none.
      const code = bit < 48 ? 'FRAME_MALFORMED' : 'FRAME_CHECKSUM';
      expect(nodeSays(flipped), `bit ${bit}`).toBe(code);
      expect(refusal(flipped.slice()), `bit ${bit}`).toBe(code);
      if (bit < 48) continue;
      // Whoever mends the checksum too gets it past a node (unless it names another block), never past the opener.
      if (bit >= block.byteLength * 8 - 64) continue;
      const inId = bit >= 64 && bit < 128;
      mended(flipped);
      expect(nodeSays(flipped), `bit ${bit}, mended`).toBe(inId ? 'FRAME_MALFORMED' : null);
      expect(refusal(flipped), `bit ${bit}, mended`).toBe(inId ? 'FRAME_MALFORMED' : 'FRAME_TAG');
    }
  });

  it('is refused under another id, generation or key, and gives nothing of itself away', async () => {
    const body = pattern(5000, 8);
    const block = sealed(body);
    expect(refusal(block.slice(), ID + 1)).toBe('FRAME_MALFORMED');
    const renamed = block.slice();
    new DataView(renamed.buffer).setBigUint64(8, BigInt(ID + 1), true);
    expect(refusal(mended(renamed), ID + 1)).toBe('FRAME_TAG');
    const older = block.slice();
    older[6]! ^= 1;
    expect(refusal(mended(older))).toBe('FRAME_TAG');
    expect(older.every((byte) => byte === 0)).toBe(true);
    const stranger = await Opener.create(pattern(32, 2));
    expect(refusal(block.slice(), ID, stranger)).toBe('FRAME_TAG');
    expect(refusal(block)).toBe(null);
    expect(same(block.subarray(0, 5000), body)).toBe(true);
  });

  it('is refused when it is cut short, or longer than any', () => {
    const block = sealed(pattern(100, 9));
    for (let bytes = 0; bytes < block.byteLength; bytes++) {
      const cut = block.slice(0, bytes);
      expect(refusal(cut)).toBe(bytes < SEAL_BYTES ? 'FRAME_MALFORMED' : 'FRAME_CHECKSUM');
      if (bytes >= SEAL_BYTES) expect(refusal(mended(block.slice(0, bytes)))).toBe('FRAME_TAG');
    }
    expect(refusal(new Uint8Array(MAX_FRAME_BYTES + SEAL_BYTES + 1))).toBe('FRAME_MALFORMED');
    expect(refusal(new Uint8Array(100))).toBe('FRAME_MALFORMED');
  });
});

describe('a sealer', () => {
  it('never uses a nonce twice', async () => {
    const own = await Sealer.create(KEY, 1);
    const texts = new Set<string>();
    const body = new Uint8Array(32);
    const ids = [0, 1, 7, 8, 65_535, 65_536, 2 ** 47 - 1, 2 ** 48, 2 ** 48 + 1, 2 ** 49, 2 ** 53 - 1];
    const generations = [0, 1, 2, 255, 256, 65_535];
    for (const id of ids) {
      for (const generation of generations) {
        const block = own.seal(id, body, generation);
        texts.add(Buffer.from(block.bytes.subarray(16, 48)).toString('hex'));
        block.release();
      }
    }
    expect(texts.size).toBe(ids.length * generations.length);
    for (const id of ids) {
      for (const generation of generations) {
        expect(() => own.seal(id, body, generation)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
      }
    }
    expect(own.freeSlots).toBe(1);
  });

  it('holds as many blocks as it was made for, and reuses none before its release', async () => {
    const own = await Sealer.create(KEY, 2);
    const [a, b] = [own.seal(1, pattern(50, 1)), own.seal(2, pattern(50, 2))];
    expect(own.freeSlots).toBe(0);
    const [before, other] = [a.bytes.slice(), b.bytes.slice()];
    expect(() => own.seal(3, pattern(50, 3))).toThrow(expect.objectContaining({ code: 'NO_SLOT' }));
    a.release();
    expect(() => a.release()).toThrow(expect.objectContaining({ code: 'SLOT_STATE' }));
    // What found no room was not sealed: it may be now.
    const c = own.seal(3, pattern(MAX_FRAME_BYTES, 3));
    expect(same(b.bytes, other)).toBe(true);
    expect(same(c.bytes.subarray(0, 90), before)).toBe(false);
    expect(same(sealed(pattern(50, 1), 1, await Sealer.create(pattern(32, 2), 1)), before)).toBe(false);
  });

  it('refuses what cannot be', async () => {
    const usage = expect.objectContaining({ code: 'USAGE' });
    await expect(Sealer.create(KEY.subarray(1), 1)).rejects.toEqual(usage);
    await expect(Opener.create(KEY.subarray(1))).rejects.toEqual(usage);
    await expect(Sealer.create(KEY, 0)).rejects.toEqual(usage);
    expect(() => sealer.seal(-1, KEY)).toThrow(usage);
    expect(() => sealer.seal(1, KEY, 65_536)).toThrow(usage);
    expect(() => sealer.seal(1, new Uint8Array(MAX_FRAME_BYTES + 1))).toThrow(usage);
    expect(sealer.freeSlots).toBe(4);
  });
});
