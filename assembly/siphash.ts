// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the wide output as in its
// reference implementation). A pseudorandom function: who does not know the 16 bytes of key can neither predict an output nor make two
// inputs collide. It expands keys, finishes content ids and signs what a frame says about itself.
//
// The input is read as little-endian u64, the last of them filled up with zeros and the input's length:
//
//    m0                m1                      last
//   +-----------------+-----------------+ ... +---------------------+---------+---------------+
//   | 8 bytes         | 8 bytes         |     | 0..7 bytes of input | zeros   | bytes mod 256 |
//   +-----------------+-----------------+ ... +---------------------+---------+---------------+
//
// Each word is xored into v3, stirred by two rounds and xored into v0; four more rounds give the low half of the output, and four more the
// high half.
//
// Why it is written like this: its state is four u64, and a round is one chain of additions, rotations and xors that no vector unit makes
// shorter, so it stays in four scalar locals. A helper could hand back only one of them, hence the round is spelled out in both loops. It is
// the slowest of our hashes by the byte, which is why content ids give it 32 bytes of each page (content-id.ts).

/** SipHash-2-4-128 of the `bytes` at `ptr` under the 16 bytes at `keyPtr`, to the 16 bytes at `outPtr`. */
export function sipHash128(keyPtr: usize, ptr: usize, bytes: u32, outPtr: usize): void {
  const k0 = load<u64>(keyPtr);
  const k1 = load<u64>(keyPtr, 8);
  // The constants are ASCII, "somepseudorandomlygeneratedbytes"; 0xee and 0xdd tell the wide output from the 64-bit one.
  let v0: u64 = k0 ^ 0x736f6d6570736575;
  let v1: u64 = k1 ^ 0x646f72616e646f6d ^ 0xee;
  let v2: u64 = k0 ^ 0x6c7967656e657261;
  let v3: u64 = k1 ^ 0x7465646279746573;

  const last = ptr + <usize>(bytes & ~7);
  for (;;) {
    const m = ptr !== last ? load<u64>(ptr) : lastWord(last, bytes);
    v3 ^= m;
    for (let round = 0; round < 2; round++) {
      v0 += v1;
      v2 += v3;
      v1 = rotl<u64>(v1, 13) ^ v0;
      v3 = rotl<u64>(v3, 16) ^ v2;
      v0 = rotl<u64>(v0, 32) + v3;
      v2 += v1;
      v1 = rotl<u64>(v1, 17) ^ v2;
      v3 = rotl<u64>(v3, 21) ^ v0;
      v2 = rotl<u64>(v2, 32);
    }
    v0 ^= m;
    if (ptr === last) break;
    ptr += 8;
  }

  v2 ^= 0xee;
  for (let half: usize = 0; half < 16; half += 8) {
    for (let round = 0; round < 4; round++) {
      v0 += v1;
      v2 += v3;
      v1 = rotl<u64>(v1, 13) ^ v0;
      v3 = rotl<u64>(v3, 16) ^ v2;
      v0 = rotl<u64>(v0, 32) + v3;
      v2 += v1;
      v1 = rotl<u64>(v1, 17) ^ v2;
      v3 = rotl<u64>(v3, 21) ^ v0;
      v2 = rotl<u64>(v2, 32);
    }
    store<u64>(outPtr + half, v0 ^ v1 ^ v2 ^ v3);
    v1 ^= 0xdd;
  }
}

/** The last word: the `bytes` mod 8 bytes at `ptr`, read one by one so that nothing behind the input is touched, and the length on top. */
function lastWord(ptr: usize, bytes: u32): u64 {
  let word = (<u64>bytes) << 56;
  for (let i: u32 = 0; i < (bytes & 7); i++) word |= (<u64>load<u8>(ptr + i)) << ((<u64>i) << 3);
  return word;
}
