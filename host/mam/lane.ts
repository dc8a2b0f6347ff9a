// A connection to a node, as its client keeps it. Where the connection is secured there are two, made and lost together:
//
//   client                                  node
//   HELLO { role, migration }      ->                        over TLS: names, keys, tokens
//                                  <-  WELCOME { ..., ticket }
//   "ABDT" ticket id, PING         ->                        in the clear, each piece proved (wire/proof.ts): sealed blocks
//                                  <-  PONG                  the ticket was good, and the way lets something through

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { BodyTarget, Channel } from '../wire/channel.js';
import { type ConnectOptions, connect } from '../wire/connect.js';
import { type MessageHeader, MessageType } from '../wire/messages.js';
import { type Requests, unasked } from './requests.js';

export interface LaneOptions<T> {
  readonly requests: Requests;
  readonly connect: ConnectOptions;
  /** It must stand, and what is said first must be answered, within this. */
  readonly timeoutMs: number;
  readonly first: { readonly type: MessageType; readonly body?: Uint8Array };
  /** What that is answered with, and what it says. */
  readonly answer: MessageType;
  readonly decode: (body: Uint8Array) => T;
  /** Asked for something, it may say nothing at all for so long. */
  readonly answerMs: number;
  /** It is gone, after it stood. */
  readonly onClose: (reason: AbdmError, lane: Lane) => void;
}

export class Lane {
  /** It has answered something since it stands. */
  answered = false;
  /** It was given up, because nothing was answered for too long. */
  silent = false;
  /** Which messages belong here. */
  carries: (type: MessageType) => boolean = () => true;
  readonly #address: string;
  readonly #requests: Requests;
  readonly #answerMs: number;
  #channel!: Channel;
  #closed: AbdmError | null = null;
  /** Runs while an answer is due; each message from the node starts it anew. */
  #deadline: NodeJS.Timeout | undefined;

  private constructor(address: string, requests: Requests, answerMs: number) {
    this.#address = address;
    this.#requests = requests;
    this.#answerMs = answerMs;
  }

  /** A connection that stands, and what the first answer on it said. @throws {AbdmError} */
  static async open<T>(address: string, options: LaneOptions<T>): Promise<[Lane, T]> {
    const { first, answer, decode, timeoutMs } = options;
    const lane = new Lane(address, options.requests, options.answerMs);
    const by = performance.now() + timeoutMs;
    let stands = false;
    let resolve!: (said: T) => void;
    let reject!: (error: AbdmError) => void;
    const answered = new Promise<T>((...both) => {
      [resolve, reject] = both;
    });
    lane.#channel = await connect(
      address,
      {
        bodyTarget: (header) => (stands ? lane.#bodyTarget(header) : null),
        onMessage: (header, body) => {
          if (stands) return lane.#onMessage(header, body);
          if (header.type !== answer) throw unasked(address, header);
          const said = decode(body);
          stands = true;
          resolve(said);
        },
        onClose: (error) => {
          lane.#closed = error ?? new AbdmError('PEER_GONE', `the connection to ${address} has ended`);
          lane.#stopWaiting();
          reject(lane.#closed);
          if (stands) options.onClose(lane.#closed, lane);
        },
      },
      { ...options.connect, timeoutMs },
    );
    const { signal } = options.connect;
    const giveUp = () => lane.destroy(asAbdmError(signal?.reason));
    signal?.addEventListener('abort', giveUp);
    if (signal?.aborted) giveUp();
    lane.#channel.send(first.type, 0, first.body);
    const timer = setTimeout(() => {
      const said = answer === MessageType.WELCOME ? 'WELCOME' : 'PONG on a plain connection';
      const text = `${address} accepts connections, and has not said ${said} within ${timeoutMs} ms: is it stopped?`;
      lane.destroy(new AbdmError('PEER_UNREACHABLE', text));
    }, by - performance.now());
    const said = await answered.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', giveUp);
    });
    return [lane, said];
  }

  get open(): boolean {
    return this.#channel.open;
  }

  /** Why it is gone; null before. */
  get closed(): AbdmError | null {
    return this.#closed;
  }

  get bytesIn(): number {
    return this.#channel.bytesIn;
  }

  get bytesOut(): number {
    return this.#channel.bytesOut;
  }

  /** Says something without an answer. */
  tell(type: MessageType, body: Uint8Array): void {
    this.#channel.send(type, 0, body);
  }

  /** Says something that is to be answered. */
  ask(type: MessageType, id: number, body?: Uint8Array, onWritten?: () => void, chain?: number): void {
    this.#deadline ??= setTimeout(() => {
      this.silent = true;
      const text = `${this.#address} has been asked, and has not answered for ${this.#answerMs} ms`;
      this.destroy(new AbdmError('PEER_GONE', text));
    }, this.#answerMs);
    this.#channel.send(type, id, body, onWritten, chain);
  }

  end(): void {
    this.#channel.end();
  }

  destroy(error: AbdmError | null = null): void {
    this.#channel.destroy(error);
  }

  #bodyTarget(header: MessageHeader): BodyTarget {
    if (!this.carries(header.type)) throw unasked(this.#address, header);
    const target = this.#requests.bodyTarget(header);
    // There will be no message of it.
    if (target === 'discard') this.#onAnswer();
    return target;
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    this.#requests.onMessage(header, body);
    this.#onAnswer();
  }

  #onAnswer(): void {
    this.answered = true;
    if (this.#requests.due(this.carries) > 0) this.#deadline?.refresh();
    else this.#stopWaiting();
  }

  #stopWaiting(): void {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }
}
