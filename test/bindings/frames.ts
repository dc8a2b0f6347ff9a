// Frames as tests see them: read from their bytes in the plainest way, beside what the library says of them.

export const KIND = { zero: 0, duplicate: 1, lz4: 2, raw: 3 } as const;

export interface ReadSlot {
  pfn: number;
  kind: number;
  /** Of a duplicate: where its content is. */
  at: { frame: number; slot: number } | null;
}

/** The page table of a frame that is right (docs/protocol.md draws it). */
export function slotsOf(frame: Uint8Array): ReadSlot[] {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const base = Number(view.getBigUint64(16, true));
  const [pages, ids] = [view.getUint16(28, true), view.getUint16(30, true)];
  let reference = 40 + 8 * pages + 16 * ids;
  return Array.from({ length: pages }, (_, i) => {
    const entry = 40 + 8 * i;
    const kind = view.getUint8(entry + 2);
    const slot = { pfn: base + view.getUint16(entry, true), kind, at: null };
    if (kind !== KIND.duplicate) return slot;
    const frame = Number(view.getBigUint64(reference, true));
    reference += 8;
    return { ...slot, at: { frame, slot: view.getUint8(entry + 3) } };
  });
}
