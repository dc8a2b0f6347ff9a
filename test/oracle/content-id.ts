// The content id in BigInt, from the definitions at the head of assembly/content-id.ts. Slow.
import { sipHash128, toBigInt, toBytes } from './siphash.js';

const NH_BLOCKS = 259;

export interface KeySchedule {
  /** 259 vectors of 16 bytes. */
  nh: Uint8Array;
  sip: Uint8Array;
  tag: Uint8Array;
}

/** What `setKey` makes of 32 secret bytes. */
export function expandKey(secret: Uint8Array): KeySchedule {
  const first = secret.subarray(0, 16);
  const derive = (i: number, domain: string) =>
    sipHash128(first, Buffer.concat([toBytes(BigInt(i), 8), Buffer.from(domain, 'latin1')]));
  return {
    nh: Buffer.concat(Array.from({ length: NH_BLOCKS }, (_, i) => derive(i, 'abdm/nh\0'))),
    sip: secret.slice(16, 32),
    tag: derive(0, 'abdm/tag'),
  };
}

/** Four Toeplitz passes of NH over one page: 32 bytes. */
export function nh(key: Uint8Array, page: Uint8Array): Uint8Array {
  const word = (bytes: Uint8Array, i: number) => toBigInt(bytes.subarray(4 * i, 4 * i + 4));
  const sums: Uint8Array[] = [];
  for (let pass = 0; pass < 4; pass++) {
    const shifted = key.subarray(16 * pass);
    const plus = (i: number) => BigInt.asUintN(32, word(page, i) + word(shifted, i));
    let sum = 0n;
    for (let group = 0; group < page.length / 4; group += 8) {
      for (let i = group; i < group + 4; i++) sum += plus(i) * plus(i + 4);
    }
    sums.push(toBytes(BigInt.asUintN(64, sum), 8));
  }
  return Buffer.concat(sums);
}

export function contentId(key: KeySchedule, page: Uint8Array): Uint8Array {
  return sipHash128(key.sip, nh(key.nh, page));
}
