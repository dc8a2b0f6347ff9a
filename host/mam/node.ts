// One node that keeps frames, as its client sees it: an intermediate, or the destination when frames go straight there.
//
//   client                                  node
//   HELLO { role, migration }      ->
//                                  <-  WELCOME { freeBytes, memoryBytes }
//   PUT 7 (frame)                  ->
//   PUT 8 (frame)                  ->
//                                  <-  STORED 7 (free bytes)
//                                  <-  REFUSED 8 { code, message, freeBytes }
//   GET 7                          ->
//                                  <-  FRAME 7 (frame)  or  MISSING 7
//   DROP                           ->
//                                  <-  DROPPED { frames, bytes }

import { AbdmError } from '../../bindings/errors.js';
import type { BodyTarget, Channel } from '../wire/channel.js';
import { connect } from '../wire/connect.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { decodeU64s, type MessageHeader, MessageType, messageName, PROTOCOL_VERSION } from '../wire/messages.js';

/** Who keeps frames: put, get, drop, and nothing else. */
export interface FrameKeeper {
  readonly address: string;
  /** Room for frames, as it last said. */
  readonly freeBytes: number;
  /** Frames that it has acknowledged, and their bytes. */
  readonly stored: { frames: number; bytes: number };
  /** Bytes sent to it and not acknowledged yet. */
  readonly outstandingBytes: number;
  /** It can be asked for something. */
  readonly open: boolean;
  /**
   * Resolves when the node has the frame; the bytes must stay until then. Resolves to false if it has no room for it.
   * @throws {AbdmError} PEER_GONE and others, if the connection ends first; the node may then have the frame or not.
   */
  put(id: number, frame: Uint8Array): Promise<boolean>;
  /**
   * Fetches a frame into `into` and resolves to its length in bytes.
   * @throws {AbdmError} FRAME_LOST if the node does not have it; PEER_GONE and others if the connection ends first.
   */
  get(id: number, into: Uint8Array): Promise<number>;
  /** The node forgets all frames of this migration. */
  drop(): Promise<{ frames: number; bytes: number }>;
  /** Ends the connection. */
  end(): void;
}

/** A node that is asked for something and says nothing for so long is given up. */
const ANSWER_MS = 60_000;

interface Waiting<T> {
  resolve(value: T): void;
  reject(error: AbdmError): void;
}

export class MamNode implements FrameKeeper {
  readonly address: string;
  readonly stored = { frames: 0, bytes: 0 };
  freeBytes = 0;
  outstandingBytes = 0;
  #channel!: Channel;
  #welcome: Waiting<void> | null = null;
  #ended = false;
  readonly #puts = new Map<number, Waiting<boolean> & { bytes: number }>();
  readonly #gets = new Map<number, Waiting<number> & { into: Uint8Array }>();
  #drop: Waiting<{ frames: number; bytes: number }> | null = null;
  readonly #answerMs: number;
  /** Runs while an answer is due; each message from the node starts it anew. */
  #deadline: NodeJS.Timeout | undefined;

  private constructor(address: string, answerMs: number) {
    this.address = address;
    this.#answerMs = answerMs;
  }

  /** Connects and says hello. @throws {AbdmError} PEER_UNREACHABLE, PEER_ABORTED, PROTOCOL. */
  static async connect(
    address: string,
    migration: string,
    role: 'source' | 'destination' | 'frames',
    answerMs = ANSWER_MS,
  ): Promise<MamNode> {
    const node = new MamNode(address, answerMs);
    node.#channel = await connect(address, {
      bodyTarget: (header) => node.#bodyTarget(header),
      onMessage: (header, body) => {
        node.#onMessage(header, body);
        node.#onAnswer();
      },
      onClose: (error) => node.#onClose(error),
    });
    await new Promise<void>((resolve, reject) => {
      node.#welcome = { resolve, reject };
      node.#channel.send(MessageType.HELLO, 0, encodeJson({ protocol: PROTOCOL_VERSION, role, migration }));
    });
    return node;
  }

  get open(): boolean {
    return this.#channel.open;
  }

  get bytesIn(): number {
    return this.#channel.bytesIn;
  }

  get bytesOut(): number {
    return this.#channel.bytesOut;
  }

  put(id: number, frame: Uint8Array): Promise<boolean> {
    return new Promise((resolve, reject) => {
      if (!this.open) return reject(this.#gone());
      this.outstandingBytes += frame.byteLength;
      this.#puts.set(id, { resolve, reject, bytes: frame.byteLength });
      this.#expectAnswer();
      this.#channel.send(MessageType.PUT, id, frame);
    });
  }

  get(id: number, into: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      if (!this.open) return reject(this.#gone());
      this.#gets.set(id, { resolve, reject, into });
      this.#expectAnswer();
      this.#channel.send(MessageType.GET, id);
    });
  }

  drop(): Promise<{ frames: number; bytes: number }> {
    return new Promise((resolve, reject) => {
      if (!this.open) return reject(this.#gone());
      this.#drop = { resolve, reject };
      this.#expectAnswer();
      this.#channel.send(MessageType.DROP, 0);
    });
  }

  end(): void {
    this.#ended = true;
    this.#channel.end();
  }

  #bodyTarget(header: MessageHeader): BodyTarget {
    if (header.type !== MessageType.FRAME) return null;
    const waiting = this.#gets.get(header.id);
    if (!waiting) throw new AbdmError('PROTOCOL', `${this.address} sent frame ${header.id}, which nobody asked for`);
    if (header.bodyBytes > waiting.into.byteLength) {
      throw new AbdmError(
        'PROTOCOL',
        `${this.address} sent frame ${header.id} with ${header.bodyBytes} bytes, too many`,
      );
    }
    return waiting.into.subarray(0, header.bodyBytes);
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    const name = messageName(header.type);
    switch (header.type) {
      case MessageType.WELCOME: {
        const welcome = decodeJson(body, name);
        need.integer(welcome, 'protocol', name, PROTOCOL_VERSION, PROTOCOL_VERSION);
        this.freeBytes = need.integer(welcome, 'freeBytes', name);
        this.#welcome?.resolve();
        this.#welcome = null;
        return;
      }
      case MessageType.STORED: {
        const put = this.#take(this.#puts, header);
        this.freeBytes = decodeU64s(body, name)[0]!;
        this.outstandingBytes -= put.bytes;
        this.stored.frames++;
        this.stored.bytes += put.bytes;
        return put.resolve(true);
      }
      case MessageType.REFUSED:
        return this.#onRefused(header, body);
      case MessageType.FRAME:
        return this.#take(this.#gets, header).resolve(body.byteLength);
      case MessageType.MISSING: {
        const error = new AbdmError('FRAME_LOST', `${this.address} does not have frame ${header.id}`);
        return this.#take(this.#gets, header).reject(error);
      }
      case MessageType.DROPPED: {
        const dropped = decodeJson(body, name);
        const frames = need.integer(dropped, 'frames', name);
        this.#drop?.resolve({ frames, bytes: need.integer(dropped, 'bytes', name) });
        this.#drop = null;
        return;
      }
      default:
        throw new AbdmError('PROTOCOL', `${this.address} sent ${name}, which a node does not send`);
    }
  }

  #onRefused(header: MessageHeader, body: Uint8Array): void {
    const name = messageName(header.type);
    const refused = decodeJson(body, name);
    const put = this.#take(this.#puts, header);
    this.outstandingBytes -= put.bytes;
    this.freeBytes = need.integer(refused, 'freeBytes', name);
    const code = need.string(refused, 'code', name);
    if (code === 'NO_ROOM') return put.resolve(false);
    const message = need.string(refused, 'message', name, 1000);
    put.reject(new AbdmError('PEER_ABORTED', `${this.address} refused frame ${header.id}: ${message} (${code})`));
  }

  #take<T>(waiting: Map<number, T>, header: MessageHeader): T {
    const found = waiting.get(header.id);
    if (!found) {
      const what = `${messageName(header.type)} for frame ${header.id}`;
      throw new AbdmError('PROTOCOL', `${this.address} sent ${what}, which nobody asked for`);
    }
    waiting.delete(header.id);
    return found;
  }

  #expectAnswer(): void {
    this.#deadline ??= setTimeout(() => {
      const text = `${this.address} has been asked, and has not answered for ${this.#answerMs} ms`;
      this.#channel.destroy(new AbdmError('PEER_GONE', text));
    }, this.#answerMs);
  }

  #onAnswer(): void {
    if (this.#puts.size + this.#gets.size > 0 || this.#drop) this.#deadline?.refresh();
    else this.#stopWaiting();
  }

  #stopWaiting(): void {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }

  #gone(): AbdmError {
    return new AbdmError('PEER_GONE', `the connection to ${this.address} has ended`);
  }

  #onClose(error: AbdmError | null): void {
    const reason = error ?? this.#gone();
    this.#stopWaiting();
    this.outstandingBytes = 0;
    if (this.#ended && !this.#drop && this.#puts.size === 0 && this.#gets.size === 0) return;
    const all = [this.#welcome, this.#drop, ...this.#puts.values(), ...this.#gets.values()];
    this.#welcome = this.#drop = null;
    this.#puts.clear();
    this.#gets.clear();
    for (const waiting of all) waiting?.reject(reason);
  }
}
