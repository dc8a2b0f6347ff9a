// Divides pages and merges the frames again. The same file runs in Node and, bundled, in a browser: both have to come to the same frames.
import { Divider, type DividerCounts, Merger, memorySink, PAGE_BYTES } from 'abdm';

export interface Transferred {
  /** All frames, one behind the other. */
  frames: Uint8Array<ArrayBuffer>;
  copy: Uint8Array<ArrayBuffer>;
  counts: DividerCounts;
  mergedPages: number;
}

export async function transfer(image: Uint8Array, key: Uint8Array): Promise<Transferred> {
  const divider = await Divider.create({ key, dedupEntries: 10_000, batchPages: 256 });
  const merger = await Merger.create({ key, vms: [{ pages: image.length / PAGE_BYTES }] });
  const frames = new Uint8Array(image.length * 1.1);
  const copy = new Uint8Array(image.length);
  const sink = memorySink(copy);
  let end = 0;
  const batch = divider.acquire();
  for (let at = 0; at < image.length; at += batch.bytes.length) {
    const piece = image.subarray(at, at + batch.bytes.length);
    batch.bytes.set(piece);
    for (const frame of divider.divide(batch, { vm: 0, base: at / PAGE_BYTES, pages: piece.length / PAGE_BYTES })) {
      frames.set(frame.bytes, end);
      end += frame.bytes.length;
      const slot = merger.acquire();
      slot.bytes.set(frame.bytes);
      frame.release();
      merger.merge(slot, frame.bytes.length, sink);
      slot.release();
    }
  }
  return { frames: frames.slice(0, end), copy, counts: divider.counts, mergedPages: merger.mergedPages(0) };
}
