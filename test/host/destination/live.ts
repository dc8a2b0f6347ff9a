// A session with guests whose memory lies in this process, nodes that answer when they are told to, and a source that says and sends what the test wants.
import { randomBytes } from 'node:crypto';
import { expect, onTestFinished } from 'vitest';
import { type DivideOptions, Divider } from '#abdm/bindings/divider.js';
import type { AbdmError } from '#abdm/bindings/errors.js';
import type { Ending } from '#abdm/host/destination/ending.js';
import type { FrameLane } from '#abdm/host/destination/frames.js';
import { Session, type SessionOptions } from '#abdm/host/destination/session.js';
import type { GuestSink } from '#abdm/host/image/image.js';
import type { NodeRef } from '#abdm/host/mam/keeper.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import { RateLimit } from '#abdm/host/wire/rate.js';
import { type FrameState, RecordWriter } from '#abdm/host/wire/records.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { seeded } from '../../engine.js';
import { until } from './world.js';

export const PAGE = 4096;
const MIGRATION = 'ab'.repeat(16);

/** 4,096 bytes that nothing compresses: another page for each seed. */
export function content(seed: number): Uint8Array {
  const random = seeded(seed + 1);
  return Uint8Array.from({ length: PAGE }, () => random());
}

/** A frame as it was divided. */
export interface Made {
  id: number;
  vm: number;
  pfns: number[];
  bytes: Uint8Array;
  meta: Uint8Array;
}

/** Makes frames of whatever pages. */
export class Maker {
  readonly key = new Uint8Array(randomBytes(32));
  #divider!: Divider;

  static async create(): Promise<Maker> {
    const maker = new Maker();
    maker.#divider = await Divider.create({ key: maker.key, slots: 4 });
    return maker;
  }

  /** One frame with these pages, by their contents' seeds; in `vm`. */
  frame(pages: Record<number, number>, { vm = 0, ...options }: DivideOptions & { vm?: number } = {}): Made {
    const pfns = Object.keys(pages)
      .map(Number)
      .sort((a, b) => a - b);
    const base = pfns[0]!;
    const batch = this.#divider.acquire();
    pfns.forEach((pfn, i) => void batch.bytes.set(content(pages[pfn]!), i * PAGE));
    const deltas = pfns.map((pfn) => pfn - base);
    const frames = this.#divider.divide(batch, { vm, base, pages: pfns.length, deltas }, options);
    expect(frames.length).toBe(1);
    const bytes = frames[0]!.bytes.slice();
    for (const frame of frames) frame.release();
    batch.release();
    return { id: frames[0]!.id, vm, pfns, bytes, meta: metaOf(bytes) };
  }

  /** Frames of 16 pages each, of pages `from` to `end`, each of which has its number as its seed. */
  frames(from: number, end: number, vm = 0): Made[] {
    return Array.from({ length: Math.ceil((end - from) / 16) }, (_, i) => {
      const first = from + 16 * i;
      const count = Math.min(16, end - first);
      return this.frame(Object.fromEntries(Array.from({ length: count }, (_, j) => [first + j, first + j])), { vm });
    });
  }
}

/** What stands before a frame's payload. */
function metaOf(frame: Uint8Array): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset);
  const [pages, ids, duplicates] = [28, 30, 32].map((at) => view.getUint16(at, true));
  return frame.slice(0, 40 + pages! * 8 + ids! * 16 + duplicates! * 8 + 16);
}

/** A node that answers GET as it is told to. */
export class LiveNode implements NodeRef {
  readonly id = randomBytes(16).toString('hex');
  address = '';
  readonly blocks = new Map<number, Uint8Array>();
  /** GETs in the order in which they came, and over which of its connections. */
  readonly asked: { id: number; connection: number }[] = [];
  /** It says nothing to GETs of these: they are answered by `answer`. */
  holdsBack: (id: number, connection: number) => boolean = () => false;
  /** Connections that it has had. */
  connections = 0;
  readonly #waiting = new Map<number, (() => void)[]>();
  #close!: () => Promise<void>;

  static async start(...frames: Made[]): Promise<LiveNode> {
    const node = new LiveNode();
    for (const { id, bytes } of frames) node.blocks.set(id, bytes);
    const listener = await listen(
      '127.0.0.1:0',
      () => {
        const connection = node.connections++;
        return { onMessage: ({ type, id }, _body, channel) => node.#onMessage(type, id, channel, connection) };
      },
      { lingerMs: 100 },
    );
    node.address = `127.0.0.1:${listener.address.port}`;
    node.#close = () => listener.close();
    onTestFinished(() => node.#close());
    return node;
  }

  kill(): Promise<void> {
    return this.#close();
  }

  get askedIds(): number[] {
    return this.asked.map(({ id }) => id);
  }

  /** Answers what was held back of this frame; without one, everything, from now on. */
  answer(id?: number): void {
    if (id === undefined) this.holdsBack = () => false;
    for (const [held, answers] of [...this.#waiting]) {
      if (id !== undefined && held !== id) continue;
      this.#waiting.delete(held);
      for (const answer of answers) answer();
    }
  }

  #onMessage(type: MessageType, id: number, channel: Channel, connection: number): void {
    const T = MessageType;
    if (type === T.HELLO) {
      const welcome = { protocol: PROTOCOL_VERSION, role: 'intermediate', id: this.id, freeBytes: 1, memoryBytes: 1 };
      channel.send(T.WELCOME, 0, encodeJson(welcome));
    } else if (type === T.GET) {
      this.asked.push({ id, connection });
      const answer = () => {
        const block = this.blocks.get(id);
        if (block) channel.send(T.FRAME, id, block.slice());
        else channel.send(T.MISSING, id);
      };
      if (!this.holdsBack(id, connection)) return answer();
      this.#waiting.set(id, [...(this.#waiting.get(id) ?? []), answer]);
    } else if (type === T.LIST) {
      const ids = [...this.blocks.keys()].filter((other) => other >= id).sort((a, b) => a - b);
      channel.send(T.LISTED, id, encodeU64s(...ids));
    } else if (type === T.PING) channel.send(T.PONG, 0);
    else if (type === T.DROP) channel.send(T.DROPPED, 0, encodeJson({ frames: 0, bytes: 0 }));
  }
}

/** A guest that waits for its memory: told to run, it counts every page that is written to again as spoilt. */
export class MemoryGuest implements GuestSink {
  readonly description = 'guest';
  readonly guestId = randomBytes(16).toString('hex');
  readonly memory: Uint8Array;
  readonly present: Uint8Array;
  hasRun = false;
  runs = false;
  /** Pages that were there and written to while it ran. */
  readonly spoilt: number[] = [];
  committed = false;
  /** Throws when it is written to. */
  broken: Error | null = null;
  onFault: (pfn: number) => void = () => {};
  onGone: (error: Error) => void = () => {};

  constructor(pages: number) {
    this.memory = new Uint8Array(pages * PAGE);
    this.present = new Uint8Array(Math.ceil(pages / 8));
  }

  has(pfn: number): boolean {
    return ((this.present[pfn >> 3]! >> (pfn & 7)) & 1) === 1;
  }

  /** It writes to its page. */
  scribble(pfn: number): void {
    this.memory.fill(0x5a, pfn * PAGE, (pfn + 1) * PAGE);
  }

  page(pfn: number): Uint8Array {
    return this.memory.subarray(pfn * PAGE, (pfn + 1) * PAGE);
  }

  write(pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    if (this.broken) throw this.broken;
    this.memory.set(memory.subarray(offset, offset + bytes), pfn * PAGE);
    for (let page = pfn; page < pfn + bytes / PAGE; page++) this.#arrived(page);
  }

  zero(pfn: number, pages: number): void {
    if (this.broken) throw this.broken;
    this.memory.fill(0, pfn * PAGE, (pfn + pages) * PAGE);
    for (let page = pfn; page < pfn + pages; page++) this.#arrived(page);
  }

  read(pfn: number, memory: Uint8Array, offset: number): void {
    memory.set(this.page(pfn), offset);
  }

  forget(pfn: number, pages: number): void {
    expect(this.runs).toBe(false);
    for (let page = pfn; page < pfn + pages; page++) this.present[page >> 3]! &= ~(1 << (page & 7));
  }

  async load(_state: Uint8Array): Promise<void> {}

  async mayHaveRun(): Promise<boolean> {
    return true;
  }

  async run(): Promise<void> {
    this.runs = true;
  }

  async commit(): Promise<void> {
    this.committed = true;
  }

  async discard(): Promise<void> {}

  #arrived(page: number): void {
    if (this.runs && this.has(page)) this.spoilt.push(page);
    this.present[page >> 3]! |= 1 << (page & 7);
  }
}

/** A lane on which frames are sent without a socket. */
class TestLane {
  /** Frames that are STORED. */
  readonly stored: number[] = [];
  readonly #lane: FrameLane;
  readonly #channel = {
    send: (type: MessageType, id: number) => {
      if (type === MessageType.STORED) this.stored.push(id);
    },
    resume: () => {},
  } as unknown as Channel;

  constructor(lane: FrameLane) {
    this.#lane = lane;
  }

  /** False if it has to wait. */
  put({ id, bytes }: Made): boolean {
    const header = { type: MessageType.PUT, id, bodyBytes: bytes.byteLength, chain: 0 };
    const target = this.#lane.bodyTarget(header, this.#channel);
    if (target === 'wait') return false;
    const body = target as Uint8Array;
    body.set(bytes);
    this.#lane.onMessage(header, body, this.#channel);
    return true;
  }
}

/** A session, and what it said. */
export class Scene {
  readonly guests: MemoryGuest[];
  readonly nodes: readonly LiveNode[];
  session!: Session;
  /** What it asked the source for, in turn. */
  readonly asked: { vm: number; pfns: number[] }[] = [];
  /** Somebody is there to be asked. */
  hasSource = true;
  /** Why it is not waited for any more. */
  readonly silent: AbdmError[] = [];
  readonly whole: number[] = [];
  readonly failed: { vm: number; error: AbdmError }[] = [];
  ending: Ending | null = null;

  private constructor(pages: readonly number[], nodes: readonly LiveNode[]) {
    this.guests = pages.map((count) => new MemoryGuest(count));
    this.nodes = nodes;
  }

  /** @param pages of each VM. `before`: what has become of the guests already. */
  static async open(
    maker: Maker,
    pages: readonly number[],
    nodes: readonly LiveNode[],
    { before, ...options }: Partial<SessionOptions> & { before?: (guests: MemoryGuest[]) => void } = {},
  ): Promise<Scene> {
    const scene = new Scene(pages, nodes);
    before?.(scene.guests);
    const vms = pages.map((count, vm) => {
      const bytes = count * PAGE;
      return { name: `vm${vm}`, bytes, pages: count, regions: [{ name: 'a', address: 0, bytes }] };
    });
    scene.session = await Session.open({
      migration: MIGRATION,
      key: maker.key,
      vms,
      sealed: false,
      targets: scene.guests.map((guest, vm) => ({ name: `vm${vm}`, open: () => guest })),
      left: 'replace',
      oneVersion: false,
      limit: new RateLimit(),
      security: OPEN,
      others: () => [],
      stuckMs: 2_000,
      ask: (vm, pfns) => {
        if (scene.hasSource) scene.asked.push({ vm, pfns: [...pfns] });
        return scene.hasSource;
      },
      onSilent: (error) => scene.silent.push(error),
      onWhole: (vm) => scene.whole.push(vm),
      onVmFailed: (vm, error) => scene.failed.push({ vm, error }),
      onEnd: (ending) => {
        scene.ending = ending;
      },
      ...options,
    });
    onTestFinished(() => scene.session.close(false));
    scene.session.name(nodes, true);
    scene.session.hasSource = true;
    await until(() => nodes.every(({ connections }) => connections >= 2), 'both connections to each node');
    for (const holder of scene.session.holders) await holder.settled();
    return scene;
  }

  /** Records: of frames that are at these nodes, or in another state. */
  records(...records: [frame: Made, where?: readonly LiveNode[] | FrameState][]): void {
    const writer = new RecordWriter();
    for (const [{ id, vm, pfns, bytes }, where = this.nodes] of records) {
      const [state, at] = typeof where === 'string' ? [where, []] : ['kept' as const, where];
      const indexes = at.map((node) => this.nodes.indexOf(node));
      expect(writer.add(id, bytes.byteLength, vm, indexes, pfns, pfns.length, 0, state)).toBe(true);
    }
    this.session.onRecords(writer.take());
  }

  /** Frames that are at all nodes. */
  kept(...frames: Made[]): void {
    this.records(...frames.map((frame): [Made] => [frame]));
  }

  lane(isUrgent = false): TestLane {
    return new TestLane(this.session.lane(isUrgent));
  }

  /** The guest of `vm` runs. */
  run(vm = 0): MemoryGuest {
    const guest = this.guests[vm]!;
    this.session.start(vm);
    guest.onFault = (pfn) => this.session.fault(vm, pfn);
    void guest.run();
    return guest;
  }

  /** These pages hold what these seeds make. */
  expectPages(pages: Record<number, number>, vm = 0): void {
    const guest = this.guests[vm]!;
    for (const [pfn, seed] of Object.entries(pages)) {
      expect(guest.has(Number(pfn)), `page ${pfn}`).toBe(true);
      expect(Buffer.compare(guest.page(Number(pfn)), content(seed)), `page ${pfn}`).toBe(0);
    }
  }
}

/** A DISCARD body. */
export function discard(vm: number, first: number, pages: number, floor: number, set: readonly number[]): Uint8Array {
  const body = new Uint8Array(24 + Math.ceil(pages / 8));
  const view = new DataView(body.buffer);
  view.setUint16(0, vm, true);
  view.setUint32(4, pages, true);
  view.setBigUint64(8, BigInt(first), true);
  view.setBigUint64(16, BigInt(floor), true);
  for (const pfn of set) body[24 + ((pfn - first) >> 3)]! |= 1 << ((pfn - first) & 7);
  return body;
}

export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
