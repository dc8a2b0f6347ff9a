// Lines of JSON over a socket, some with bytes behind them. Both ends use it; what comes is bounded before anything is kept.

import type { Socket } from 'node:net';
import { AbdmError } from '../../bindings/errors.js';
import { decodeJson, type JsonObject } from '../wire/json.js';

const MAX_LINE_BYTES = 16 * 1024;
const NOTHING = new Uint8Array(0);

export interface LineHandler {
  /** How many bytes follow this line. @throws {AbdmError} PROTOCOL. */
  bodyBytes(message: JsonObject): number;
  /** @throws {AbdmError} PROTOCOL if it makes no sense: then `onError` is next. */
  onMessage(message: JsonObject, body: Uint8Array): void;
  /** What came is nothing that we understand; nothing more is read. */
  onError(error: unknown): void;
}

export class Lines {
  readonly #socket: Socket;
  readonly #handler: LineHandler;
  /** A line that is not complete yet. */
  #parts: Buffer[] = [];
  #partBytes = 0;
  /** A line whose bytes are not complete yet. */
  #body: { readonly message: JsonObject; readonly bytes: Uint8Array; done: number } | null = null;

  constructor(socket: Socket, handler: LineHandler) {
    this.#socket = socket;
    this.#handler = handler;
    socket.on('data', this.#onData);
  }

  send(message: object, body: Uint8Array = NOTHING): void {
    if (this.#socket.destroyed) return;
    const line = body.length > 0 ? { ...message, body: body.length } : message;
    this.#socket.write(`${JSON.stringify(line)}\n`);
    if (body.length > 0) this.#socket.write(body);
  }

  #onData = (data: Buffer): void => {
    try {
      for (let rest = data; rest.length > 0 && !this.#socket.destroyed; ) rest = this.#take(rest);
    } catch (error) {
      this.#socket.off('data', this.#onData).resume();
      this.#handler.onError(error);
    }
  };

  /** Takes some of what has come, and returns the rest. */
  #take(data: Buffer): Buffer {
    if (this.#body) {
      const { message, bytes, done } = this.#body;
      const some = data.subarray(0, bytes.length - done);
      bytes.set(some, done);
      this.#body.done += some.length;
      if (this.#body.done === bytes.length) this.#whole(message, bytes);
      return data.subarray(some.length);
    }
    const end = data.indexOf(10);
    const part = end < 0 ? data : data.subarray(0, end);
    this.#parts.push(part);
    this.#partBytes += part.length;
    if (this.#partBytes > MAX_LINE_BYTES) {
      throw new AbdmError('PROTOCOL', `a line is longer than ${MAX_LINE_BYTES} bytes`);
    }
    if (end < 0) return data.subarray(data.length);
    const message = decodeJson(Buffer.concat(this.#parts), 'a line', MAX_LINE_BYTES);
    this.#parts = [];
    this.#partBytes = 0;
    const bytes = this.#handler.bodyBytes(message);
    if (bytes > 0) this.#body = { message, bytes: new Uint8Array(bytes), done: 0 };
    else this.#whole(message, NOTHING);
    return data.subarray(end + 1);
  }

  #whole(message: JsonObject, body: Uint8Array): void {
    this.#body = null;
    this.#handler.onMessage(message, body);
  }
}
