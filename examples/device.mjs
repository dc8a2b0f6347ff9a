// The memory of a VM as one device at the nodes: written and read by offset, wherever its pages lie. One program writes, another one reads, and neither
// knows which node has what.
//
//   abdm intermediate --listen 127.0.0.1:7000 --memory 1G &
//   export KEY=$(openssl rand -hex 32)
//   node examples/device.mjs write web disk.img 127.0.0.1:7000
//   node examples/device.mjs read web copy.img 127.0.0.1:7000

import { open } from 'node:fs/promises';
import { DeviceReader, DeviceWriter } from 'abdm/host';

const [what, name, path, nodes = ''] = process.argv.slice(2);
const options = { name, key: Buffer.from(process.env.KEY, 'hex'), intermediates: nodes.split(',') };
const CHUNK = 64 * 4096;

if (what === 'write') {
  const file = await open(path);
  const { size } = await file.stat();
  const device = await DeviceWriter.create({ ...options, bytes: size });
  for (let at = 0; at < size; at += CHUNK) {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(Math.min(CHUNK, size - at)), { position: at });
    await device.write(at, buffer.subarray(0, bytesRead)); // any pages, in any order, as often as wanted
  }
  await device.close(); // all of it is at the nodes, and can be found there without us
  await file.close();
  console.log(`${size} bytes are on the device ${name}`);
} else {
  const device = await DeviceReader.open(options);
  const file = await open(path, 'w');
  for (let at = 0; at < device.bytes; at += CHUNK) {
    await file.write(await device.read(at, Math.min(CHUNK, device.bytes - at)), 0, undefined, at);
  }
  await file.close();
  await device.drop(); // the nodes forget it; `close` would leave it there
  console.log(`${device.bytes} bytes were on the device ${name}`);
}
