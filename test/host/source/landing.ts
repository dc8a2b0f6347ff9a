// A destination of the test's own: it believes nothing, and does what the test wants at each step. What comes is merged as a destination merges it.
import { randomBytes } from 'node:crypto';
import { Merger, type PageSink } from 'abdm';
import { expect, onTestFinished } from 'vitest';
import { MamNode } from '#abdm/host/mam/node.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { decodeJson, encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, type MessageHeader, MessageType } from '#abdm/host/wire/messages.js';
import { RecordReader } from '#abdm/host/wire/records.js';

const PAGE = 4096;
const T = MessageType;

/** One VM, as it arrives. */
export class Arrival {
  readonly guest = randomBytes(16).toString('hex');
  state: 'waiting' | 'loaded' | 'running' = 'waiting';
  /** Parts of its execution state. */
  readonly parts: Uint8Array[] = [];
  readonly memory: Uint8Array;
  /** Pages that its guest has written to here. */
  readonly written = new Set<number>();
  constructor(pages: number) {
    this.memory = new Uint8Array(pages * PAGE).fill(0xee);
  }
  get executionState(): Uint8Array {
    return Buffer.concat(this.parts.map((part) => part.subarray(8)));
  }
}

export interface LandingOptions {
  /** Answers to STATE after so long. */
  loadMs?: number;
  /** What comes when. `false`: it does not do what it would. */
  onMessage?: (type: MessageType, vm: number | null, landing: Landing) => false | undefined;
  /** STORED comes so long after its PUT. */
  mergeMs?: number;
  /** And so long after the one before it. */
  frameMs?: number;
  /** It asks so late for what it cannot make of what it has. */
  askMs?: number;
  /** Frames that its nodes keep are fetched at once; else only by `fetchAll`. */
  gathers?: boolean;
  /** Takes no frames itself, but those that somebody waits for. */
  refusesFrames?: boolean;
  /** VMs that it cannot open. */
  refuses?: number[];
  id?: string;
}

export class Landing implements PageSink {
  readonly heard: string[] = [];
  arrivals: Arrival[] = [];
  merger!: Merger;
  /** Frames that came straight, by the role of the connection. */
  readonly straight: { id: number; role: string }[] = [];
  /** By frame: where it is. */
  readonly records = new Map<number, { state: string; nodes: { address: string; id: string }[] }>();
  // biome-ignore lint/suspicious/noExplicitAny: JSON
  images: any;
  frames = -1;
  /** Pages that were there when RUN came, in an old version. */
  readonly stale: number[] = [];
  /** Pages that it could not make of what it had. */
  asked = 0;
  /** What each guest had when it stopped. */
  truth: readonly Uint8Array[] = [];
  readonly options: LandingOptions;
  #listener!: Listener;
  #migration = '';
  #channels = new Set<Channel>();
  #control: Channel | null = null;
  #nodes: { address: string; id: string }[] = [];
  readonly #clients = new Map<string, Promise<MamNode>>();
  readonly #bitmaps: { vm: number; first: number; bits: Uint8Array; floor: number }[] = [];
  #reader!: RecordReader;
  #fetching: Promise<void> = Promise.resolve();
  readonly #fetched = new Set<number>();
  readonly #id: string;
  readonly #waits: NodeJS.Timeout[] = [];
  #freeAt = 0;

  private constructor(options: LandingOptions) {
    this.options = options;
    this.#id = options.id ?? randomBytes(16).toString('hex');
  }

  static async start(options: LandingOptions = {}): Promise<Landing> {
    const landing = new Landing(options);
    landing.#listener = await listen('127.0.0.1:0', () => landing.#newcomer(), { lingerMs: 100 });
    onTestFinished(() => landing.close());
    return landing;
  }

  get address(): string {
    return `127.0.0.1:${this.#listener.address.port}`;
  }

  get linked(): boolean {
    return this.#control !== null;
  }

  /** All connections break. */
  cut(): void {
    for (const channel of this.#channels) channel.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    for (const wait of this.#waits) clearInterval(wait);
    await this.#listener.close();
    for (const client of this.#clients.values()) (await client).end();
  }

  send(type: MessageType, body: object): void {
    this.#control?.send(type, 0, encodeJson(body));
  }

  write(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    this.#place(vm, pfn, bytes / PAGE);
    this.arrivals[vm]!.memory.set(memory.subarray(offset, offset + bytes), pfn * PAGE);
  }

  zero(vm: number, pfn: number, pages: number): void {
    this.#place(vm, pfn, pages);
    this.arrivals[vm]!.memory.fill(0, pfn * PAGE, (pfn + pages) * PAGE);
  }

  read(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    memory.set(this.arrivals[vm]!.memory.subarray(pfn * PAGE, (pfn + 1) * PAGE), offset);
    return true;
  }

  /** Its guest writes to a page that is there. */
  scribble(vm: number, pfn: number): void {
    const arrival = this.arrivals[vm]!;
    expect(arrival.state).toBe('running');
    if (!this.merger.isMerged(vm, pfn)) throw new Error(`page ${pfn} is not there yet`);
    arrival.memory[pfn * PAGE]! ^= 0xff;
    arrival.written.add(pfn);
  }

  /** Fetches what the nodes keep, until all of it is here. */
  async fetchAll(): Promise<void> {
    for (let before = -1; before !== this.#fetched.size; ) {
      before = this.#fetched.size;
      for (const [id, { state }] of this.records) if (state === 'kept' && !this.#fetched.has(id)) this.#fetch(id);
      await this.#fetching;
      for (const id of [...this.merger.wanted]) {
        this.#fetched.delete(id);
        this.#fetch(id);
      }
      await this.#fetching;
    }
  }

  /** Every page is there, and as it was when the guest stopped; save where its guest has written to it since. */
  expectWhole(vm: number, memory: Uint8Array): void {
    const arrival = this.arrivals[vm]!;
    expect(this.merger.mergedPages(vm)).toBe(memory.byteLength / PAGE);
    const wrong: number[] = [];
    for (let pfn = 0; pfn < memory.byteLength / PAGE; pfn++) {
      if (arrival.written.has(pfn)) continue;
      const at = pfn * PAGE;
      if (Buffer.compare(arrival.memory.subarray(at, at + PAGE), memory.subarray(at, at + PAGE))) wrong.push(pfn);
    }
    expect([wrong, this.stale]).toEqual([[], []]);
  }

  /** What is in place when its guest begins to run is the last version of it. */
  #expectTrue(vm: number): void {
    const truth = this.truth[vm]!;
    const { memory } = this.arrivals[vm]!;
    const stale: number[] = [];
    for (let pfn = 0; pfn < truth.byteLength / PAGE; pfn++) {
      const at = pfn * PAGE;
      if (!this.merger.isMerged(vm, pfn)) continue;
      if (Buffer.compare(memory.subarray(at, at + PAGE), truth.subarray(at, at + PAGE))) stale.push(pfn);
    }
    this.stale.push(...stale);
  }

  #place(vm: number, pfn: number, pages: number): void {
    const { written } = this.arrivals[vm]!;
    for (let i = 0; i < pages; i++) {
      if (written.has(pfn + i)) throw new Error(`page ${pfn + i} was written again under its guest`);
    }
  }

  #newcomer() {
    return {
      onMessage: ({ type }: MessageHeader, body: Uint8Array, channel: Channel) => {
        expect(type).toBe(T.HELLO);
        const { role, migration } = decodeJson(body, 'HELLO') as { role: string; migration: string };
        this.#migration = migration;
        this.#channels.add(channel);
        const room = { freeBytes: 1e15, memoryBytes: 1e15 };
        channel.send(T.WELCOME, 0, encodeJson({ protocol: 3, role: 'destination', id: this.#id, ...room }));
        if (role === 'source') this.#control = channel;
        channel.handler = {
          onMessage: (header, body) => {
            if (role === 'source') this.#onControl(header.type, body, channel);
            else this.#onFrame(header, body, channel, role);
          },
          onClose: () => {
            this.#channels.delete(channel);
            if (this.#control === channel) this.#control = null;
          },
        };
      },
    };
  }

  #onControl(type: MessageType, body: Uint8Array, channel: Channel): void {
    const name = Object.entries(T).find(([, number]) => number === type)![0];
    const binary = type === T.STATE || type === T.DISCARD;
    const json = binary || type === T.RECORDS ? null : (decodeJson(body, name, 8e6) as { vm?: number });
    const vm = binary ? body[0]! : (json?.vm ?? null);
    this.heard.push(vm === null ? name : `${name} ${vm}`);
    if (this.options.onMessage?.(type, vm, this) === false) return;
    const copy = body.slice();
    if (type === T.IMAGES) void this.#onImages(json, channel);
    else if (type === T.NODES)
      this.#nodes.push(...(json as unknown as { nodes: { address: string; id: string }[] }).nodes);
    else if (type === T.RECORDS) this.#onRecords(copy);
    else if (type === T.DISCARD) this.#onDiscard(copy);
    else if (type === T.STATE) this.#onState(vm!, copy, channel);
    else if (type === T.RUN) this.run(vm!);
    else if (type === T.DIVIDED) {
      this.frames = (json as unknown as { frames: number }).frames;
      channel.send(T.DIVIDED, 0, encodeJson({}));
    }
  }

  // biome-ignore lint/suspicious/noExplicitAny: JSON
  async #onImages(images: any, channel: Channel): Promise<void> {
    this.#nodes = images.nodes;
    if (!this.images) {
      this.images = images;
      const key = new Uint8Array(Buffer.from(images.key, 'hex'));
      this.arrivals = images.vms.map(({ pages }: { pages: number }) => new Arrival(pages));
      this.merger = await Merger.create({ key, vms: images.vms });
    }
    this.#reader = new RecordReader({
      nodes: 256,
      vms: images.vms.length,
      imagePages: (vm) => images.vms[vm].pages,
    });
    const vms = images.vms.map(({ guest }: { guest?: true }, vm: number) => {
      const { state, guest: id } = this.arrivals[vm]!;
      return guest ? { state, guest: id } : null;
    });
    channel.send(T.READY, 0, encodeJson({ vms }));
    for (const vm of this.options.refuses ?? []) this.send(T.VM_OVER, { vm, code: 'IMAGE', message: 'not opened' });
  }

  #onRecords(body: Uint8Array): void {
    this.#reader.read(body, ({ state, frameId, vm, pfns, pages, nodes, nodeIndexes }) => {
      const keepers = [...nodeIndexes.subarray(0, nodes)].map((i) => this.#nodes[i]!);
      this.records.set(frameId, { state, nodes: keepers });
      this.merger.expect(frameId, vm, pfns.slice(0, pages), pages, () => {});
      if (this.options.gathers !== false && state === 'kept') this.#fetch(frameId);
    });
  }

  #onDiscard(body: Uint8Array): void {
    const view = new DataView(body.buffer, body.byteOffset);
    const [vm, zero, pages] = [view.getUint16(0, true), view.getUint16(2, true), view.getUint32(4, true)];
    const [first, floor] = [Number(view.getBigUint64(8, true)), Number(view.getBigUint64(16, true))];
    const bits = body.subarray(24);
    expect(zero).toBe(0);
    expect(pages).toBeLessThanOrEqual(256 * 1024);
    expect(bits.byteLength).toBe(Math.ceil(pages / 8));
    this.#bitmaps.push({ vm, first, bits, floor });
    this.merger.discard(vm, first, pages, bits, floor, () => {});
  }

  /** Pages that were discarded of a VM, by the last DISCARD that came after all others. */
  get discarded(): number {
    return this.#bitmaps.reduce(
      (sum, { bits }) => sum + [...bits].reduce((n, b) => n + [...b.toString(2)].filter((c) => c === '1').length, 0),
      0,
    );
  }

  #onState(vm: number, body: Uint8Array, channel: Channel): void {
    const arrival = this.arrivals[vm]!;
    const view = new DataView(body.buffer, body.byteOffset);
    const [part, parts, zero] = [2, 4, 6].map((at) => view.getUint16(at, true));
    expect(zero).toBe(0);
    if (part === 0) arrival.parts.length = 0;
    expect(part).toBe(arrival.parts.length);
    arrival.parts.push(body);
    if (part !== parts! - 1) return;
    setTimeout(() => {
      if (arrival.state === 'waiting') arrival.state = 'loaded';
      channel.send(T.LOADED, 0, encodeJson({ vm, guest: arrival.guest }));
    }, this.options.loadMs ?? 0);
  }

  run(vm: number): void {
    const arrival = this.arrivals[vm]!;
    if (arrival.state !== 'running') {
      expect(arrival.state).toBe('loaded');
      arrival.state = 'running';
      this.#expectTrue(vm);
      this.merger.freeze(vm);
    }
    this.send(T.RUNNING, { vm });
  }

  #onFrame({ type, id }: MessageHeader, body: Uint8Array, channel: Channel, role: string): void {
    if (type === T.PING) return channel.send(T.PONG, 0);
    expect(type).toBe(T.PUT);
    if (this.options.refusesFrames && role === 'frames') {
      const node = this.address;
      return channel.send(T.REFUSED, id, encodeJson({ code: 'NO_ROOM', message: 'none', freeBytes: 0, node }));
    }
    const copy = body.slice();
    const now = performance.now();
    const { mergeMs = 0, frameMs = 0 } = this.options;
    this.#freeAt = Math.max(now + mergeMs, this.#freeAt + frameMs);
    setTimeout(() => {
      this.straight.push({ id, role });
      const { vm, pfns } = this.#merge(copy);
      this.#fetched.add(id);
      const stored = () => channel.send(T.STORED, id, encodeU64s(1e15));
      // What it is a duplicate of is here no more, and at no node.
      const missing = pfns.filter((pfn) => this.merger.newest(vm, pfn) === id && !this.merger.isMerged(vm, pfn));
      const isKept = (frame: number) => (this.records.get(frame)?.nodes.length ?? 0) > 0;
      if (missing.length === 0 || [...this.merger.wanted].every(isKept)) return stored();
      this.asked += missing.length;
      setTimeout(() => this.send(T.FAULT, { vm, pfns: missing }), this.options.askMs ?? 0);
      const wait = setInterval(() => {
        if (!missing.every((pfn) => this.merger.isMerged(vm, pfn))) return;
        clearInterval(wait);
        stored();
      }, 1);
      this.#waits.push(wait);
    }, this.#freeAt - now);
  }

  #merge(frame: Uint8Array): { vm: number; pfns: number[] } {
    const slot = this.merger.acquire();
    slot.bytes.set(frame);
    const { vm, pages } = this.merger.merge(slot, frame.byteLength, this, () => {});
    slot.release();
    const view = new DataView(frame.buffer, frame.byteOffset);
    const base = Number(view.getBigUint64(16, true));
    return { vm, pfns: Array.from({ length: pages }, (_, i) => base + view.getUint16(40 + 8 * i, true)) };
  }

  #fetch(id: number): void {
    this.#fetching = this.#fetching.then(async () => {
      const record = this.records.get(id)!;
      if (this.#fetched.has(id) || record.state !== 'kept') return;
      for (const { address } of record.nodes) {
        try {
          const role = 'destination' as const;
          let client = this.#clients.get(address);
          client ??= MamNode.connect(address, { migration: this.#migration, role });
          this.#clients.set(address, client);
          const into = new Uint8Array(300_000);
          const bytes = await (await client).get(id, into);
          this.#fetched.add(id);
          this.#merge(into.subarray(0, bytes));
          return;
        } catch {
          // Another one may have it; or a later record says where it is.
        }
      }
    });
  }
}
