// The bytes that guests stream (guest/stream.c has the same), and what a player heard of them.
import { createHash } from 'node:crypto';

const MEDIA_BYTES = 4 << 20;
/** Silences below this are the pace of the stream. */
export const NOTABLE_MS = 30;

function media(): Uint8Array {
  const bytes = new Uint8Array(MEDIA_BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0, x = 2463534242; i < MEDIA_BYTES; i += 4) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    view.setUint32(i, x >>> 0, true);
  }
  return bytes;
}

/** Of the first so many bytes of the stream. */
export function sha256Of(bytes: number): string {
  const hash = createHash('sha256');
  const once = media();
  for (let left = bytes; left > 0; left -= MEDIA_BYTES) hash.update(once.subarray(0, Math.min(left, MEDIA_BYTES)));
  return hash.digest('hex');
}

/** What a player prints, one JSON object a line. */
export type Heard =
  | { readonly type: 'playing' }
  | { readonly type: 'second'; readonly bytes: number }
  /** Nothing came for so long before `atMs`, milliseconds since 1970. */
  | { readonly type: 'silence'; readonly ms: number; readonly atMs: number }
  /** `broken`: why the connection ended, if it was not the player who ended it. */
  | { readonly type: 'played'; readonly bytes: number; readonly sha256: string; readonly broken: string | null };
