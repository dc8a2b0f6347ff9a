// Proof of who sent each byte of a connection that is not encrypted: 16 bytes behind each piece, a header or a body, which only the two ends can
// make. It is GMAC, the authentication of AES-256-GCM without its encryption: an eighth of what TLS costs, for bytes that are sealed anyway.
//
//   | header 16 | proof 16 | body | proof 16 | header | proof | header | proof | body ...         a message without a body has one proof
//
// Each direction has a key of its own, and the n-th piece has the nonce u32 0 | u64 n: what is changed, moved, repeated, left out or sent back to
// where it came from does not prove. A header is proved before anybody looks at it, a body before anybody is told of it.

import { type CipherGCM, createCipheriv, timingSafeEqual } from 'node:crypto';
import { deriveKey } from './security.js';

export const PROOF_BYTES = 16;

/** Proves the pieces of one direction, in their order. */
export class Prover {
  readonly #key: Uint8Array;
  readonly #nonce = new Uint8Array(12);
  readonly #counter = new DataView(this.#nonce.buffer);
  #pieces = 0;
  #piece: CipherGCM | null = null;

  /** @param key 32 bytes that are used for nothing else: no other prover may ever begin with it. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** The next bytes of the piece. */
  update(bytes: Uint8Array): this {
    if (this.#piece === null) {
      this.#counter.setBigUint64(4, BigInt(this.#pieces++), true);
      this.#piece = createCipheriv('aes-256-gcm', this.#key, this.#nonce);
    }
    this.#piece.setAAD(bytes);
    return this;
  }

  /** Ends the piece: its proof. */
  end(): Uint8Array {
    const piece = this.#piece!;
    this.#piece = null;
    piece.final();
    return piece.getAuthTag();
  }

  /** Ends the piece: whether this is its proof. */
  holds(proof: Uint8Array): boolean {
    return timingSafeEqual(this.end(), proof);
  }
}

/** Both directions of a connection, seen from one end. */
export interface Proofs {
  readonly out: Prover;
  readonly in: Prover;
}

/** @param secret 32 random bytes that both ends of this one connection have, and nobody else. */
export function proofsOf(secret: Uint8Array, end: 'client' | 'server'): Proofs {
  const client = new Prover(deriveKey(secret, 'abdm proof of the client'));
  const server = new Prover(deriveKey(secret, 'abdm proof of the server'));
  return end === 'client' ? { out: client, in: server } : { out: server, in: client };
}
