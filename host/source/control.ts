// One connection of the source to the destination: what is coming, what lies where, and that this was all.
//
//   source                                                  destination
//   HELLO { role: source, migration }              ->
//                                                  <-   WELCOME
//   IMAGES { key, vms, nodes, token, ... }         ->
//                                                  <-   READY           its images are open
//   RECORDS (frame 1 is at nodes 2 and 0, ...)     ->
//                                                  <-   MERGED { mergedBytes }    now and then
//   NODES { nodes }                                ->        more nodes, before records that name them
//   DIVIDED { frames }                             ->
//                                                  <-   DIVIDED          it knows where everything lies: the source may go
// or, from either, ERROR, and the migration is over. When the connection breaks, the source says it all again on another one (link.ts).

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Region } from '../image/image.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Kept } from '../mam/ledger.js';
import type { Channel } from '../wire/channel.js';
import { connect } from '../wire/connect.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { type MessageHeader, MessageType, maxBodyBytes, messageName, PROTOCOL_VERSION } from '../wire/messages.js';
import { RecordWriter } from '../wire/records.js';
import type { Security } from '../wire/security.js';

/** The body of IMAGES. */
export interface Announcement {
  mode: 'stop';
  direct: boolean;
  /** Hex of the migration's secret. */
  key: string;
  /** Frames come in sealed blocks. */
  sealed: boolean;
  /** How many nodes keep each frame. */
  replicas: number;
  /** What the destination claims the migration with, at the nodes; 32 hex digits. */
  token: string;
  vms: { name: string; bytes: number; pages: number; regions: Pick<Region, 'name' | 'address' | 'bytes'>[] }[];
  nodes: NodeRef[];
  /** Since the migration began, so that the destination can tell the total time without comparing clocks. */
  elapsedMs: number;
}

/** Records are sent on when there are so many, or when the destination might be waiting for them. */
const RECORDS_AT_ONCE = 256;
const RECORDS_DELAY_MS = 5;

export interface ControlOptions {
  /** HOST:PORT. */
  readonly address: string;
  readonly migration: string;
  readonly security?: Security | undefined;
  /** The destination says that it has merged so many bytes. */
  readonly onMerged: (bytes: number) => void;
  /** The connection ended before `end`: PEER_ABORTED if the destination says why. */
  readonly onLost: (error: AbdmError) => void;
  /** Aborted before WELCOME, the connection is given up, for the signal's reason. */
  readonly signal: AbortSignal;
}

export class SourceControl {
  /** Which destination this is: another one after it was started again. Null if it does not say. */
  id: string | null = null;
  /** The nodes that the destination was told of; records name them by their index. */
  #nodes: NodeRef[] = [];
  readonly #indexes = new Map<string, number>();
  readonly #records = new RecordWriter();
  #timer: NodeJS.Timeout | undefined;
  #channel!: Channel;
  #expected: { type: MessageType; take(body: Uint8Array): void; reject(error: AbdmError): void } | null = null;
  #closed: AbdmError | null = null;
  #markGone!: () => void;
  /** Resolves when the connection is. */
  readonly #gone = new Promise<void>((resolve) => {
    this.#markGone = resolve;
  });
  readonly #options: ControlOptions;

  private constructor(options: ControlOptions) {
    this.#options = options;
  }

  /** Connects and says hello. @throws {AbdmError} */
  static async connect(options: ControlOptions): Promise<SourceControl> {
    const control = new SourceControl(options);
    const { address, migration, security, signal } = options;
    control.#channel = await connect(
      address,
      {
        onMessage: (header, body) => control.#onMessage(header, body),
        onClose: (error) => control.#onClose(error),
      },
      { signal, ...(security && { security }) },
    );
    const giveUp = () => control.#channel.destroy(asAbdmError(signal.reason));
    signal.addEventListener('abort', giveUp);
    if (signal.aborted) giveUp();
    const hello = { protocol: PROTOCOL_VERSION, role: 'source', migration };
    await control
      .#ask(MessageType.HELLO, hello, MessageType.WELCOME, (body) => {
        const welcome = decodeJson(body, 'WELCOME');
        control.id = Object.hasOwn(welcome, 'id') ? need.string(welcome, 'id', 'WELCOME', 32) : null;
      })
      .finally(() => signal.removeEventListener('abort', giveUp));
    return control;
  }

  /** Resolves when the destination is ready to take frames. @throws {AbdmError} what it says is wrong. */
  announce(announcement: Announcement): Promise<void> {
    this.#know(announcement.nodes);
    return this.#ask(MessageType.IMAGES, announcement, MessageType.READY);
  }

  /** Tells which nodes have a frame. */
  record({ id, bytes, vm, base, pages, deltas, holders }: Kept): void {
    if (holders === null || holders === 'destination') return;
    const strangers = holders
      .filter((node) => !this.#indexes.has(node.id))
      .map((node) => ({ address: node.address, id: node.id }));
    if (strangers.length > 0) {
      this.#flush();
      this.#know(strangers);
      this.#channel.send(MessageType.NODES, 0, encodeJson({ nodes: strangers }));
    }
    const nodes = holders.map((node) => this.#indexes.get(node.id)!);
    const pfns = Array.from({ length: pages }, (_, i) => base + (deltas ? deltas[i]! : i));
    const add = () => this.#records.add(id, bytes, vm, nodes, pfns);
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

  #know(nodes: readonly NodeRef[]): void {
    for (const node of nodes) {
      this.#indexes.set(node.id, this.#nodes.length);
      this.#nodes.push(node);
    }
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#records.records > 0) this.#channel.send(MessageType.RECORDS, 0, this.#records.take());
  }

  #ask(
    type: MessageType,
    body: object,
    answer: MessageType,
    take: (body: Uint8Array) => void = () => {},
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed);
      const encoded = encodeJson(body);
      if (encoded.byteLength > maxBodyBytes(type)) {
        const text = `${messageName(type)} would have ${encoded.byteLength} bytes, ${maxBodyBytes(type)} are allowed: the images have too many regions`;
        return reject(new AbdmError('IMAGE', text));
      }
      this.#expected = {
        type: answer,
        take: (given) => {
          take(given);
          resolve();
        },
        reject,
      };
      this.#channel.send(type, 0, encoded);
    });
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    if (header.type === MessageType.MERGED) {
      this.#options.onMerged(need.integer(decodeJson(body, 'MERGED'), 'mergedBytes', 'MERGED'));
      return;
    }
    const expected = this.#expected;
    if (header.type !== expected?.type) {
      throw new AbdmError('PROTOCOL', `the destination sent ${messageName(header.type)}, which is not its turn`);
    }
    expected.take(body);
    this.#expected = null;
  }

  #onClose(error: AbdmError | null): void {
    clearTimeout(this.#timer);
    this.#markGone();
    this.#closed = error ?? new AbdmError('PEER_GONE', `${this.#channel.peer} has ended the control channel`);
    this.#expected?.reject(this.#closed);
    this.#expected = null;
    if (error) this.#options.onLost(error);
  }
}
