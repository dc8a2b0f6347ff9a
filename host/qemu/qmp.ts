// Asks a QEMU over its monitor socket (-qmp unix:PATH,server=on,wait=off). Lines of JSON; what comes is bounded before it is kept. Sources:
// docs/interop/qmp-spec.rst, qapi/control.json.
//
//   QEMU   {"QMP":{"version":{...},"capabilities":[]}}
//   we     {"execute":"qmp_capabilities","id":1}                  QEMU   {"return":{},"id":1}
//   we     {"execute":"migrate","arguments":{...},"id":2}         QEMU   {"error":{"class":"GenericError","desc":"..."},"id":2}
//   QEMU   {"event":"STOP","data":{...},"timestamp":{...}}        at any time after the first answer

import { connect, type Socket } from 'node:net';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { decodeJson, type JsonObject, need, printable } from '../wire/json.js';

/** The longest answers, lists of devices of a large guest, are some 100 KB. */
const MAX_LINE_BYTES = 1024 * 1024;
/** One that says nothing for so long is taken for gone: it may be stopped by a signal. A monitor answers in milliseconds, and only one user at a time. */
const ANSWER_MS = 30_000;

export interface QmpOptions {
  readonly answerMs?: number;
}

interface Waiting {
  readonly command: string;
  resolve(answer: unknown): void;
  reject(error: AbdmError): void;
  readonly timer: NodeJS.Timeout;
}

/** A connection to a monitor. Every failure is an AbdmError IMAGE. */
export class QmpClient {
  /** Called with each event. */
  onEvent: (event: string, data: JsonObject) => void = () => {};
  /** Called once, if the connection ends without `close`. */
  onGone: (error: AbdmError) => void = () => {};
  /** How long it may take to answer what it is asked from now on. */
  answerMs: number;
  readonly #path: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #parts: Buffer[] = [];
  #partBytes = 0;
  #lastId = 0;
  #gone: AbdmError | null = null;

  private constructor(path: string, socket: Socket, answerMs: number) {
    this.#path = path;
    this.#socket = socket;
    this.answerMs = answerMs;
    socket.on('data', this.#onData);
    socket.on('error', (error) => this.#end(error.message));
    socket.on('close', () => this.#end('it has closed the connection'));
  }

  static async open(path: string, { answerMs = ANSWER_MS }: QmpOptions = {}): Promise<QmpClient> {
    const socket = connect(path);
    const client = new QmpClient(path, socket, answerMs);
    // The greeting is its first answer, to something that nobody has asked.
    await client.#wait(0, 'connecting');
    await client.execute('qmp_capabilities');
    return client;
  }

  /** What it returns; the caller checks what that is. */
  execute(command: string, args?: object): Promise<unknown> {
    const id = ++this.#lastId;
    const answer = this.#wait(id, command);
    if (!this.#gone) this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    return answer;
  }

  close(): void {
    this.onGone = () => {};
    this.#end('let go of');
  }

  #wait(id: number, command: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#gone) return reject(this.#gone);
      const { answerMs } = this;
      const timer = setTimeout(() => {
        this.#end(
          `no answer to ${command} for ${answerMs / 1000} s: is it stopped, or its monitor used by somebody else?`,
        );
      }, answerMs);
      this.#waiting.set(id, { command, resolve, reject, timer });
    });
  }

  #onData = (data: Buffer): void => {
    try {
      for (let rest = data; rest.length > 0 && !this.#gone; ) rest = this.#take(rest);
    } catch (error) {
      this.#end(asAbdmError(error).message);
    }
  };

  /** Takes a line, or a part of one, and returns the rest. */
  #take(data: Buffer): Buffer {
    const end = data.indexOf(10);
    const part = end < 0 ? data : data.subarray(0, end);
    this.#partBytes += part.length;
    if (this.#partBytes > MAX_LINE_BYTES) {
      throw new AbdmError('PROTOCOL', `a line is longer than ${MAX_LINE_BYTES} bytes`);
    }
    this.#parts.push(part);
    if (end < 0) return data.subarray(data.length);
    const line = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    this.#line(decodeJson(line, 'a line of its monitor', MAX_LINE_BYTES));
    return data.subarray(end + 1);
  }

  #line(line: JsonObject): void {
    const what = 'a line of its monitor';
    const greeted = !this.#waiting.has(0);
    if (!greeted) {
      need.object(line, 'QMP', what);
      return this.#settle(0, what).resolve(line);
    }
    if (Object.hasOwn(line, 'event')) {
      const data = Object.hasOwn(line, 'data') ? need.object(line, 'data', what) : {};
      return this.onEvent(need.string(line, 'event', what), data);
    }
    if (Object.hasOwn(line, 'return')) return this.#settle(need.integer(line, 'id', what), what).resolve(line.return);
    const why = need.string(need.object(line, 'error', what), 'desc', what, MAX_LINE_BYTES);
    const { command, reject } = this.#settle(need.integer(line, 'id', what), what);
    reject(this.#failure(`refuses ${command}: ${printable(why)}`));
  }

  #settle(id: number, what: string): Waiting {
    const waiting = this.#waiting.get(id);
    if (!waiting) throw new AbdmError('PROTOCOL', `${what}: an answer to what nobody has asked`);
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    return waiting;
  }

  #end(why: string): void {
    if (this.#gone) return;
    this.#gone = this.#failure(`cannot be asked: ${why}; start QEMU with -qmp unix:${this.#path},server=on,wait=off`);
    this.#socket.destroy();
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(this.#gone);
    }
    this.#waiting.clear();
    this.onGone(this.#gone);
  }

  #failure(why: string): AbdmError {
    return new AbdmError('IMAGE', `QEMU at ${this.#path} ${why}`);
  }
}
