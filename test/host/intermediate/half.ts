// A client that sends only a part of a PUT, and the rest when told, if ever.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { parseAddress } from '#abdm/host/wire/address.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { decodeHeader, MessageType, messageName } from '#abdm/host/wire/messages.js';
import { message, pattern, until } from '../wire/pair.js';
import type { Answer } from './client.js';

export async function rawTo(address: string): Promise<Socket> {
  const socket = connect(parseAddress(address));
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.setNoDelay(true);
  return socket;
}

/** Connects, and sends `sent` of the `bytes` bytes of frame `id` (pattern(bytes, id)). */
export async function half(address: string, migration: string, id: number, bytes: number, sent: number) {
  const socket = await rawTo(address);
  let received = Buffer.alloc(0);
  socket.on('data', (data) => {
    received = Buffer.concat([received, data]);
  });
  const hello = encodeJson({ protocol: 3, role: 'source', migration });
  const put = message(MessageType.PUT, id, pattern(bytes, id));
  socket.write(message(MessageType.HELLO, 0, hello));
  socket.write(put.subarray(0, 16 + sent));
  const answer = async (): Promise<Answer> => {
    await until(() => received.byteLength >= 16 && received.byteLength >= 16 + decodeHeader(received, 0).bodyBytes);
    const header = decodeHeader(received, 0);
    const body = received.subarray(16, 16 + header.bodyBytes);
    received = received.subarray(16 + header.bodyBytes);
    return { name: messageName(header.type), id: header.id, body };
  };
  await answer();
  return { answer, rest: () => socket.write(put.subarray(16 + sent)), close: () => socket.destroy() };
}
