// The bodies of DISCARD and STATE (docs/protocol.md): what is said of a VM when it stands still and is about to run elsewhere.

/** Pages that one DISCARD can speak of. */
export const DISCARD_PAGES = 256 * 1024;
const DISCARD_HEADER_BYTES = 24;
/** Bytes of an execution state in one STATE. */
export const STATE_PIECE_BYTES = 256_000;
const STATE_HEADER_BYTES = 8;
/** An execution state, at most. */
export const MAX_STATE_BYTES = 64 * 2 ** 20;

/**
 * Bodies of DISCARD that name the pages of `bitmap` (bit i & 7 of byte i >> 3 is page i, of `pages`): only frames with ids from `floor` on may bring them.
 */
export function* discardBodies(vm: number, pages: number, bitmap: Uint8Array, floor: number): Iterable<Uint8Array> {
  for (let first = 0; first < pages; first += DISCARD_PAGES) {
    const count = Math.min(DISCARD_PAGES, pages - first);
    const bits = bitmap.subarray(first / 8, first / 8 + Math.ceil(count / 8));
    if (bits.every((byte) => byte === 0)) continue;
    const body = new Uint8Array(DISCARD_HEADER_BYTES + bits.byteLength);
    const view = new DataView(body.buffer);
    view.setUint16(0, vm, true);
    view.setUint32(4, count, true);
    view.setBigUint64(8, BigInt(first), true);
    view.setBigUint64(16, BigInt(floor), true);
    body.set(bits, DISCARD_HEADER_BYTES);
    yield body;
  }
}

/** Bodies of STATE, each in two pieces: the second is a view of `state`. */
export function* stateBodies(vm: number, state: Uint8Array): Iterable<readonly [Uint8Array, Uint8Array]> {
  const parts = Math.ceil(state.byteLength / STATE_PIECE_BYTES);
  for (let part = 0; part < parts; part++) {
    const header = new Uint8Array(STATE_HEADER_BYTES);
    const view = new DataView(header.buffer);
    view.setUint16(0, vm, true);
    view.setUint16(2, part, true);
    view.setUint16(4, parts, true);
    yield [header, state.subarray(part * STATE_PIECE_BYTES, (part + 1) * STATE_PIECE_BYTES)];
  }
}
