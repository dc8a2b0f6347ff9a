// The source's end of the control channel: what is coming, what lies where, and that this was all.
//
//   source                                         destination
//   HELLO { role: source, migration }     ->
//                                         <-   WELCOME
//   IMAGES { key, vms, nodes, ... }       ->
//                                         <-   READY           its images are open and its nodes reached
//   RECORDS (frame 1 is at node 2, ...)   ->
//                                         <-   MERGED { mergedBytes }    now and then
//   DIVIDED { frames }                    ->
//                                         <-   DIVIDED          it knows where everything lies: the source may go
// or, from either, ERROR, and the migration is over.

import type { DividedFrame } from '../../bindings/divider.js';
import { AbdmError } from '../../bindings/errors.js';
import type { Region } from '../image/image.js';
import type { Channel } from '../wire/channel.js';
import { connect } from '../wire/connect.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { type MessageHeader, MessageType, maxBodyBytes, messageName, PROTOCOL_VERSION } from '../wire/messages.js';
import { RecordWriter } from '../wire/records.js';

/** The body of IMAGES. */
export interface Announcement {
  mode: 'stop';
  direct: boolean;
  /** Hex of the migration's secret. */
  key: string;
  vms: { name: string; bytes: number; pages: number; regions: Pick<Region, 'name' | 'address' | 'bytes'>[] }[];
  nodes: string[];
  /** Since the migration began, so that the destination can tell the total time without comparing clocks. */
  elapsedMs: number;
}

/** Records are sent on when there are so many, or when the destination might be waiting for them. */
const RECORDS_AT_ONCE = 256;
const RECORDS_DELAY_MS = 5;

export class SourceControl {
  /** What the destination last said it had merged. */
  mergedBytes: number | null = null;
  readonly #records = new RecordWriter();
  #timer: NodeJS.Timeout | undefined;
  #channel!: Channel;
  #expected: { type: MessageType; resolve(): void; reject(error: AbdmError): void } | null = null;
  #closed: AbdmError | null = null;
  #markGone!: () => void;
  /** Resolves when the connection is. */
  readonly #gone = new Promise<void>((resolve) => {
    this.#markGone = resolve;
  });
  readonly #onLost: (error: AbdmError) => void;

  private constructor(onLost: (error: AbdmError) => void) {
    this.#onLost = onLost;
  }

  /** Connects and says hello. `onLost` is called once if the destination ends it before `end`. @throws {AbdmError} */
  static async connect(address: string, migration: string, onLost: (error: AbdmError) => void): Promise<SourceControl> {
    const control = new SourceControl(onLost);
    control.#channel = await connect(address, {
      onMessage: (header, body) => control.#onMessage(header, body),
      onClose: (error) => control.#onClose(error),
    });
    const hello = { protocol: PROTOCOL_VERSION, role: 'source', migration };
    await control.#ask(MessageType.HELLO, hello, MessageType.WELCOME);
    return control;
  }

  /** Resolves when the destination is ready to take frames. @throws {AbdmError} what it says is wrong. */
  announce(announcement: Announcement): Promise<void> {
    return this.#ask(MessageType.IMAGES, announcement, MessageType.READY);
  }

  /** Tells that a frame is acknowledged by `node`. */
  record(frame: DividedFrame, node: number): void {
    const pfns = Array.from({ length: frame.pages }, (_, i) => frame.base + (frame.deltas ? frame.deltas[i]! : i));
    const add = () => this.#records.add(frame.id, frame.bytes.byteLength, frame.vm, [node], pfns);
    if (!add()) {
      this.#flush();
      add();
    }
    if (this.#records.records >= RECORDS_AT_ONCE) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), RECORDS_DELAY_MS);
  }

  /** That was all: `frames` frames. Resolves when the destination has everything it needs to do without us. @throws {AbdmError} */
  divided(frames: number): Promise<void> {
    this.#flush();
    return this.#ask(MessageType.DIVIDED, { frames }, MessageType.DIVIDED);
  }

  /** Tells the destination why the migration is over. Resolves when it has heard, or has had its time to. */
  fail(error: AbdmError): Promise<void> {
    clearTimeout(this.#timer);
    this.#channel.fail(error);
    return this.#gone;
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#channel.end();
  }

  get bytesOut(): number {
    return this.#channel.bytesOut;
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#records.records > 0) this.#channel.send(MessageType.RECORDS, 0, this.#records.take());
  }

  #ask(type: MessageType, body: object, answer: MessageType): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed);
      const encoded = encodeJson(body);
      if (encoded.byteLength > maxBodyBytes(type)) {
        const text = `${messageName(type)} would have ${encoded.byteLength} bytes, ${maxBodyBytes(type)} are allowed: the images have too many regions`;
        return reject(new AbdmError('IMAGE', text));
      }
      this.#expected = { type: answer, resolve, reject };
      this.#channel.send(type, 0, encoded);
    });
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    if (header.type === MessageType.MERGED) {
      this.mergedBytes = need.integer(decodeJson(body, 'MERGED'), 'mergedBytes', 'MERGED');
      return;
    }
    if (header.type !== this.#expected?.type) {
      throw new AbdmError('PROTOCOL', `the destination sent ${messageName(header.type)}, which is not its turn`);
    }
    const { resolve } = this.#expected;
    this.#expected = null;
    resolve();
  }

  #onClose(error: AbdmError | null): void {
    clearTimeout(this.#timer);
    this.#markGone();
    this.#closed = error ?? new AbdmError('PEER_GONE', `${this.#channel.peer} has ended the control channel`);
    this.#expected?.reject(this.#closed);
    this.#expected = null;
    if (error) this.#onLost(error);
  }
}
