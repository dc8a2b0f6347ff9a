// A divider over a stream of your own: sends a file's pages over any stream that is done with bytes when it calls back, as sockets and files are.
// (A PassThrough is not, it hands them on: write copies to it.) receive.mjs is the other end.
//
//   export KEY=$(openssl rand -hex 32)
//   node examples/receive.mjs 7000 copy.img &
//   node examples/send.mjs 7000 disk.img

import { open } from 'node:fs/promises';
import { connect } from 'node:net';
import { finished } from 'node:stream/promises';
import { Divider, PAGE_BYTES } from 'abdm';

/** Writes what the file at `path` holds to `stream`, as frames that a receiver with the same key can merge. */
export async function send(path, stream, key) {
  // Listens from the start: a stream may fail at any time.
  const sent = finished(stream, { readable: false });
  sent.catch(() => {});
  const divider = await Divider.create({ key });
  const file = await open(path);
  try {
    const { size } = await file.stat();
    writeMessage(stream, Buffer.from(JSON.stringify({ size })));
    let at = 0;
    while (at < size && stream.writable) {
      // Read straight into the engine's memory. What is left of the last page is zero.
      const batch = divider.acquire();
      const { bytesRead } = await file.read(batch.bytes, 0, batch.bytes.length, at);
      const pages = at + bytesRead === size ? Math.ceil(bytesRead / PAGE_BYTES) : Math.floor(bytesRead / PAGE_BYTES);
      batch.bytes.fill(0, bytesRead);
      // A slow receiver holds us up here: until the stream has let go of earlier frames.
      await divider.ready();
      for (const frame of divider.divide(batch, { vm: 0, base: at / PAGE_BYTES, pages })) {
        writeMessage(stream, frame.bytes, () => frame.release());
      }
      batch.release();
      at += pages * PAGE_BYTES;
    }
    stream.end();
    await sent;
    if (at < size) throw new Error('the receiver has closed the stream');
  } finally {
    await file.close();
  }
  return divider.counts;
}

/** A message is its length in four bytes, and its bytes. */
function writeMessage(stream, bytes, written) {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  stream.write(length);
  stream.write(bytes, written);
}

if (process.argv[1] === import.meta.filename) {
  const [port, path] = process.argv.slice(2);
  console.log(await send(path, connect(Number(port), '127.0.0.1'), Buffer.from(process.env.KEY, 'hex')));
}
