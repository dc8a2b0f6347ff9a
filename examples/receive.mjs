// A merger over a stream of your own: merges what send.mjs sends into a file.

import { once } from 'node:events';
import { readSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer } from 'node:net';
import { MAX_FRAME_BYTES, Merger, PAGE_BYTES } from 'abdm';

/** Merges the frames that come in `stream` into a file at `path`. Rejects if one is damaged, forged or missing. */
export async function receive(stream, path, key) {
  const messages = readMessages(stream);
  const { size } = JSON.parse(String((await messages.next()).value));
  const pages = Math.ceil(size / PAGE_BYTES);
  const merger = await Merger.create({ key, vms: [{ pages }] });
  const file = await open(path, 'w+');
  try {
    await file.truncate(pages * PAGE_BYTES);
    const sink = {
      write: (_vm, pfn, memory, offset, bytes) => writeSync(file.fd, memory, offset, bytes, pfn * PAGE_BYTES),
      zero: () => {}, // a new file is zero already
      read: (_vm, pfn, memory, offset) =>
        readSync(file.fd, memory, offset, PAGE_BYTES, pfn * PAGE_BYTES) === PAGE_BYTES,
    };
    for await (const frame of messages) {
      const slot = merger.acquire();
      slot.bytes.set(frame);
      merger.merge(slot, frame.length, sink);
      slot.release();
    }
    const missing = pages - merger.mergedPages(0);
    if (missing > 0) throw new Error(`the stream ended, but ${missing} pages are missing`);
    await file.truncate(size);
  } finally {
    await file.close();
  }
  return merger.counts[0];
}

/** Cuts a stream into messages. No message is longer than a frame can be. */
async function* readMessages(stream) {
  let rest = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 4) {
      const end = 4 + rest.readUInt32LE();
      if (end > 4 + MAX_FRAME_BYTES) throw new Error('this is no stream of frames');
      if (rest.length < end) break;
      yield rest.subarray(4, end);
      rest = rest.subarray(end);
    }
  }
}

if (process.argv[1] === import.meta.filename) {
  const [port, path] = process.argv.slice(2);
  const server = createServer().listen(Number(port), '127.0.0.1');
  const [socket] = await once(server, 'connection');
  server.close();
  console.log(await receive(socket, path, Buffer.from(process.env.KEY, 'hex')));
}
