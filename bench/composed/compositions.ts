// What somebody who does not use us would put together from npm: a hash, a Map, and LZ4. As good programmers would: no object or string a page
// where it can be had without, digests as binary, Map keys that are quick to hash, blocks kept with the size that the package puts before them.
//
//   hash-wasm + Map + lz4-wasm-nodejs     XXH128 (a Map of its first 53 bits, the others compared), XXH3 as checksum
//   xxhash-wasm + Map + lz4-napi          XXH64, which is all the name a page gets; XXH64 as checksum
//
// Neither name is keyed, and neither frame is authenticated: they do less than we do.
import { createXXHash3, createXXHash128 } from 'hash-wasm';
import { compressSync, uncompressSync } from 'lz4-napi';
import * as lz4Wasm from 'lz4-wasm-nodejs';
import xxhashWasm from 'xxhash-wasm';

/** As many contents as our table remembers. Then a Map is emptied: it cannot forget its oldest at a price worth paying. */
const MAX_CONTENTS = 1_310_720;

export interface Composition {
  name: string;
  /** Four words of name for a page, to `names[at]`. Returns where the content is, or 0, and then remembers that it is at `reference`. */
  lookUp(page: Buffer, names: Uint32Array, at: number, reference: number): number;
  /** True if the page has the name at `names[at]`. */
  hasName(page: Buffer, names: Uint32Array, at: number): boolean;
  /** Two words of checksum, to `words[at]`. */
  checksum(bytes: Buffer, words: Uint32Array, at: number): void;
  compress(page: Buffer): Uint8Array;
  decompress(block: Buffer): Uint8Array;
}

export async function hashWasmComposition(): Promise<Composition> {
  const xxh128 = await createXXHash128();
  const xxh3 = await createXXHash3();
  const contents = new Map<number, number>();
  /** Of each content in the Map: the other half of its name, and where it is. */
  const halves = new Float64Array(MAX_CONTENTS);
  const references = new Float64Array(MAX_CONTENTS);
  const digestOf = (page: Buffer) => {
    xxh128.init();
    xxh128.update(page);
    return xxh128.digest('binary');
  };
  return {
    name: 'hash-wasm + Map + lz4-wasm-nodejs',
    lookUp(page, names, at, reference) {
      const digest = digestOf(page);
      for (let i = 0; i < 4; i++) names[at + i] = word(digest, 4 * i);
      const key = names[at]! + (names[at + 1]! & 0x1fffff) * 2 ** 32;
      const half = names[at + 2]! + (names[at + 3]! & 0x1fffff) * 2 ** 32;
      const known = contents.get(key);
      if (known !== undefined) return halves[known] === half ? references[known]! : 0;
      if (contents.size === MAX_CONTENTS) contents.clear();
      halves[contents.size] = half;
      references[contents.size] = reference;
      contents.set(key, contents.size);
      return 0;
    },
    hasName(page, names, at) {
      const digest = digestOf(page);
      for (let i = 0; i < 4; i++) if (names[at + i] !== word(digest, 4 * i)) return false;
      return true;
    },
    checksum(bytes, words, at) {
      xxh3.init();
      xxh3.update(bytes);
      const digest = xxh3.digest('binary');
      words[at] = word(digest, 0);
      words[at + 1] = word(digest, 4);
    },
    compress: lz4Wasm.compress,
    decompress: lz4Wasm.decompress,
  };
}

export async function xxhashWasmComposition(): Promise<Composition> {
  const { h64Raw } = await xxhashWasm();
  /** Keyed by BigInt: what h64Raw gives, and no slower than a number made from it. */
  const contents = new Map<bigint, number>();
  const long = new BigUint64Array(1);
  const words = new Uint32Array(long.buffer);
  return {
    name: 'xxhash-wasm + Map + lz4-napi',
    lookUp(page, names, at, reference) {
      const name = h64Raw(page);
      long[0] = name;
      names[at] = words[0]!;
      names[at + 1] = words[1]!;
      const known = contents.get(name);
      if (known !== undefined) return known;
      if (contents.size === MAX_CONTENTS) contents.clear();
      contents.set(name, reference);
      return 0;
    },
    hasName(page, names, at) {
      long[0] = h64Raw(page);
      return names[at] === words[0] && names[at + 1] === words[1];
    },
    checksum(bytes, to, at) {
      long[0] = h64Raw(bytes);
      to[at] = words[0]!;
      to[at + 1] = words[1]!;
    },
    compress: compressSync,
    decompress: uncompressSync,
  };
}

function word(digest: Uint8Array, at: number): number {
  return (digest[at]! | (digest[at + 1]! << 8) | (digest[at + 2]! << 16) | (digest[at + 3]! << 24)) >>> 0;
}
