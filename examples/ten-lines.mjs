import { Divider, Merger, memorySink } from 'abdm';

const image = new Uint8Array(64 * 4096).map((_, i) => (i % 4096) >> (i >> 13));
const copy = new Uint8Array(image.length);
const key = crypto.getRandomValues(new Uint8Array(32)); // both ends need the same

const divider = await Divider.create({ key });
const batch = divider.acquire(); // room for 64 pages in the engine's memory
batch.bytes.set(image);
const [frame] = divider.divide(batch, { vm: 0, base: 0, pages: 64 });

const merger = await Merger.create({ key, vms: [{ pages: 64 }] });
const slot = merger.acquire(); // room for a frame
slot.bytes.set(frame.bytes); // ... or read it from a socket
merger.merge(slot, frame.bytes.length, memorySink(copy));
console.log(`${image.length} bytes traveled in ${frame.bytes.length}; ${merger.mergedPages(0)} pages arrived`);
