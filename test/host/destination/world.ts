// What a destination meets: nodes, true ones and one that misbehaves as told, and a source that does step by step what the test wants.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { Divider } from '#abdm/bindings/divider.js';
import { Destination, type DestinationOptions } from '#abdm/host/destination/destination.js';
import { FileSink } from '#abdm/host/image/filesink.js';
import { type Intermediate, startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { encodeManifest, MANIFEST_ID, partOf, RECORDS_ID, RecordsWriter, STATE_ID } from '#abdm/host/mam/catalog.js';
import type { NodeRef } from '#abdm/host/mam/keeper.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Sealer } from '#abdm/host/mam/seal.js';
import { migrationSecret } from '#abdm/host/mam/secret.js';
import type { Mode } from '#abdm/host/summary.js';
import type { Channel } from '#abdm/host/wire/channel.js';
import { connect } from '#abdm/host/wire/connect.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, MessageType, messageName, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import { RecordWriter } from '#abdm/host/wire/records.js';
import { seededPages } from '../../pages.js';

const MiB = 2 ** 20;
const PAGE = 4096;

/** Who keeps blocks in these tests. */
export interface Keeper extends NodeRef {
  /** Its end without a word, as of a process that is killed. */
  kill(): Promise<void>;
}

/** A true intermediate in this process. */
export async function trueNode(): Promise<Keeper & { node: Intermediate }> {
  const node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64 * MiB, channel: { lingerMs: 100 } });
  let closed: Promise<void> | undefined;
  const kill = () => {
    closed ??= node.close();
    return closed;
  };
  onTestFinished(kill);
  return { address: node.address, id: node.id, node, kill };
}

export const trueNodes = (count: number) => Promise.all(Array.from({ length: count }, () => trueNode()));

/** A node that does as told: `change` what it gives, or say nothing while `mute`. */
export class OddNode implements Keeper {
  readonly id = randomBytes(16).toString('hex');
  address = '';
  /** Blocks that it was asked for. */
  readonly asked: number[] = [];
  mute = false;
  change: (id: number, block: Uint8Array) => void = () => {};
  /** Of a migration's other side: what it says to LOOKUP. */
  found: object[] = [];
  readonly #blocks = new Map<number, Uint8Array>();
  #listener!: Listener;
  readonly #unsaid: (() => void)[] = [];

  static async start(): Promise<OddNode> {
    const node = new OddNode();
    node.#listener = await listen(
      '127.0.0.1:0',
      () => ({
        onMessage: ({ type, id }, body, channel) => {
          const copy = body.slice();
          const answer = () => node.#answer(type, id, copy, channel);
          if (node.mute) node.#unsaid.push(answer);
          else answer();
        },
      }),
      { lingerMs: 100 },
    );
    node.address = `127.0.0.1:${node.#listener.address.port}`;
    onTestFinished(() => node.kill());
    return node;
  }

  /** Says what it did not say before. */
  speak(): void {
    this.mute = false;
    for (const say of this.#unsaid.splice(0)) say();
  }

  kill(): Promise<void> {
    return this.#listener.close();
  }

  #answer(type: MessageType, id: number, body: Uint8Array, channel: Channel): void {
    const T = MessageType;
    const blocks = this.#blocks;
    if (type === T.HELLO) {
      const room = { freeBytes: 1e9, memoryBytes: 1e9 };
      channel.send(
        T.WELCOME,
        0,
        encodeJson({ protocol: PROTOCOL_VERSION, role: 'intermediate', id: this.id, ...room }),
      );
    } else if (type === T.PUT) {
      blocks.set(id, body);
      channel.send(T.STORED, id, encodeU64s(1e9));
    } else if (type === T.GET) {
      this.asked.push(id);
      const block = blocks.get(id)?.slice();
      if (block) this.change(id, block);
      if (block) channel.send(T.FRAME, id, block);
      else channel.send(T.MISSING, id);
    } else if (type === T.LIST) {
      const ids = [...blocks.keys()].filter((other) => other >= id).sort((a, b) => a - b);
      channel.send(T.LISTED, id, encodeU64s(...ids.slice(0, 100)));
    } else if (type === T.LOOKUP) channel.send(T.FOUND, 0, encodeJson({ found: this.found }));
    else if (type === T.PING) channel.send(T.PONG, 0);
    else if (type === T.DROP) {
      blocks.clear();
      channel.send(T.DROPPED, 0, encodeJson({ frames: 0, bytes: 0 }));
    } else channel.send(T.LEASED, 0, encodeJson({ expiresInMs: 1000 }));
  }
}

interface Sent {
  id: number;
  block: Uint8Array;
  meta: Uint8Array;
  pfns: number[];
  holders: Keeper[];
}

/** A source that has divided its image, and now does what it is told. */
export class TestSource {
  readonly migration = randomBytes(16).toString('hex');
  readonly vmKey = new Uint8Array(randomBytes(32));
  readonly key = migrationSecret(this.vmKey, this.migration);
  readonly token = randomBytes(16).toString('hex');
  readonly frames: Sent[] = [];
  readonly image: Uint8Array;
  readonly name: string;
  readonly sealed: boolean;
  /** Its VM is a guest. */
  readonly guest: boolean;
  /** What a destination said, in order. */
  readonly heard: { type: MessageType; body: Uint8Array }[] = [];
  #sealer!: Sealer;
  readonly #nodes = new Map<string, MamNode>();
  #records = 0;
  #channel: Channel | null = null;
  #connection = 0;
  #closed = false;

  private constructor(name: string, image: Uint8Array, sealed: boolean, guest: boolean) {
    this.guest = guest;
    this.name = name;
    this.image = image;
    this.sealed = sealed;
    onTestFinished(() => this.die());
  }

  static async of(
    pages: number,
    { name = 'a', sealed = false, seed = 7, kinds = [] as string[], guest = false } = {},
  ): Promise<TestSource> {
    const image = kinds.length > 0 ? seededPages(seed, pages, kinds) : seededPages(seed, pages);
    const source = new TestSource(name, image, sealed, guest);
    source.#sealer = await Sealer.create(source.key, 4);
    const divider = await Divider.create({ key: source.key, slots: 4 });
    const batch = divider.acquire();
    for (let base = 0; base < pages; base += 64) {
      const count = Math.min(64, pages - base);
      batch.bytes.set(image.subarray(base * PAGE, (base + count) * PAGE));
      for (const frame of divider.divide(batch, { vm: 0, base, pages: count })) {
        const plain = frame.bytes.slice();
        const pfns = Array.from({ length: frame.pages }, (_, i) => frame.base + (frame.deltas?.[i] ?? i));
        const block = sealed ? source.seal(frame.id, plain) : plain;
        source.frames.push({ id: frame.id, block, meta: metaOf(plain), pfns, holders: [] });
        frame.release();
      }
    }
    return source;
  }

  seal(id: number, body: Uint8Array, generation = 0): Uint8Array {
    const block = this.#sealer.seal(id, body.slice(), generation);
    const bytes = block.bytes.slice();
    block.release();
    return bytes;
  }

  get vms() {
    const bytes = this.image.byteLength;
    const vm = { name: this.name, bytes, pages: bytes / PAGE, regions: [{ name: 'a', address: 0, bytes }] };
    return [this.guest ? { ...vm, guest: true as const } : vm];
  }

  /** Puts frames at nodes: `where` says at which. */
  async scatter(where: (i: number) => Keeper[], from = 0, to = this.frames.length): Promise<void> {
    for (const [i, frame] of this.frames.entries()) {
      if (i < from || i >= to) continue;
      frame.holders = where(i);
      for (const keeper of frame.holders) await this.put(keeper, frame.id, frame.block);
    }
  }

  async put(keeper: Keeper, id: number, block: Uint8Array): Promise<void> {
    const node = await this.#node(keeper);
    expect(await node.put(id, block)).toMatchObject({ stored: true });
  }

  /** Puts the manifest, and the records of these frames. */
  async index(keepers: readonly Keeper[], frames = this.frames): Promise<void> {
    const { migration, sealed, vms } = this;
    const blocks: [number, Uint8Array][] = [];
    if (this.#records === 0) {
      for (const [i, body] of encodeManifest({ migration, sealed, replicas: 1, vms }).entries()) {
        blocks.push([MANIFEST_ID + i, body]);
      }
    }
    const writer = new RecordsWriter();
    for (const { id, block, pfns, holders, meta } of frames) {
      const nodes = holders.map(({ address, id }) => ({ address, id }));
      const record = { frameId: id, frameBytes: block.byteLength, vm: 0, pfns, nodes };
      expect(writer.add(holders.length === 0 ? { ...record, meta } : record)).toBe(true);
    }
    if (frames.length > 0) blocks.push([RECORDS_ID + this.#records++, writer.take()]);
    for (const [id, body] of blocks) {
      const block = this.seal(id, body);
      for (const keeper of keepers) await this.put(keeper, id, block);
    }
  }

  async register(keepers: readonly Keeper[], complete: boolean, parked = false): Promise<void> {
    const voters = keepers.map(({ address, id }) => ({ address, id }));
    for (const keeper of keepers) {
      await (await this.#node(keeper)).register({
        vms: [this.name],
        replicas: 1,
        parked,
        leaseMs: 60_000,
        voters,
        token: parked ? null : this.token,
        complete,
        frames: complete ? this.frames.length : 0,
      });
    }
  }

  /** Everything that a source leaves when it parks. */
  async park(keepers: Keeper[], where: (i: number) => Keeper[] = () => keepers): Promise<void> {
    await this.register(keepers, false, true);
    await this.scatter(where);
    await this.index(keepers);
    await this.register(keepers, true, true);
    this.leaveNodes();
  }

  /** Puts an execution state, in one piece. */
  async putState(keepers: readonly Keeper[], state: Uint8Array): Promise<void> {
    const block = this.seal(STATE_ID, partOf(state, 0));
    for (const keeper of keepers) await this.put(keeper, STATE_ID, block);
  }

  /** Connects to a destination and says what comes. */
  async announce(
    to: { address: string | null },
    nodes: readonly Keeper[],
    direct = false,
    mode: Mode = 'stop',
  ): Promise<void> {
    await this.#say(to.address!, { mode, direct, nodes: nodes.map(({ address, id }) => ({ address, id })) });
  }

  /** What a destination says of this type, as the `count`th time; undefined if it has ended the conversation before. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON, of whatever message
  async hears(type: MessageType, count = 1): Promise<any> {
    const said = () => this.heard.filter((one) => one.type === type);
    await until(() => said().length >= count || this.#closed, `it is told ${messageName(type)}`);
    const one = said()[count - 1];
    return one && JSON.parse(Buffer.from(one.body).toString());
  }

  async #say(address: string, images: object): Promise<void> {
    const { migration, key, token, sealed, vms } = this;
    let answered: () => void = () => {};
    const connection = ++this.#connection;
    this.#closed = false;
    const next = () =>
      new Promise<void>((resolve) => {
        answered = resolve;
        if (this.#closed) resolve();
      });
    this.#channel = await connect(address, {
      onMessage: ({ type }, body) => {
        this.heard.push({ type, body: body.slice() });
        if (type === MessageType.WELCOME || type === MessageType.READY || type === MessageType.DIVIDED) answered();
      },
      onClose: () => {
        if (connection !== this.#connection) return;
        this.#closed = true;
        answered();
      },
    });
    let answer = next();
    this.#channel.send(MessageType.HELLO, 0, encodeJson({ protocol: PROTOCOL_VERSION, role: 'source', migration }));
    await answer;
    answer = next();
    const secret = Buffer.from(key).toString('hex');
    const rest = { key: secret, token, sealed, replicas: 1, vms, elapsedMs: 1 };
    this.#channel.send(MessageType.IMAGES, 0, encodeJson({ ...rest, ...images }));
    await answer;
  }

  /** Sends the records of these frames on the control channel; `nodes` as in `announce`. */
  records(nodes: readonly Keeper[], frames = this.frames): void {
    const writer = new RecordWriter();
    for (const { id, block, pfns, holders } of frames) {
      writer.add(
        id,
        block.byteLength,
        0,
        holders.map((holder) => nodes.indexOf(holder)),
        pfns,
      );
    }
    this.send(MessageType.RECORDS, writer.take());
  }

  divided(): void {
    this.send(MessageType.DIVIDED, encodeJson({ frames: this.frames.length }));
  }

  send(type: MessageType, body: Uint8Array): void {
    this.#channel!.send(type, 0, body);
  }

  /** Sends these frames itself, and resolves when they are merged. */
  async sendFrames(to: { address: string | null }, from: number, end: number): Promise<MamNode> {
    const lane = await MamNode.connect(to.address!, { migration: this.migration, role: 'frames' });
    for (const { id, block } of this.frames.slice(from, end)) {
      expect(await lane.put(id, block)).toMatchObject({ stored: true });
    }
    onTestFinished(() => lane.end());
    return lane;
  }

  /** Its connection to the destination breaks. */
  cut(): void {
    this.#channel?.destroy();
    this.#channel = null;
  }

  /** Leaves the nodes. */
  leaveNodes(): void {
    for (const node of this.#nodes.values()) node.end();
    this.#nodes.clear();
  }

  /** Its end without a word. */
  die(): void {
    this.cut();
    this.leaveNodes();
  }

  async #node(keeper: Keeper): Promise<MamNode> {
    let node = this.#nodes.get(keeper.id);
    if (!node) {
      node = await MamNode.connect(keeper.address, { migration: this.migration, role: 'source' });
      this.#nodes.set(keeper.id, node);
    }
    return node;
  }
}

/** What stands before a frame's payload. */
function metaOf(frame: Uint8Array): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset);
  const [pages, ids, duplicates] = [28, 30, 32].map((at) => view.getUint16(at, true));
  return frame.slice(0, 40 + pages! * 8 + ids! * 16 + duplicates! * 8 + 16);
}

/** Where a destination writes, and destinations that do. */
export class Place {
  readonly dir = mkdtempSync(join(tmpdir(), 'abdm-test-'));
  readonly #started: Destination[] = [];

  constructor() {
    onTestFinished(async () => {
      for (const destination of this.#started) {
        destination.cancel();
        await destination.done;
      }
      rmSync(this.dir, { recursive: true });
    });
  }

  path(name = 'a'): string {
    return join(this.dir, name);
  }

  async start(options: Partial<DestinationOptions> = {}, names = ['a']): Promise<Destination> {
    const destination = await Destination.start({
      ...(!options.parked && { listen: '127.0.0.1:0' }),
      images: names.map((name) => ({
        name,
        statePath: `${this.path(name)}.abdm`,
        open: ({ bytes }, left) => new FileSink(this.path(name), bytes, left),
      })),
      returnMs: 1_500,
      answerMs: 3_000,
      ...options,
    });
    this.#started.push(destination);
    return destination;
  }

  expectWhole({ image, name }: TestSource): void {
    expect(Buffer.compare(readFileSync(this.path(name)), image)).toBe(0);
  }
}

/** Waits until this is true. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const by = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > by) throw new Error(`not within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
