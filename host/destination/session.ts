// One migration at its destination, from the moment that it is known what comes until every page is in place, or it is certain that it never will be:
// what is known of its frames, who has them, and what is merged. Knows nothing of who listens, who connects, and who owns the VM.
//
// What is known of frames comes from the source, as records on the control channel; and, where that is not there, from the nodes: the records that
// they keep, and at last the lists of what they have.

import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError, type AbdmErrorCode, asAbdmError } from '../../bindings/errors.js';
import { type FrameSlot, Merger } from '../../bindings/merger.js';
import type { LeftOver } from '../image/filesink.js';
import { MANIFEST_ID, type VmShape } from '../mam/catalog.js';
import { CatalogReader } from '../mam/catalog-reader.js';
import { type Holder, Holders } from '../mam/holders.js';
import type { NodeRef } from '../mam/keeper.js';
import { Opener } from '../mam/seal.js';
import type { RateLimit } from '../wire/rate.js';
import { RecordReader } from '../wire/records.js';
import type { Security } from '../wire/security.js';
import type { Ending } from './ending.js';
import type { Frame } from './frame.js';
import { FrameLane } from './frames.js';
import { Gatherer } from './gather.js';
import { Images, type ImageTarget } from './images.js';
import { lostError, lostPages } from './lost.js';

/** Frames that can be in memory at a time. */
const SLOTS = 32;
/** Of these, while the source sends frames itself: what it sends is not held up by what waits at nodes. */
const LANE_SLOTS = 6;
/** How often what stands still is looked at. */
const TEND_MS = 250;
/** How often all nodes are asked for what nobody is known to have. */
const SEARCH_MS = 2_000;
/** Lists of holders that are shared between frames. */
const MAX_LISTS = 65_536;

export interface SessionOptions {
  migration: string;
  key: Uint8Array;
  vms: readonly VmShape[];
  /** Frames lie in sealed blocks. */
  sealed: boolean;
  targets: readonly ImageTarget[];
  /** What is done with images that an earlier destination has begun. */
  left: LeftOver;
  limit: RateLimit;
  security: Security;
  /** Nodes that keep frames for others, and might have some of these. */
  others(): readonly NodeRef[];
  /** Nothing at all came from those who have what is missing, for so long. */
  stuckMs: number;
  /** Called once. */
  onEnd(ending: Ending): void;
}

export class Session {
  readonly merger: Merger;
  readonly holders: Holders;
  /** Bytes of frames received. */
  frameBytes = 0;
  /** A source is there that makes frames anew when they are lost, and that still owns the VM. */
  hasSource = false;
  /** Records are read from the nodes. */
  followsIndex = false;
  readonly #options: SessionOptions;
  readonly #images: Images;
  readonly #opener: Opener;
  readonly #catalog: CatalogReader;
  readonly #gatherer: Gatherer;
  readonly #frames = new Map<number, Frame>();
  /** Lists of holders, by their ids. */
  readonly #lists = new Map<string, readonly Holder[]>();
  /** Frames that nobody is known to have. */
  readonly #orphans = new Map<Frame, AbdmError>();
  /** What the source calls a node: its place in this list. */
  #named: Holder[] = [];
  /** How many frames there are, once that is known. */
  #total: number | null = null;
  #lanes = 0;
  /** Frames that came straight from the source of an earlier destination: what stood before their payloads. */
  #restorable: { frame: Frame; meta: Uint8Array }[] = [];
  #searchedAt = Number.NEGATIVE_INFINITY;
  #stuckSince: number | null = null;
  #tending: NodeJS.Timeout;
  #busy = false;
  #over = false;

  private constructor(options: SessionOptions, images: Images, merger: Merger, opener: Opener, catalog: CatalogReader) {
    this.#options = options;
    this.#images = images;
    this.merger = merger;
    this.#opener = opener;
    this.#catalog = catalog;
    this.holders = new Holders({
      migration: options.migration,
      security: options.security,
      onChange: (holder) => this.#guard(() => this.#gatherer.onHolder(holder)),
    });
    this.#gatherer = new Gatherer({
      merger,
      limit: options.limit,
      onFrame: (frame, slot, bytes) => this.#onFrame(frame, slot, bytes),
      onOrphan: (frame, why) => this.#onOrphan(frame, why),
      spareSlots: () => (this.#lanes > 0 ? LANE_SLOTS : options.left === 'keep' ? 1 : 0),
      onError: (error) => this.#end({ how: 'failed', error }),
    });
    this.#tending = setInterval(() => void this.#tend(), TEND_MS);
  }

  /** Opens the images. @throws {AbdmError} and then nothing is left open. */
  static async open(options: SessionOptions): Promise<Session> {
    const { key, vms, targets, left } = options;
    const images = await Images.open(vms, targets, left);
    try {
      const merger = await Merger.create({ key, vms, slots: SLOTS });
      return new Session(options, images, merger, await Opener.create(key), await CatalogReader.create(key));
    } catch (error) {
      await images.giveUp();
      throw error;
    }
  }

  /** Bytes of the images whose pages are in place. */
  get mergedBytes(): number {
    return this.#options.vms.reduce((sum, { bytes }, vm) => {
      return sum + Math.min(bytes, this.merger.mergedPages(vm) * PAGE_BYTES);
    }, 0);
  }

  /** What came from each node. */
  get shares(): { address: string; frames: number; bytes: number }[] {
    return [...this.holders].map(({ address, frames, bytes }) => ({ address, frames, bytes }));
  }

  /** Nodes that cannot be had, for people. */
  get warnings(): string[] {
    return [...this.holders].flatMap(({ address, state, why }) =>
      state === 'up' || !why ? [] : [`node ${address} is ${state}: ${why.message}`],
    );
  }

  /** The nodes that may have frames. */
  join(nodes: readonly NodeRef[]): void {
    for (const node of nodes) this.holders.of(node);
  }

  /** The source's list of nodes, to which its records refer; `anew`: instead of the one before. */
  name(nodes: readonly NodeRef[], anew: boolean): void {
    if (anew) this.#named = [];
    for (const node of nodes) this.#named.push(this.holders.of(node));
    if (this.#named.length > 256) throw new AbdmError('PROTOCOL', 'the source has named more than 256 nodes');
  }

  /** A RECORDS body. @throws {AbdmError} PROTOCOL. */
  onRecords(body: Uint8Array): void {
    const { vms } = this.#options;
    const limits = { nodes: this.#named.length, vms: vms.length, imagePages: (vm: number) => vms[vm]!.pages };
    new RecordReader(limits).read(body, ({ frameId, frameBytes, nodes, nodeIndexes }) => {
      const holders = Array.from(nodeIndexes.subarray(0, nodes), (index) => this.#named[index]!);
      this.#know(frameId, frameBytes, holders);
    });
    this.#gatherer.pump();
    this.#check();
  }

  /** A connection on which the source sends frames itself. */
  lane(): FrameLane {
    this.#lanes++;
    return new FrameLane(this.merger, this.#options.limit, {
      onFrame: (id, slot, bytes) => this.#onDirectFrame(id, slot, bytes),
      onClose: () => {
        this.#lanes--;
        this.#guard(() => this.#gatherer.pump());
      },
    });
  }

  /** The source has divided everything, into so many frames, and makes none anew. */
  divided(frames: number): void {
    this.#total = frames;
    this.#check();
  }

  /** Makes the images visible under their names. @throws {AbdmError} IMAGE. */
  commit(): Promise<void> {
    return this.#images.commit();
  }

  /** Lets go of images into which nothing was merged. */
  giveUp(): Promise<void> {
    return this.#images.giveUp();
  }

  /** Removes what of the images is there so far. */
  discard(): Promise<void> {
    return this.#images.discard();
  }

  /** Leaves what of the images is there so far. */
  leave(): Promise<void> {
    return this.#images.leave();
  }

  /** Nothing more is merged, nobody asked any more; `drop`: and the nodes are told to forget the migration. */
  async close(drop: boolean): Promise<void> {
    this.#stop();
    if (drop) await this.holders.drop();
    this.holders.end();
  }

  #know(id: number, bytes: number, holders: readonly Holder[]): Frame {
    let frame = this.#frames.get(id);
    if (!frame) {
      frame = { id, bytes, holders: [], state: 'known', failures: null };
      this.#frames.set(id, frame);
    }
    const { state } = frame;
    const more = holders.filter((holder) => !frame.holders.includes(holder) && holder.state !== 'gone');
    // The latest word comes first. Lists are shared where they are the same as before.
    if (more.length > 0) frame.holders = this.#shared([...more, ...frame.holders]);
    frame.bytes = bytes;
    if (state === 'merged') return frame;
    if (state !== 'known') this.#gatherer.addHolders(frame, more);
    else if (frame.holders.length === 0) this.#onOrphan(frame, new AbdmError('PEER_GONE', `no node has frame ${id}`));
    else {
      this.#orphans.delete(frame);
      this.#gatherer.offer(frame);
    }
    return frame;
  }

  #shared(holders: readonly Holder[]): readonly Holder[] {
    const name = holders.map(({ id }) => id).join();
    const known = this.#lists.get(name);
    if (known) return known;
    if (this.#lists.size < MAX_LISTS) this.#lists.set(name, holders);
    return holders;
  }

  #onFrame(frame: Frame, slot: FrameSlot, bytes: number): void {
    this.frameBytes += bytes;
    this.#merge(frame.id, slot, bytes);
    // The gatherer counts it as merged when this returns.
    queueMicrotask(() => this.#guard(() => this.#afterMerge()));
  }

  #onDirectFrame(id: number, slot: FrameSlot, bytes: number): void {
    if (this.#over) throw new AbdmError('PEER_GONE', 'the migration is over here');
    this.frameBytes += bytes;
    try {
      this.#merge(id, slot, bytes);
    } catch (error) {
      // A damaged frame is its sender's to send again; an image that cannot be written is nobody's fault there.
      if (!SPOILT.has(asAbdmError(error).code)) this.#end({ how: 'failed', error: asAbdmError(error) });
      throw error;
    }
    const frame = this.#frames.get(id);
    if (frame) this.#settle(frame);
    else this.#frames.set(id, { id, bytes, holders: [], state: 'merged', failures: null });
    this.#guard(() => this.#afterMerge());
  }

  /** It was merged, and not by the gatherer. */
  #settle(frame: Frame): void {
    if (frame.state === 'merged') return;
    this.#orphans.delete(frame);
    this.#gatherer.withdraw(frame);
  }

  /** @throws {AbdmError} what is wrong with the frame. */
  #merge(id: number, slot: FrameSlot, bytes: number): void {
    const frameBytes = this.#options.sealed ? this.#opener.open(id, slot.bytes.subarray(0, bytes)) : bytes;
    const { byteOffset, buffer } = slot.bytes;
    if (frameBytes < 16 || new DataView(buffer, byteOffset).getBigUint64(8, true) !== BigInt(id)) {
      throw new AbdmError('FRAME_MALFORMED', `what came for frame ${id} is another frame`);
    }
    this.merger.merge(slot, frameBytes, this.#images);
  }

  #afterMerge(): void {
    for (const id of this.merger.wanted) this.#fetchAgain(id);
    this.#check();
  }

  /** A duplicate's content was overwritten in its image since: its frame has it still. */
  #fetchAgain(id: number): void {
    const frame = this.#frames.get(id);
    if (frame && frame.state !== 'merged') return;
    if (!frame || frame.holders.length === 0) {
      throw new AbdmError('FRAME_LOST', `frame ${id} is needed again, and no node keeps it`);
    }
    this.#gatherer.offer(frame);
    this.#gatherer.pump();
  }

  #onOrphan(frame: Frame, why: AbdmError): void {
    this.#orphans.set(frame, why);
    if (this.hasSource && SPOILT.has(why.code)) this.#end({ how: 'failed', error: why });
  }

  #check(): void {
    const { merger } = this;
    if (this.#total === null || merger.frames < this.#total || !this.#gatherer.idle || this.#orphans.size > 0) return;
    const missing = lostPages(merger, this.#options.vms);
    if (missing.length === 0) return this.#end({ how: 'whole' });
    this.#end({
      how: 'lost',
      lost: missing,
      error: lostError(missing, 'all frames were merged, and they were in none'),
    });
  }

  /** Now and then: reads the nodes' index where that is asked for, and finds out what will never come. */
  async #tend(): Promise<void> {
    if (this.#busy || this.#over) return;
    this.#busy = true;
    try {
      const isComplete = this.#total !== null && this.#frames.size >= this.#total;
      if (this.followsIndex && !isComplete) await this.readIndex();
      this.#restore();
      const searches = this.#isWanting() && performance.now() - this.#searchedAt > SEARCH_MS;
      if (searches) await this.#search();
      if (this.#over) return;
      const unreachable = [...this.holders].filter(({ state }) => state === 'away' || state === 'silent');
      const isWanting = this.#isWanting();
      if (searches && isWanting && unreachable.length === 0) this.#lose();
      else this.#watch(isWanting || this.#gatherer.stuck, unreachable);
    } catch (error) {
      this.#end({ how: 'failed', error: asAbdmError(error) });
    } finally {
      this.#busy = false;
    }
  }

  /** Reads what the nodes keep of records. @throws {AbdmError} */
  async readIndex(): Promise<void> {
    await this.#catalog.poll(up(this.holders), ({ frameId, frameBytes }, nodes, meta) => {
      const holders = nodes.map((node) => this.holders.of(node));
      const frame = this.#know(frameId, frameBytes, holders);
      if (!meta || this.#options.left !== 'keep') return;
      this.#restorable.push({ frame, meta: meta.slice() });
      this.#restore();
    });
    this.#guard(() => this.#gatherer.pump());
  }

  /** Merges what the images still have of frames that no node has. */
  #restore(): void {
    while (!this.#over && this.#restorable.length > 0 && this.merger.freeSlots > 0) {
      const { frame, meta } = this.#restorable.pop()!;
      if (frame.state === 'merged') continue;
      const slot = this.merger.acquire();
      try {
        const { id } = this.merger.restore(slot, meta, this.#images);
        if (id !== frame.id)
          throw new AbdmError('FRAME_MALFORMED', `the record of frame ${frame.id} is of frame ${id}`);
        this.#settle(frame);
      } catch (cause) {
        const error = asAbdmError(cause);
        if (!SPOILT.has(error.code)) throw error;
        if (frame.state === 'known') this.#orphans.set(frame, error);
      } finally {
        slot.release();
      }
    }
    this.#guard(() => this.#afterMerge());
  }

  /** Everything that can be had is here, and it is not everything. */
  #isWanting(): boolean {
    if (this.#total === null || !this.#gatherer.idle || this.#restorable.length > 0) return false;
    return this.#orphans.size > 0 || this.#frames.size < this.#total;
  }

  /** Asks every node that there is for what nobody is known to have: others may have restored it. */
  async #search(): Promise<void> {
    await this.readIndex();
    this.join(this.#options.others());
    const lists = up(this.holders).map((holder) =>
      holder.list(1, MANIFEST_ID, (ids) => {
        for (const id of ids) {
          const frame = this.#frames.get(id);
          if (frame && (frame.state !== 'known' || frame.failures?.has(holder))) continue;
          if (!frame && this.#frames.size >= this.#total!) continue;
          this.#know(id, 0, [holder]);
        }
      }),
    );
    await Promise.allSettled(lists);
    this.#searchedAt = performance.now();
    this.#gatherer.pump();
  }

  /** What is missing is lost. */
  #lose(): void {
    const lost = lostPages(this.merger, this.#options.vms);
    if (lost.length === 0) return this.#end({ how: 'whole' });
    const [why] = this.#orphans.values();
    this.#end({ how: 'lost', lost, error: lostError(lost, why?.message ?? 'no node has their frames') });
  }

  /** Nobody waits for ever for nodes that do not answer; before the source has left it sees to that. */
  #watch(isStuck: boolean, unreachable: readonly Holder[]): void {
    if (!isStuck || this.#total === null) {
      this.#stuckSince = null;
      return;
    }
    this.#stuckSince ??= performance.now();
    if (performance.now() - this.#stuckSince < this.#options.stuckMs) return;
    const who = unreachable.map(({ address, why }) => `${address} (${why?.message ?? 'not reached yet'})`).join(', ');
    const text = `what is missing may be at nodes that do not answer: ${who}; start this again when they can be reached`;
    this.#end({ how: 'stuck', error: new AbdmError('PEER_UNREACHABLE', text) });
  }

  #guard(run: () => void): void {
    if (this.#over) return;
    try {
      run();
    } catch (error) {
      this.#end({ how: 'failed', error: asAbdmError(error) });
    }
  }

  #stop(): void {
    this.#over = true;
    this.#gatherer.stop();
    clearInterval(this.#tending);
  }

  #end(ending: Ending): void {
    if (this.#over) return;
    this.#stop();
    this.#options.onEnd(ending);
  }
}

/** A node gave something else than it was given: no use asking it again, and no reason to trust it with the rest. */
const SPOILT: ReadonlySet<AbdmErrorCode> = new Set([
  'FRAME_LOST',
  'FRAME_MALFORMED',
  'FRAME_CHECKSUM',
  'FRAME_TAG',
  'CONTENT_MISMATCH',
]);

function up(holders: Iterable<Holder>): Holder[] {
  return [...holders].filter(({ state }) => state === 'up');
}
