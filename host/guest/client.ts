// Asks a guest, from another process.

import { connect, type Socket } from 'node:net';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { JsonObject } from '../wire/json.js';
import { Lines } from './lines.js';
import { bodyBytes, type Request, readAnswer, readFault } from './protocol.js';

/** One that says nothing for so long is taken for gone: it may be stopped by a signal. */
const ANSWER_MS = 30_000;

export interface Answer {
  readonly answer: JsonObject;
  readonly body: Uint8Array;
}

/** A connection to a guest. It keeps no process alive, but while an answer is waited for. Every failure is an AbdmError IMAGE. */
export class GuestClient {
  /** Called with pages that the guest waits for. */
  onFault: (pfns: readonly number[]) => void = () => {};
  /** Called once, if the connection ends without `close`. */
  onGone: (error: AbdmError) => void = () => {};
  /** Why nothing can be asked any more. */
  gone: AbdmError | null = null;
  readonly #path: string;
  readonly #socket: Socket;
  readonly #lines: Lines;
  readonly #waiting: {
    resolve(answer: Answer): void;
    reject(error: AbdmError): void;
    timer: NodeJS.Timeout | undefined;
  }[] = [];

  private constructor(path: string, socket: Socket) {
    this.#path = path;
    this.#socket = socket;
    this.#lines = new Lines(socket, {
      bodyBytes: bodyBytes.ofAnswer,
      onMessage: (message, body) => this.#onMessage(message, body),
      onError: (error) => this.#end(asAbdmError(error).message),
    });
    socket.on('error', (error) => this.#end(error.message));
    socket.on('close', () => this.#end('it has ended'));
    socket.unref();
  }

  static async open(path: string): Promise<GuestClient> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (cause) => {
        const what = `no guest can be reached at ${path}: ${cause.message}`;
        reject(new AbdmError('IMAGE', `${what}; start one with abdm guest --socket ${path}`, { cause }));
      });
    });
    return new GuestClient(path, socket);
  }

  /** @param patient the answer may take as long as it takes. */
  request(request: Request, body?: Uint8Array, patient = false): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.gone) return reject(this.gone);
      const timer = patient ? undefined : setTimeout(() => this.#end(`no answer for ${ANSWER_MS / 1000} s`), ANSWER_MS);
      this.#waiting.push({ resolve, reject, timer });
      this.#socket.ref();
      this.#lines.send(request, body);
    });
  }

  /** Says something that has no answer. */
  tell(request: Request): void {
    this.#lines.send(request);
  }

  close(): void {
    this.onGone = () => {};
    this.#end('let go of');
  }

  #onMessage(message: JsonObject, body: Uint8Array): void {
    const pfns = readFault(message);
    if (pfns) return this.onFault(pfns);
    const first = this.#waiting.shift();
    if (!first) throw new AbdmError('PROTOCOL', 'it answers what nobody has asked');
    clearTimeout(first.timer);
    if (this.#waiting.length === 0) this.#socket.unref();
    try {
      first.resolve({ answer: readAnswer(message), body });
    } catch (error) {
      first.reject(this.#failure(asAbdmError(error).message));
    }
  }

  #end(why: string): void {
    if (this.gone) return;
    this.gone = this.#failure(`gone: ${why}`);
    this.#socket.destroy();
    for (const { reject, timer } of this.#waiting.splice(0)) {
      clearTimeout(timer);
      reject(this.gone);
    }
    this.onGone(this.gone);
  }

  #failure(why: string): AbdmError {
    return new AbdmError('IMAGE', `guest ${this.#path}: ${why}`);
  }
}
