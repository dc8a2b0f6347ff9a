// SipHash-2-4-128 in BigInt, as the paper writes it. Slow.
const MASK = (1n << 64n) - 1n;
const rotl = (x: bigint, bits: bigint): bigint => ((x << bits) | (x >> (64n - bits))) & MASK;

/** Little-endian. */
export function toBigInt(bytes: Uint8Array): bigint {
  return bytes.reduceRight((x, byte) => (x << 8n) | BigInt(byte), 0n);
}

/** Little-endian. */
export function toBytes(x: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => Number((x >> BigInt(8 * i)) & 255n));
}

export function sipHash128(key: Uint8Array, input: Uint8Array): Uint8Array {
  const k0 = toBigInt(key.subarray(0, 8));
  const k1 = toBigInt(key.subarray(8, 16));
  const text = (s: string) => BigInt(`0x${Buffer.from(s, 'latin1').toString('hex')}`);
  const v = [k0 ^ text('somepseu'), k1 ^ text('dorandom'), k0 ^ text('lygenera'), k1 ^ text('tedbytes')] as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  const half = (a: 0 | 2, b: 1 | 3, bits: bigint) => {
    v[a] = (v[a] + v[b]) & MASK;
    v[b] = rotl(v[b], bits) ^ v[a];
  };
  const rounds = (n: number) => {
    for (; n > 0; n--) {
      half(0, 1, 13n);
      half(2, 3, 16n);
      v[0] = rotl(v[0], 32n);
      half(2, 1, 17n);
      half(0, 3, 21n);
      v[2] = rotl(v[2], 32n);
    }
  };
  v[1] ^= 0xeen;
  const padded = new Uint8Array((input.length & ~7) + 8);
  padded.set(input);
  padded[padded.length - 1] = input.length & 255;
  for (let i = 0; i < padded.length; i += 8) {
    const m = toBigInt(padded.subarray(i, i + 8));
    v[3] ^= m;
    rounds(2);
    v[0] ^= m;
  }
  v[2] ^= 0xeen;
  rounds(4);
  const low = v[0] ^ v[1] ^ v[2] ^ v[3];
  v[1] ^= 0xddn;
  rounds(4);
  const high = v[0] ^ v[1] ^ v[2] ^ v[3];
  return toBytes(low | (high << 64n), 16);
}
