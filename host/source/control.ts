// One connection of the source to the destination: what is coming, what lies where, who may run, and that this was all.
//
//   source                                                  destination
//   HELLO { role: source, migration }              ->
//                                                  <-   WELCOME
//   IMAGES { key, vms, nodes, token, ... }         ->
//                                                  <-   READY { vms }   its images are open, its guests wait
//   RECORDS (frame 1 is at nodes 2 and 0, ...)     ->
//                                                  <-   MERGED { mergedBytes }    now and then
//   NODES { nodes }                                ->        more nodes, before records that name them
//   RECORDS (coming), DISCARD, STATE               ->        a guest stands still: which pages it has, and what else
//                                                  <-   LOADED { vm, guest }
//   RUN { vm }                                     ->        only now
//                                                  <-   RUNNING { vm }
//                                                  <-   FAULT { vm, pfns }        answered with frames
//   DIVIDED { frames }                             ->
//                                                  <-   DIVIDED          it knows where everything lies: the source may go
// or, from either, VM_OVER { vm, code, message }: this VM alone is over; or ERROR, and the migration is. When the connection breaks, the source says it all
// again on another one (link.ts).

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Region } from '../image/image.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Kept } from '../mam/ledger.js';
import type { Report } from '../ownership/giving.js';
import type { Mode } from '../summary.js';
import type { Channel } from '../wire/channel.js';
import { connect } from '../wire/connect.js';
import { decodeJson, encodeJson, type JsonObject, need, printable } from '../wire/json.js';
import { type MessageHeader, MessageType, maxBodyBytes, messageName, PROTOCOL_VERSION } from '../wire/messages.js';
import { type FrameState, RecordWriter } from '../wire/records.js';
import type { Security } from '../wire/security.js';
import { discardBodies, stateBodies } from './bodies.js';
import type { Todo } from './todo.js';

/** A VM, as IMAGES has it. */
export interface AnnouncedImage {
  name: string;
  bytes: number;
  pages: number;
  regions: Pick<Region, 'name' | 'address' | 'bytes'>[];
  setup?: string;
  /** It is to run there. */
  guest?: true;
}

/** The body of IMAGES. */
export interface Announcement {
  mode: Mode;
  direct: boolean;
  /** Hex of the migration's secret. */
  key: string;
  /** Frames come in sealed blocks. */
  sealed: boolean;
  /** How many nodes keep each frame. */
  replicas: number;
  /** What the destination claims the migration with, at the nodes; 32 hex digits. */
  token: string;
  vms: AnnouncedImage[];
  nodes: NodeRef[];
  /** Since the migration began, so that the destination can tell the total time without comparing clocks. */
  elapsedMs: number;
}

/** What is said of a VM that stands still. */
export interface Handover {
  readonly vm: number;
  /** Its frames that nobody has yet. */
  readonly coming: Iterable<Kept>;
  /** Pages that come only in frames from `floor` on. */
  readonly unsent: Todo;
  readonly floor: number;
  /** Null: it was given away already. */
  readonly state: Uint8Array | null;
}

/** What the destination says of VMs. What these throw ends the connection. */
export interface DestinationEvents {
  onLoaded(vm: number, guest: string): void;
  onRunning(vm: number): void;
  /** Its guest waits for these pages. */
  onFault(vm: number, pfns: readonly number[]): void;
  /** This VM never ran there, and never will. */
  onVmOver(vm: number, error: AbdmError): void;
}

/** Records are sent on when there are so many, or when the destination might be waiting for them. */
const RECORDS_AT_ONCE = 256;
const RECORDS_DELAY_MS = 5;
/** Pages that one FAULT may ask for. */
const MAX_FAULTS = 4096;
const REPORTED = ['waiting', 'loaded', 'running'] as const;

export interface ControlOptions {
  /** HOST:PORT. */
  readonly address: string;
  readonly migration: string;
  readonly security?: Security | undefined;
  /** The destination says that it has merged so many bytes. */
  readonly onMerged: (bytes: number) => void;
  readonly events: DestinationEvents;
  /** The connection ended before `end`: PEER_ABORTED if the destination says why. */
  readonly onLost: (error: AbdmError) => void;
  /** Aborted before WELCOME, the connection is given up, for the signal's reason. */
  readonly signal: AbortSignal;
}

export class SourceControl {
  /** Which destination this is: another one after it was started again. Null if it does not say. */
  id: string | null = null;
  /** What it was told of: null before. */
  #vms: readonly AnnouncedImage[] | null = null;
  /** The nodes that it was told of; records name them by their index. */
  #nodes: NodeRef[] = [];
  readonly #indexes = new Map<string, number>();
  readonly #records = new RecordWriter();
  #timer: NodeJS.Timeout | undefined;
  #channel!: Channel;
  #expected: { type: MessageType; take(body: Uint8Array): void; reject(error: AbdmError): void } | null = null;
  #isReady = false;
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

  /** Resolves when the destination is ready to take frames, with how each VM stands there; null: it is no guest. @throws {AbdmError} what it says is wrong. */
  async announce(announcement: Announcement): Promise<(Report | null)[]> {
    this.#know(announcement.nodes);
    this.#vms = announcement.vms;
    return this.#ask(MessageType.IMAGES, announcement, MessageType.READY, (body) => {
      const ready = decodeJson(body, 'READY');
      this.#isReady = true;
      // One that has no guests need not say so.
      if (!Object.hasOwn(ready, 'vms')) return announcement.vms.map(() => null);
      const reports = need.list(ready, 'vms', 'READY', announcement.vms.length, readReport);
      return announcement.vms.map((_, vm) => reports[vm] ?? null);
    });
  }

  /** Tells which nodes have a frame. */
  record(frame: Kept): void {
    const { holders } = frame;
    if (holders === null || holders === 'destination') return;
    const strangers = holders
      .filter((node) => !this.#indexes.has(node.id))
      .map((node) => ({ address: node.address, id: node.id }));
    if (strangers.length > 0) {
      this.#flush();
      this.#know(strangers);
      this.#channel.send(MessageType.NODES, 0, encodeJson({ nodes: strangers }));
    }
    this.#add(
      frame,
      holders.map((node) => this.#indexes.get(node.id)!),
      'kept',
    );
  }

  /** Tells that a frame never comes. */
  voided(frame: Kept): void {
    this.#add(frame, [], 'void');
  }

  /** Tells everything that a guest needs to run there: when it has taken it, it is LOADED. */
  handOver({ vm, coming, unsent, floor, state }: Handover): void {
    for (const frame of coming) this.#add(frame, [], 'coming');
    this.#flush();
    for (const body of discardBodies(vm, unsent.pages, unsent.bitmap, floor)) {
      this.#channel.send(MessageType.DISCARD, 0, body);
    }
    if (state) for (const body of stateBodies(vm, state)) this.#channel.send(MessageType.STATE, 0, body);
  }

  /** It may run there. */
  run(vm: number): void {
    this.#flush();
    this.#channel.send(MessageType.RUN, 0, encodeJson({ vm }));
  }

  /** This VM never comes; the others do. */
  vmOver(vm: number, { code, message }: AbdmError): void {
    this.#flush();
    this.#channel.send(MessageType.VM_OVER, 0, encodeJson({ vm, code, message: printable(message) }));
  }

  /** That was all: `frames` frames. Resolves when the destination has everything it needs to do without us. @throws {AbdmError} */
  divided(frames: number): Promise<void> {
    this.#flush();
    return this.#ask(MessageType.DIVIDED, { frames }, MessageType.DIVIDED, () => {});
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

  #add({ id, bytes, vm, base, pages, deltas }: Kept, nodes: readonly number[], state: FrameState): void {
    const pfns = Array.from({ length: pages }, (_, i) => base + (deltas ? deltas[i]! : i));
    const add = () => this.#records.add(id, bytes, vm, nodes, pfns, pages, 0, state);
    if (!add()) {
      this.#flush();
      add();
    }
    if (this.#records.records >= RECORDS_AT_ONCE) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), RECORDS_DELAY_MS);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#records.records > 0) this.#channel.send(MessageType.RECORDS, 0, this.#records.take());
  }

  #ask<T>(type: MessageType, body: object, answer: MessageType, take: (body: Uint8Array) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed);
      const encoded = encodeJson(body);
      if (encoded.byteLength > maxBodyBytes(type)) {
        const text = `${messageName(type)} would have ${encoded.byteLength} bytes, ${maxBodyBytes(type)} are allowed: the images have too many regions`;
        return reject(new AbdmError('IMAGE', text));
      }
      this.#expected = { type: answer, take: (given) => resolve(take(given)), reject };
      this.#channel.send(type, 0, encoded);
    });
  }

  #onMessage(header: MessageHeader, body: Uint8Array): void {
    const { type } = header;
    const name = messageName(type);
    if (type === MessageType.MERGED) {
      this.#options.onMerged(need.integer(decodeJson(body, name), 'mergedBytes', name));
      return;
    }
    if (this.#isReady && this.#onVm(type, name, body)) return;
    const expected = this.#expected;
    if (type !== expected?.type) {
      throw new AbdmError('PROTOCOL', `the destination sent ${name}, which is not its turn`);
    }
    this.#expected = null;
    try {
      expected.take(body);
    } catch (error) {
      expected.reject(asAbdmError(error));
      throw error;
    }
  }

  /** False if it is about no VM. */
  #onVm(type: MessageType, name: string, body: Uint8Array): boolean {
    const { events } = this.#options;
    if (type === MessageType.LOADED) {
      const from = decodeJson(body, name);
      events.onLoaded(this.#vmOf(from, name), need.string(from, 'guest', name, 32));
    } else if (type === MessageType.RUNNING) events.onRunning(this.#vmOf(decodeJson(body, name), name));
    else if (type === MessageType.FAULT) {
      const from = decodeJson(body, name);
      const vm = this.#vmOf(from, name);
      const { pages } = this.#vms![vm]!;
      const pfns = need.list(from, 'pfns', name, MAX_FAULTS, (pfn) => {
        if (Number.isSafeInteger(pfn) && (pfn as number) >= 0 && (pfn as number) < pages) return pfn as number;
        throw new AbdmError('PROTOCOL', `${name}: page ${pfn} of VM ${vm}, which has ${pages}`);
      });
      events.onFault(vm, pfns);
    } else if (type === MessageType.VM_OVER) {
      const from = decodeJson(body, name);
      const code = printable(need.string(from, 'code', name, 64));
      const text = printable(need.string(from, 'message', name, 64 * 1024));
      const error = new AbdmError('PEER_ABORTED', `${this.#channel.peer}: ${text} (${code})`, { cause: { code } });
      events.onVmOver(this.#vmOf(from, name), error);
    } else return false;
    return true;
  }

  #vmOf(from: JsonObject, name: string): number {
    return need.integer(from, 'vm', name, 0, this.#vms!.length - 1);
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

function readReport(item: unknown): Report | null {
  if (item === null) return null;
  const from = need.isObject(item, 'READY', 'vms');
  return { state: need.oneOf(from, 'state', 'READY', REPORTED), guest: need.string(from, 'guest', 'READY', 32) };
}
