// The demo's process to be moved: fills its heap, says `ready`, and waits. Started by workload.ts; never outlives whoever started it.
// usage: workload-child.js BYTES
import { HeapBuilder, UNIT_BYTES, type Unit } from './heap.js';

const PARENT_CHECK_MS = 500;

// Before anything else: the parent may end while the heap is filled.
const parent = process.ppid;
process.on('disconnect', () => process.exit(0));
// Not every parent has a channel to us; one that ends leaves us to another. Keeps this process alive, too.
setInterval(() => {
  if (process.ppid !== parent) process.exit(0);
}, PARENT_CHECK_MS);

const units = Math.max(1, Math.round(Number(process.argv[2] ?? 0) / UNIT_BYTES));
const builder = new HeapBuilder(units);
const heap: Unit[] = [];
for (let index = 0; index < units; index++) heap.push(builder.unit(index));
builder.close();
// Reachable from outside, so that the collector leaves it.
Object.assign(globalThis, { heap });

if (process.send) {
  if (process.connected) process.send('ready');
  else process.exit(0);
} else process.stdout.write('ready\n');
