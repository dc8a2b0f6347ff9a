// LZ4 against lz4-wasm in both directions, against a plain decoder on damaged blocks, and at every edge of its memory.
import { describe, expect, it } from 'vitest';
import { rawEngine, scale, seeded } from '../engine.js';
import { KINDS, page } from '../pages.js';
import { damage, keepsEndRules } from './lz4-blocks.js';
import { type Lz4Peer, lz4Wasm, lz4WasmNodejs, plainDecompress } from './lz4-peers.js';

const CANARY = 0xa5;
const engine = rawEngine(1 << 19);
const memoryEnd = engine.bytes.length;
const canaries = new Uint8Array(memoryEnd).fill(CANARY);
/** More than the largest block of what is compressed here. */
const BLOCK_ROOM = 100_000;

function clear(): void {
  engine.bytes.fill(CANARY, engine.free);
}

function isUntouched(from: number, to: number): boolean {
  return isSame(engine.bytes.subarray(from, to), canaries.subarray(0, to - from));
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Our block of `data`, or null if it does not fit. */
function compress(
  data: Uint8Array,
  capacity = BLOCK_ROOM,
  acceleration = 1,
  srcPtr = engine.free + 7,
): Uint8Array | null {
  const dstPtr = engine.free + 100_003;
  engine.bytes.set(data, srcPtr);
  const bytes = engine.lz4Compress(srcPtr, srcPtr, data.length, dstPtr, capacity, acceleration);
  return bytes === 0 ? null : engine.bytes.slice(dstPtr, dstPtr + bytes);
}

/** What our decoder makes of a block, or null if it refuses. */
function decompress(block: Uint8Array, outBytes: number, dstPtr = engine.free + 100_003): Uint8Array | null {
  const srcPtr = engine.free + 13;
  engine.bytes.set(block, srcPtr);
  if (engine.lz4Decompress(srcPtr, block.length, dstPtr, outBytes) === 0) return null;
  return engine.bytes.slice(dstPtr, dstPtr + outBytes);
}

function agreesWith(peer: Lz4Peer, pages: number, seed: number): void {
  const random = seeded(seed);
  for (let i = 0; i < pages; i++) {
    const kind = KINDS[i % KINDS.length]!;
    const data = page(kind, random);
    const ours = compress(data)!;
    if (!isSame(peer.decompress(ours, data.length), data))
      expect.fail(`${peer.name} cannot read our ${kind} page, number ${i}`);
    if (!keepsEndRules(ours, data.length)) expect.fail(`the end of our ${kind} page, number ${i}`);
    const back = decompress(peer.compress(data), data.length);
    if (back === null || !isSame(back, data))
      expect.fail(`we cannot read the ${kind} page of ${peer.name}, number ${i}`);
    const own = decompress(ours, data.length);
    if (own === null || !isSame(own, data)) expect.fail(`we cannot read our own ${kind} page, number ${i}`);
  }
}

/** More rounds may take longer. */
const timeout = Math.max(60_000, scale(60_000));

describe('agreement with lz4-wasm', { timeout }, () => {
  it('reads and is read by lz4-wasm-nodejs on seeded pages of all kinds', () => {
    agreesWith(lz4WasmNodejs, scale(10_000), 1);
  });

  it('reads and is read by the bundler build of lz4-wasm', () => {
    agreesWith(lz4Wasm, scale(1_000), 2);
  });

  it('does so at small, odd and large sizes', () => {
    const random = seeded(3);
    const sizes = Array.from({ length: 301 }, (_, i) => i);
    for (let i = 0; i < scale(100); i++) sizes.push(300 + (random() % 65_237));
    sizes.push(65_535, 65_536, 65_537, 90_000);
    for (const size of sizes) {
      for (const kind of KINDS) {
        const data = page(kind, random, size);
        const ours = compress(data)!;
        expect(isSame(lz4WasmNodejs.decompress(ours, size), data), `${kind}, ${size} bytes`).toBe(true);
        expect(keepsEndRules(ours, size), `${kind}, ${size} bytes`).toBe(true);
        expect(isSame(decompress(ours, size)!, data), `${kind}, ${size} bytes`).toBe(true);
        // Of nothing, lz4-wasm makes a block of no bytes; the format wants a token.
        if (size > 0)
          expect(isSame(decompress(lz4WasmNodejs.compress(data), size)!, data), `${kind}, ${size}`).toBe(true);
      }
    }
  });
});

describe('lz4Compress', { timeout }, () => {
  it('compresses what repeats, and makes nothing of noise', () => {
    const random = seeded(4);
    expect(compress(page('zero', random))!.length).toBeLessThan(32);
    expect(compress(page('text', random))!.length).toBeLessThan(3_000);
    expect(compress(page('random', random), 4_095)).toBeNull();
  });

  it('writes the same block at any address', () => {
    const random = seeded(5);
    const data = page('binary', random);
    const block = compress(data)!;
    for (let shift = 0; shift < 40; shift++) {
      expect(isSame(compress(data, BLOCK_ROOM, 1, engine.free + shift)!, block)).toBe(true);
    }
  });

  it('needs exactly what it returns, and writes nothing past what it is given', () => {
    const random = seeded(6);
    for (const size of [0, 1, 12, 13, 40, 300, 1000, 4096]) {
      for (const kind of KINDS) {
        const data = page(kind, random, size);
        const block = compress(data)!;
        const srcPtr = engine.free;
        const dstPtr = srcPtr + 8192;
        clear();
        engine.bytes.set(data, srcPtr);
        for (let capacity = 0; capacity <= block.length + 40; capacity++) {
          const bytes = engine.lz4Compress(srcPtr, srcPtr, size, dstPtr, capacity, 1);
          expect(bytes).toBe(capacity < block.length ? 0 : block.length);
          expect(isUntouched(dstPtr - 64, dstPtr) && isUntouched(dstPtr + capacity, dstPtr + capacity + 64)).toBe(true);
          engine.bytes.fill(CANARY, dstPtr, dstPtr + capacity);
        }
        expect(isUntouched(dstPtr, memoryEnd)).toBe(true);
      }
    }
  });

  it('works at the very end of the memory', () => {
    const random = seeded(7);
    for (let i = 0; i < scale(2_000); i++) {
      const data = page(KINDS[i % KINDS.length]!, random, 1 + (random() % 4096));
      const srcPtr = memoryEnd - data.length;
      engine.bytes.set(data, srcPtr);
      const bytes = engine.lz4Compress(srcPtr, srcPtr, data.length, engine.free, BLOCK_ROOM, 1);
      const block = engine.bytes.slice(engine.free, engine.free + bytes);
      expect(isSame(plainDecompress(block, data.length)!, data)).toBe(true);

      engine.bytes.set(data, engine.free);
      expect(engine.lz4Compress(engine.free, engine.free, data.length, memoryEnd - bytes, bytes, 1)).toBe(bytes);
      expect(isSame(plainDecompress(engine.bytes.slice(memoryEnd - bytes), data.length)!, data)).toBe(true);
    }
  });

  it('takes any acceleration', () => {
    const random = seeded(8);
    for (const acceleration of [0, 1, 2, 3, 4, 7, 16, 64, 1000, 65_536, 0x7fffffff, 0xffffffff]) {
      for (const kind of KINDS) {
        const data = page(kind, random);
        const block = compress(data, BLOCK_ROOM, acceleration)!;
        expect(isSame(lz4WasmNodejs.decompress(block, data.length), data)).toBe(true);
      }
    }
    const data = page('binary', random);
    expect(compress(data, BLOCK_ROOM, 32)!.length).toBeGreaterThan(compress(data, BLOCK_ROOM, 1)!.length);
  });
});

describe('lz4Decompress', { timeout }, () => {
  it('keeps within its output, and agrees with a plain decoder, on damaged blocks', () => {
    const random = seeded(10);
    const valid: { block: Uint8Array; bytes: number }[] = [];
    for (let i = 0; i < 400; i++) {
      const bytes = i % 4 === 0 ? 1 + (random() % 400) : 4096;
      const data = page(KINDS[i % KINDS.length]!, random, bytes);
      valid.push({ block: i % 2 === 0 ? compress(data)! : lz4WasmNodejs.compress(data), bytes });
    }
    clear();
    const middle = engine.free + 20_000;
    for (let i = 0; i < scale(100_000); i++) {
      const { block, bytes } = valid[random() % valid.length]!;
      const damaged = damage(block, valid[random() % valid.length]!.block, random);
      // In turn: output in the middle, output at the very end of the memory, block at the very end.
      const dstPtr = i % 3 === 1 ? memoryEnd - bytes : middle + (random() % 16);
      const srcPtr = i % 3 === 2 ? memoryEnd - damaged.length : engine.free + (random() % 16);
      engine.bytes.set(damaged, srcPtr);
      const got = engine.lz4Decompress(srcPtr, damaged.length, dstPtr, bytes);
      const expected = plainDecompress(damaged, bytes);
      expect(got).toBe(expected === null ? 0 : 1);
      if (expected !== null) expect(isSame(engine.bytes.subarray(dstPtr, dstPtr + bytes), expected)).toBe(true);
      engine.bytes.fill(CANARY, dstPtr, dstPtr + bytes);
      engine.bytes.fill(CANARY, srcPtr, srcPtr + damaged.length);
      if (!isUntouched(dstPtr - 64, dstPtr) || !isUntouched(dstPtr + bytes, Math.min(dstPtr + bytes + 64, memoryEnd))) {
        expect.fail(`damaged block ${i} wrote outside the output`);
      }
    }
    expect(isUntouched(engine.free, memoryEnd)).toBe(true);
  });

  it('leaves what is around an output alone', () => {
    const random = seeded(11);
    for (let i = 0; i < scale(3_000); i++) {
      const bytes = 1 + (random() % (i % 3 === 0 ? 4096 : 120));
      const data = page(KINDS[i % KINDS.length]!, random, bytes);
      const block = lz4WasmNodejs.compress(data);
      const dstPtr = i % 2 === 0 ? memoryEnd - bytes : engine.free + 100_000 + (i % 32);
      clear();
      const back = decompress(block, bytes, dstPtr);
      expect(back !== null && isSame(back, data)).toBe(true);
      expect(isUntouched(engine.free + 20_000, dstPtr) && isUntouched(dstPtr + bytes, memoryEnd)).toBe(true);
    }
  });

  it('reads literals and matches of every length, near and far from its ends', () => {
    const random = seeded(13);
    for (let length = 4; length < 600; length++) {
      const data = page('random', random, 8192);
      const literals = 1 + (random() % 600);
      const offset = 1 + (random() % Math.min(literals, random() % 2 === 0 ? 40 : 600));
      for (let i = literals; i < literals + length; i++) data[i] = data[i - offset]!;
      for (const bytes of [literals + length + 5, literals + length + 5 + (random() % 60), data.length]) {
        const whole = data.subarray(0, bytes);
        const back = decompress(lz4WasmNodejs.compress(whole), bytes);
        expect(back !== null && isSame(back, whole)).toBe(true);
      }
    }
  });

  it('refuses a block that is right but of another size', () => {
    const random = seeded(12);
    for (const kind of KINDS) {
      const block = compress(page(kind, random))!;
      expect(decompress(block, 4095)).toBeNull();
      expect(decompress(block, 4097)).toBeNull();
      expect(decompress(block, 0)).toBeNull();
    }
  });

  it('refuses what is malformed', () => {
    const refused = (bytes: number[], outBytes: number) =>
      expect(decompress(Uint8Array.from(bytes), outBytes)).toBeNull();
    refused([], 0);
    refused([], 10);
    refused([0x10], 1); // a literal is missing
    refused([0x10, 1, 0], 5); // half an offset
    refused([0x10, 1, 0, 0, 0x50, 1, 2, 3, 4, 5], 10); // offset 0
    refused([0x10, 1, 2, 0, 0x50, 1, 2, 3, 4, 5], 10); // offset beyond what there is
    refused([0x10, 1, 1, 0], 5); // ends with a match
    refused([0xf0], 15); // the length goes on, and does not
    refused([0xf0, 255, 255, 255], 780);
    refused([0x1f, 1, 1, 0, 255, 255], 529);
    refused([0xf0, ...new Array(3000).fill(255), 0], 4096);
    expect(decompress(Uint8Array.of(0x10, 1, 1, 0, 0x50, 1, 2, 3, 4, 5), 10)).toEqual(
      Uint8Array.of(1, 1, 1, 1, 1, 1, 2, 3, 4, 5),
    );
    expect(decompress(Uint8Array.of(0), 0)).toEqual(new Uint8Array(0));
  });
});
