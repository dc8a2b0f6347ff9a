// Who our LZ4 is compared with: lz4-wasm in both of its builds, and a plain decoder. Oracles for tests, never to be shipped: this release of
// lz4-wasm must not decode what came over a network.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import * as nodejs from 'lz4-wasm-nodejs';

export interface Lz4Peer {
  name: string;
  /** The LZ4 block of `data`. */
  compress(data: Uint8Array): Uint8Array;
  /** What a block of `outBytes` bytes decodes to. Throws if it is malformed. */
  decompress(block: Uint8Array, outBytes: number): Uint8Array;
}

/** lz4-wasm puts the size before the block, as a u32. */
function peer(name: string, api: typeof nodejs): Lz4Peer {
  return {
    name,
    compress: (data) => api.compress(data).subarray(4),
    decompress(block, outBytes) {
      const sized = new Uint8Array(4 + block.length);
      new DataView(sized.buffer).setUint32(0, outBytes, true);
      sized.set(block, 4);
      return api.decompress(sized);
    },
  };
}

/**
 * The build for bundlers. Its glue and its wasm import each other, which a bundler resolves and Node 20 cannot: here the glue gets
 * an empty object instead of the wasm's exports, and the exports are put into it once there are any.
 */
async function loadBundlerBuild(): Promise<typeof nodejs> {
  const folder = dirname(createRequire(import.meta.url).resolve('lz4-wasm/package.json'));
  const read = (name: string) => readFileSync(join(folder, name));
  const importsWasm = /^import \* as wasm from .*$/m;
  const source = read('lz4_wasm_bg.js').toString();
  if (!importsWasm.test(source)) throw new Error('lz4-wasm: the glue does not look as expected');
  const tied = source.replace(importsWasm, 'const wasm = {};\nexport { wasm as hole };');
  const glue = await import(`data:text/javascript;base64,${Buffer.from(tied).toString('base64')}`);
  const { instance } = await WebAssembly.instantiate(read('lz4_wasm_bg.wasm'), { './lz4_wasm_bg.js': glue });
  Object.assign(glue.hole, instance.exports);
  return glue;
}

export const lz4WasmNodejs = peer('lz4-wasm-nodejs', nodejs);
export const lz4Wasm = peer('lz4-wasm', await loadBundlerBuild());

/**
 * Decodes byte by byte, as the format is written down; matches may begin in the bytes of `window`, which come before the output. Returns null for
 * what does not decode to exactly `outBytes`.
 */
export function plainDecompress(
  block: Uint8Array,
  outBytes: number,
  window: Uint8Array = new Uint8Array(0),
): Uint8Array | null {
  const out = new Uint8Array(outBytes);
  let from = 0;
  let to = 0;
  const length = (start: number): number => {
    if (start < 15) return start;
    for (let total = 15; from < block.length; ) {
      const more = block[from++]!;
      total += more;
      if (more < 255) return total;
    }
    return Number.POSITIVE_INFINITY;
  };
  while (from < block.length) {
    const token = block[from++]!;
    const literals = length(token >> 4);
    if (literals > block.length - from || literals > outBytes - to) return null;
    out.set(block.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    if (from === block.length) return to === outBytes ? out : null;
    if (block.length - from < 2) return null;
    const offset = block[from]! + block[from + 1]! * 256;
    from += 2;
    const match = length(token & 15) + 4;
    if (offset === 0 || offset > window.length + to || match > outBytes - to) return null;
    for (let i = 0; i < match; i++, to++) out[to] = offset > to ? window.at(to - offset)! : out[to - offset]!;
  }
  return null;
}
