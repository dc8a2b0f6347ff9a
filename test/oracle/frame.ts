// docs/protocol.md's frame, read slowly: what a reader without a key must accept, and nothing else.

/** Everything but the checksum. */
export function isFrame(frame: Uint8Array): boolean {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 40 + 8 + 16 + 8 || frame.length > 264_256) return false;
  if (String.fromCharCode(...frame.subarray(0, 4)) !== 'ABDF' || frame[4] !== 1) return false;
  const flags = frame[5]!;
  const id = view.getBigUint64(8, true);
  const base = view.getBigUint64(16, true);
  const [pages, ids, duplicates] = [28, 30, 32].map((at) => view.getUint16(at, true)) as [number, number, number];
  if (flags > 3 || view.getUint16(34, true) !== 0 || view.getUint32(36, true) !== 0) return false;
  if (id < 1n || id >= 1n << 47n || base >= 1n << 53n || view.getUint32(24, true) !== frame.length) return false;
  if (pages < 1 || pages > 64) return false;

  let reference = 40 + pages * 8 + ids * 16;
  const payload = reference + duplicates * 8 + 16;
  if (payload + 8 > frame.length) return false;
  let [named, duplicated, length, previous] = [0, 0, 0, -1];
  const kinds: number[] = [];
  for (let slot = 0; slot < pages; slot++) {
    const at = 40 + slot * 8;
    const [delta, kind, target, bytes] = [
      view.getUint16(at, true),
      frame[at + 2]!,
      frame[at + 3]!,
      view.getUint16(at + 4, true),
    ];
    if (view.getUint16(at + 6, true) !== 0 || delta <= previous || (slot === 0 && delta !== 0)) return false;
    previous = delta;
    kinds.push(kind);
    length += bytes;
    if (kind > 0) named++;
    if (kind === 1) {
      if (++duplicated > duplicates || bytes !== 0 || target > 63) return false;
      const holder = view.getBigUint64(reference, true);
      reference += 8;
      if (holder < 1n || holder > id) return false;
      if (holder === id && !(target < slot && kinds[target]! >= 2)) return false;
    } else if (target !== 0) return false;
    else if (kind === 0 && bytes !== 0) return false;
    else if (kind === 2 && (bytes < 1 || bytes > 4095)) return false;
    else if (kind === 3 && bytes !== 4096) return false;
    else if (kind > 3) return false;
  }
  if (duplicated !== duplicates || payload + length + 8 !== frame.length) return false;
  return flags & 1 ? ids === 0 && duplicates === 0 : named === ids;
}
