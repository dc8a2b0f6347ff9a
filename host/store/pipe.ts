// One connection to a store for blocks: requests go out without waiting for answers, a block goes from where it lies to the socket, and from the socket to
// where it is to lie. Lines end with CR LF; what a line means is the grammar's business (redis/resp.ts, memcached/meta.ts).
//
//   request 1, request 2 with a block, ...   ->
//                                            <-  a line, or a line and a value, for each, in order

import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { AbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress } from '../wire/address.js';
import type { ReadTarget } from './engine.js';

/** What a line of an answer means: all of it, that a value follows, that more lines do; null: it is no answer. */
export type Line<R> = { readonly reply: R } | { readonly bytes: number; readonly reply: R } | 'more' | null;

/** Reads one line after the other, without its end. */
export type Grammar<R> = (line: string) => Line<R>;

const READ_BYTES = 256 * 1024;
/** No line that is meant here is longer. */
const MAX_LINE = 1024;
/** Asked for something, and silent for so long: it is given up. */
const SILENT_MS = 5_000;

interface Request<R> {
  readonly target: ReadTarget;
  resolve(reply: R): void;
  reject(error: AbdmError): void;
}

/** A value that is coming: how much of it, and of its line's end, is still to come. */
interface Value<R> {
  readonly bytes: number;
  readonly reply: R;
  left: number;
}

export class Pipe<R> {
  readonly name: string;
  readonly #socket: Socket;
  readonly #grammar: Grammar<R>;
  readonly #requests: Request<R>[] = [];
  readonly #onClose: (why: AbdmError) => void;
  #line = '';
  #value: Value<R> | null = null;
  #error: AbdmError | null = null;

  /** Connects; what is asked meanwhile is sent then. `onClose` is called once, also if that fails. */
  constructor(
    address: Address,
    tls: boolean,
    grammar: Grammar<R>,
    timeoutMs: number,
    onClose: (why: AbdmError) => void = () => {},
  ) {
    const { host, port } = address;
    const name = formatAddress(address);
    // Read into one buffer again and again: to have one made for each read costs as much as all the rest.
    const onread = {
      buffer: new Uint8Array(READ_BYTES),
      callback: (bytes: number, buffer: Uint8Array) => {
        this.#onData(Buffer.from(buffer.buffer, 0, bytes));
        return true;
      },
    };
    const socket = tls
      ? connectTls({ host, port, ...(isIP(host) === 0 && { servername: host }) })
      : connectTcp({ host, port, onread });
    this.name = name;
    this.#socket = socket;
    this.#grammar = grammar;
    this.#onClose = onClose;
    socket.setNoDelay(true);
    const late = setTimeout(() => this.close(`${name} cannot be reached within ${timeoutMs} ms`), timeoutMs);
    socket.once('close', () => clearTimeout(late));
    socket.once(tls ? 'secureConnect' : 'connect', () => clearTimeout(late));
    socket.setTimeout(SILENT_MS, () => {
      if (this.#requests.length > 0) this.close(`${name} says nothing`);
    });
    if (tls) socket.on('data', (chunk) => this.#onData(chunk));
    socket.on('error', (cause) => this.close(`${name}: ${cause.message}`, cause));
    socket.on('close', () => this.close(`${name} has ended the connection`));
  }

  get open(): boolean {
    return this.#error === null;
  }

  /** Sends a request; a part of it may be a block, which is not read any more once it is answered. @throws {AbdmError} PEER_GONE. */
  ask(parts: readonly (string | Uint8Array)[], target: ReadTarget = { into: null }): Promise<R> {
    if (this.#error) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => {
      this.#requests.push({ target, resolve, reject });
      this.#socket.cork();
      for (const part of parts) this.#socket.write(part);
      this.#socket.uncork();
    });
  }

  close(why = 'the connection was closed', cause?: unknown): void {
    if (this.#error) return;
    this.#error = new AbdmError('PEER_GONE', why, { cause });
    this.#socket.destroy();
    for (const { reject } of this.#requests.splice(0)) reject(this.#error);
    this.#onClose(this.#error);
  }

  #onData(chunk: Buffer): void {
    for (let at = 0; at < chunk.byteLength && !this.#error; ) {
      at = this.#value ? this.#onValue(chunk, at) : this.#onLine(chunk, at);
    }
  }

  #onValue(chunk: Buffer, at: number): number {
    const value = this.#value!;
    const here = Math.min(value.left, chunk.byteLength - at);
    const start = value.bytes + 2 - value.left;
    const { target } = this.#requests[0]!;
    if (target.into && start < value.bytes) {
      target.into.set(chunk.subarray(at, Math.min(at + here, at + value.bytes - start)), start);
    }
    value.left -= here;
    if (value.left === 0) {
      this.#value = null;
      this.#answer(value.reply);
    }
    return at + here;
  }

  #onLine(chunk: Buffer, at: number): number {
    const end = chunk.indexOf(10, at);
    const to = end < 0 ? chunk.byteLength : end + 1;
    this.#line += chunk.toString('latin1', at, to);
    if (this.#line.length > MAX_LINE) this.#confused();
    else if (end >= 0) {
      const line = this.#line.slice(0, -2);
      this.#line = '';
      this.#onLineEnd(line);
    }
    return to;
  }

  #onLineEnd(text: string): void {
    const request = this.#requests[0];
    const line = request ? this.#grammar(text) : null;
    if (line === null) return this.#confused();
    if (line === 'more') return;
    if (!('bytes' in line)) return this.#answer(line.reply);
    const { bytes, reply } = line;
    // A value that is longer than where it is to lie is none of ours.
    const { target } = request!;
    if (target.into && bytes > target.into.byteLength) target.into = null;
    this.#value = { bytes, reply, left: bytes + 2 };
  }

  #answer(reply: R): void {
    this.#requests.shift()!.resolve(reply);
  }

  #confused(): void {
    this.close(`${this.name} answers what is no answer`);
  }
}
