// Deduplicates and compresses a file of pages (a disk, a memory dump) into a file, and back.
//
//   node examples/pack.mjs pack disk.img disk.abdm
//   node examples/pack.mjs unpack disk.abdm copy.img
//
// The packed file: the key (32 bytes), the size (8 bytes), and then each frame behind its length (4 bytes).

import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { Divider, Merger, PAGE_BYTES } from 'abdm';

/** Packs the file `from` into the file `to`. Returns how many pages of which kind there were. */
export async function pack(from, to) {
  const key = randomBytes(32); // here it only has to be the same later, so it goes into the file
  const divider = await Divider.create({ key, slots: 1 });
  const [input, output] = [openSync(from, 'r'), openSync(to, 'w')];
  const { size } = fstatSync(input);
  const header = Buffer.concat([key, Buffer.alloc(8)]);
  header.writeBigUInt64LE(BigInt(size), key.length);
  writeSync(output, header);
  const batch = divider.acquire();
  for (let at = 0; at < size; at += batch.bytes.length) {
    const bytes = readSync(input, batch.bytes, 0, batch.bytes.length, at);
    batch.bytes.fill(0, bytes); // of the last page
    const pages = Math.ceil(bytes / PAGE_BYTES);
    for (const frame of divider.divide(batch, { vm: 0, base: at / PAGE_BYTES, pages })) {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(frame.bytes.length);
      writeSync(output, length);
      writeSync(output, frame.bytes);
      frame.release();
    }
  }
  closeSync(input);
  closeSync(output);
  return divider.counts;
}

/** Unpacks the file `from` into the file `to`. Throws if a frame in it was changed, or is missing. */
export async function unpack(from, to) {
  const [input, output] = [openSync(from, 'r'), openSync(to, 'w+')];
  const header = Buffer.alloc(40);
  readSync(input, header);
  const size = Number(header.readBigUInt64LE(32));
  const pages = Math.ceil(size / PAGE_BYTES);
  const merger = await Merger.create({ key: header.subarray(0, 32), vms: [{ pages }], slots: 1 });
  const slot = merger.acquire();
  const sink = {
    write: (_vm, pfn, memory, offset, bytes) => writeSync(output, memory, offset, bytes, pfn * PAGE_BYTES),
    zero: () => {}, // what is not written is zero
    read: (_vm, pfn, memory, offset) => readSync(output, memory, offset, PAGE_BYTES, pfn * PAGE_BYTES) === PAGE_BYTES,
  };
  const length = Buffer.alloc(4);
  while (readSync(input, length) === 4) {
    const bytes = readSync(input, slot.bytes, 0, Math.min(length.readUInt32LE(), slot.bytes.length), null);
    merger.merge(slot, bytes, sink);
  }
  if (merger.mergedPages(0) < pages) throw new Error(`${from} is cut short`);
  ftruncateSync(output, size);
  closeSync(input);
  closeSync(output);
  return merger.counts[0];
}

if (process.argv[1] === import.meta.filename) {
  const [what, from, to] = process.argv.slice(2);
  console.log(what === 'pack' ? await pack(from, to) : await unpack(from, to));
}
