// One TCP connection that speaks messages, without a copy in either direction: bodies are written from where they lie, and read to where
// the handler wants them. It is bounded by whom it serves: the handler says 'wait' when it cannot take more, and looks at `pendingBytes`
// before it sends more.
//
// How a channel ends, and what `onClose` is told:
//   the peer ends between messages     null where that is allowed (`peerMayEnd`, or after our `end`), else PEER_GONE
//   the peer ends within a message     PEER_GONE, with how much of it had arrived
//   the peer sends bad bytes           PROTOCOL; it is sent ERROR first
//   the peer sends ERROR               PEER_ABORTED, with its words
//   the peer is silent or stuck        PEER_GONE, or PEER_UNREACHABLE if it never answered
//   the peer does not take us for us   UNAUTHENTICATED
//   somebody between changed bytes     PEER_GONE, where the two ends prove what they send (proof.ts)

import type { OnReadOpts, Socket } from 'node:net';
import { AbdmError } from '../../bindings/errors.js';
import { decodeJson, encodeJson, need, printable } from './json.js';
import { encodeHeader, HEADER_BYTES, type MessageHeader, MessageType, messageName } from './messages.js';
import type { Proofs } from './proof.js';
import { type BodyTarget, Receiver } from './receiver.js';

export type { BodyTarget } from './receiver.js';

/** What a channel's owner does. An AbdmError thrown from the first two is sent to the peer as ERROR and ends the channel. */
export interface ChannelHandler {
  /**
   * Where the body goes (see {@link BodyTarget}); without it, every body goes to the channel's own memory. A target may be written to until
   * `onMessage` or `onClose`, even after `fail`: use its memory for nothing else before.
   */
  bodyTarget?(header: MessageHeader, channel: Channel): BodyTarget;
  /** `body` is the target; or, where that was null, memory that is valid only during the call. */
  onMessage(header: MessageHeader, body: Uint8Array, channel: Channel): void;
  /** Once, when the connection is gone. `error` is null after an orderly end. */
  onClose?(error: AbdmError | null, channel: Channel): void;
}

export const HANDSHAKE_MS = 10_000;

/** How long a peer may take for what. */
export interface ChannelOptions {
  /** The peer's first message must be complete within this. Default 10 s. */
  readonly handshakeMs?: number;
  /** No byte for so long, in the middle of a message or with output that the peer does not take: it is gone. Default 60 s; 0: never. */
  readonly stallMs?: number;
  /** How long a peer may take to close after we ended or failed. Default 2 s. */
  readonly lingerMs?: number;
  /** The peer may end the conversation between messages: so at a server. */
  readonly peerMayEnd?: boolean;
}

/** A socket, and whether it reads by the `onread` that it was given ('data' events otherwise). */
export interface OpenSocket {
  readonly socket: Socket;
  readonly direct: boolean;
}

/** What came before the first message. */
export interface Opening {
  /** Bytes that were read already. */
  readonly head?: Uint8Array;
  /** Both ends prove what they send. */
  readonly proofs?: Proofs | null;
}

/** One TCP connection that speaks messages. Made by {@link connect}, or by {@link listen} for those who do. */
export class Channel {
  /** May be changed at any time, such as after a handshake. */
  handler: ChannelHandler;
  /** HOST:PORT of the other end. */
  readonly peer: string;
  /** Bodies are read straight to their targets; false if they are copied there. */
  readonly direct: boolean;

  readonly #socket: Socket;
  readonly #receiver: Receiver;
  readonly #opening: Opening;
  readonly #options: Required<ChannelOptions>;
  #error: AbdmError | null = null;
  #state: 'open' | 'ending' | 'closed' = 'open';
  #heard = false;
  #busy = false;
  #wake = false;
  #bytesIn = 0;
  #bytesOut = 0;
  #pendingMessages = 0;
  #deadline: NodeJS.Timeout | undefined;

  /** Use `connect` or `listen`. `open` makes the socket, which reads by the given `onread` if it can. */
  constructor(
    peer: string,
    handler: ChannelHandler,
    options: ChannelOptions,
    open: (onread: OnReadOpts) => OpenSocket,
    opening: Opening = {},
  ) {
    this.handler = handler;
    this.peer = peer;
    this.#opening = opening;
    this.#options = { handshakeMs: HANDSHAKE_MS, stallMs: 60_000, lingerMs: 2_000, peerMayEnd: false, ...options };
    const takes = {
      bodyTarget: (header: MessageHeader) => {
        if (header.type === MessageType.ERROR) return null;
        return this.handler.bodyTarget ? this.handler.bodyTarget(header, this) : null;
      },
      onMessage: (header: MessageHeader, body: Uint8Array) => this.#onMessage(header, body),
    };
    this.#receiver = new Receiver(takes, opening.proofs?.in ?? null);
    const { socket, direct } = open({
      buffer: () => this.#receiver.next(),
      callback: (bytes, into) => this.#onRead(bytes, () => this.#receiver.read(into, bytes)),
    });
    this.#socket = socket;
    this.direct = direct;
    socket.on('end', () => this.#onEnd());
    socket.on('error', (cause) => this.#note('PEER_GONE', `the connection broke: ${cause.message}`, cause));
    socket.on('close', () => this.#onClosed());
    socket.on('timeout', () => this.#onSilence());
  }

  /** Called once, by `connect` and `listen`, when the connection stands: deadlines run from here. */
  start(): void {
    const { handshakeMs, stallMs } = this.#options;
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, 30_000);
    this.#socket.setTimeout(stallMs);
    this.#deadline = setTimeout(() => {
      const code = this.#options.peerMayEnd ? 'PEER_GONE' : 'PEER_UNREACHABLE';
      this.fail(new AbdmError(code, `${this.peer} connected but sent no whole message within ${handshakeMs} ms`));
    }, handshakeMs);
    const feed = (bytes: Uint8Array) => {
      if (!this.#onRead(bytes.byteLength, () => this.#receiver.feed(bytes))) this.#socket.pause();
    };
    if (!this.direct) {
      this.#socket.on('data', feed);
      this.#socket.resume();
    }
    if (this.#opening.head?.byteLength) feed(this.#opening.head);
  }

  /** Bytes received, headers included. */
  get bytesIn(): number {
    return this.#bytesIn;
  }

  /** Bytes sent or about to be, headers included. */
  get bytesOut(): number {
    return this.#bytesOut;
  }

  /** Bytes that were sent but that the kernel has not taken yet. */
  get pendingBytes(): number {
    return this.#socket.writableLength;
  }

  /** Messages likewise: each costs a few hundred bytes of heap, whatever its length. */
  get pendingMessages(): number {
    return this.#pendingMessages;
  }

  /** Messages can be sent: neither ended, nor failed, nor gone. */
  get open(): boolean {
    return this.#state === 'open';
  }

  /** Whether small messages leave at once, as they do unless told otherwise. */
  setNoDelay(on: boolean): void {
    this.#socket.setNoDelay(on);
  }

  /**
   * Sends a message. The body is not copied: it must stay as it is until `onWritten`, which is called once, also if the connection is gone
   * and nothing was sent (then `onClose` says so).
   * @param body one piece, or several that make the body together.
   * @param chain of a PUT: the chain that it is forwarded along.
   * @throws {RangeError} if the message breaks the protocol's limits.
   */
  send(
    type: MessageType,
    id: number,
    body?: Uint8Array | readonly Uint8Array[],
    onWritten?: () => void,
    chain = 0,
  ): void {
    const parts = body === undefined ? [] : body instanceof Uint8Array ? [body] : body;
    let bodyBytes = 0;
    for (const part of parts) bodyBytes += part.byteLength;
    const header = Buffer.allocUnsafe(HEADER_BYTES);
    encodeHeader(header, 0, type, bodyBytes, id, chain);
    if (this.#state !== 'open') {
      if (onWritten) queueMicrotask(onWritten);
      return;
    }
    const pieces: Uint8Array[] = [header];
    const prover = this.#opening.proofs?.out;
    if (prover) pieces.push(prover.update(header).end());
    pieces.push(...parts);
    if (prover && bodyBytes > 0) {
      for (const part of parts) prover.update(part);
      pieces.push(prover.end());
    }
    this.#pendingMessages++;
    const written = () => {
      this.#pendingMessages--;
      onWritten?.();
    };
    const socket = this.#socket;
    const last = pieces.length - 1;
    // Corked, all of it leaves in one system call.
    socket.cork();
    for (const [i, piece] of pieces.entries()) {
      this.#bytesOut += piece.byteLength;
      socket.write(piece, i === last ? written : undefined);
    }
    socket.uncork();
  }

  /** After a handler said 'wait': it is asked again, and reading goes on. Otherwise nothing happens. */
  resume(): void {
    // From within the handler: it may be about to say 'wait' because it does not see yet what it is being told here.
    if (this.#busy) {
      this.#wake = true;
      return;
    }
    if (!this.#receiver.waiting) return;
    if (!this.#guard(() => this.#receiver.resume())) return;
    this.#socket.setTimeout(this.#options.stallMs);
    this.#socket.resume();
  }

  /** Orderly: sends what is pending, then ends our side. Messages still come in until the peer ends its side, or `lingerMs` later. */
  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    this.#socket.end(() => this.#linger());
  }

  /** Tells the peer why with ERROR, and closes. Nothing is delivered any more. */
  fail(error: AbdmError): void {
    if (this.#state === 'closed') return;
    this.#error ??= error;
    if (this.#state === 'open') {
      const { code } = error;
      // Whoever is on the way can read what is said on a plain connection by ticket: words may name files and VMs.
      const message = this.#opening.proofs ? 'why is not said on a plain connection' : printable(error.message);
      this.send(MessageType.ERROR, 0, encodeJson({ code, message }));
    }
    this.#state = 'ending';
    this.#receiver.stop();
    // What the peer is still sending is read and thrown away: to close with unread bytes would reset the connection, and the ERROR be lost.
    this.#socket.end();
    this.#socket.resume();
    this.#linger();
  }

  /** At once: what is pending is lost. */
  destroy(error: AbdmError | null = null): void {
    this.#error ??= error;
    this.#receiver.stop();
    if (this.#state !== 'closed') this.#state = 'ending';
    this.#socket.destroy();
  }

  // Returns whether to go on reading.
  #onRead(bytes: number, take: () => void): boolean {
    this.#bytesIn += bytes;
    return this.#guard(take);
  }

  // Runs the receiver, and with it the handler. Corked, so that the answers to all messages of one read leave together.
  #guard(run: () => void): boolean {
    this.#busy = true;
    this.#socket.cork();
    try {
      run();
    } catch (cause) {
      const text = `cannot go on: ${cause instanceof Error ? cause.message : cause}`;
      // The other end may be honest, and is not to be blamed for what anybody between the two can do: to it, the connection broke.
      if (this.#receiver.disturbed)
        this.destroy(new AbdmError('PEER_GONE', `${this.peer}: ${(cause as Error).message}`));
      else this.fail(cause instanceof AbdmError ? cause : new AbdmError('PROTOCOL', text, { cause }));
    }
    this.#socket.uncork();
    this.#busy = false;
    if (this.#wake) {
      this.#wake = false;
      setImmediate(() => this.resume());
    }
    return !this.#receiver.waiting;
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    if (!this.#heard) {
      this.#heard = true;
      if (this.#state === 'open') clearTimeout(this.#deadline);
    }
    if (header.type !== MessageType.ERROR) {
      this.handler.onMessage(header, body, this);
      return;
    }
    const error = decodeJson(body, messageName(header.type));
    const code = printable(need.string(error, 'code', 'ERROR', 64));
    const message = printable(need.string(error, 'message', 'ERROR', 64 * 1024));
    const told = code === 'UNAUTHENTICATED' ? code : 'PEER_ABORTED';
    this.destroy(new AbdmError(told, `${this.peer} ended it: ${message} (${code})`, { cause: { code } }));
  }

  #onEnd(): void {
    if (this.#receiver.midMessage) this.#note('PEER_GONE', `ended the connection when ${this.#receiver.describe()}`);
    else if (!this.#options.peerMayEnd && this.#state === 'open') this.#note('PEER_GONE', 'ended the connection early');
    // The socket ends its own side by itself once what is pending has left; a peer that does not take it is not waited for.
    this.#state = 'ending';
    this.#linger();
  }

  #onSilence(): void {
    const { stallMs } = this.#options;
    if (this.#receiver.waiting) {
      // We are the one who is slow. But if the peer takes nothing of what we answered, we would wait for each other for ever.
      if (this.pendingBytes === 0) this.#socket.setTimeout(stallMs);
      else this.#giveUp(`took none of the ${this.pendingBytes} bytes pending for ${stallMs} ms`);
    } else if (this.#receiver.midMessage) {
      this.#giveUp(`sent nothing for ${stallMs} ms when ${this.#receiver.describe()}`);
    } else if (this.pendingBytes > 0) {
      this.#giveUp(`took none of the ${this.pendingBytes} bytes pending for ${stallMs} ms`);
    }
  }

  #giveUp(text: string): void {
    this.#note('PEER_GONE', text);
    this.#socket.destroy();
  }

  #linger(): void {
    if (this.#state === 'closed') return;
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#socket.destroy(), this.#options.lingerMs);
  }

  // The first reason is the one that counts.
  #note(code: 'PEER_GONE', text: string, cause?: unknown): void {
    this.#error ??= new AbdmError(code, `${this.peer} ${text}`, { cause });
  }

  #onClosed(): void {
    this.#state = 'closed';
    this.#receiver.stop();
    clearTimeout(this.#deadline);
    this.handler.onClose?.(this.#error, this);
  }
}
