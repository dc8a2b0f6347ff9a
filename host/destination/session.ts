// One migration at its destination, from the moment that it is known what comes until every page is in place, or it is certain that it never will be.
// Knows nothing of who listens, who connects, and who owns the VMs. Its parts:
//
//   known.ts    which frames there are, who has them, and which are wanted
//   gather.ts   fetches those, from all nodes at once
//   demand.ts   fetches what somebody waits for, before all else
//   frames.ts   what comes straight from the source
//   intake.ts   merges what has come
//   search.ts   the nodes' index, and what will never come
//   silence.ts  whether the source is asked for them in vain
//   progress.ts what is whole
//
// Of two frames with the same page the later has it. A VM whose guest runs here (`start`) has its last version in place or still to come: what is
// in place there is never written again. One VM of a gang may fail alone.

import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { type FrameSlot, Merger } from '../../bindings/merger.js';
import type { LeftOver } from '../image/filesink.js';
import type { GuestSink, ImageSink } from '../image/image.js';
import type { VmShape } from '../mam/catalog.js';
import { CatalogReader } from '../mam/catalog-reader.js';
import { type Holder, Holders } from '../mam/holders.js';
import type { NodeRef } from '../mam/keeper.js';
import { Opener } from '../mam/seal.js';
import type { FaultLatency } from '../summary.js';
import type { RateLimit } from '../wire/rate.js';
import type { Security } from '../wire/security.js';
import { Demand } from './demand.js';
import type { Ending } from './ending.js';
import type { Frame } from './frame.js';
import { FrameLane } from './frames.js';
import { Gatherer } from './gather.js';
import { Images, type ImageTarget } from './images.js';
import { Intake } from './intake.js';
import { KnownFrames } from './known.js';
import { lostError, lostPages } from './lost.js';
import { Progress } from './progress.js';
import { Search, SPOILT } from './search.js';
import { Silence } from './silence.js';
import { GatherWindow } from './window.js';

/** Frames that can be in memory at a time. */
const SLOTS = 32;
/** Of these, while the source sends frames itself: what it sends is not held up by what waits at nodes. */
const LANE_SLOTS = 6;
/** Beside them, where there are guests: what they wait for is held up by nothing. */
const URGENT_SLOTS = 8;
/** Of those, what the source sends because a guest waits for it. */
const URGENT_LANE_SLOTS = 2;

/** Pages of a frame lie within so many. */
const FRAME_SPAN = 0x10000;

export interface SessionOptions {
  migration: string;
  key: Uint8Array;
  vms: readonly VmShape[];
  /** Frames lie in sealed blocks. */
  sealed: boolean;
  targets: readonly ImageTarget[];
  /** What is done with images that an earlier destination has begun. */
  left: LeftOver;
  /** Guests stood still before the first of their pages was sent: of each there is one version. */
  oneVersion: boolean;
  limit: RateLimit;
  security: Security;
  /** Nodes that keep frames for others, and might have some of these. */
  others(): readonly NodeRef[];
  /** Nothing at all came from those who have what is missing, for so long. */
  stuckMs: number;
  /** Asks the source for pages of a VM; false: there is nobody to be asked. */
  ask(vm: number, pfns: readonly number[]): boolean;
  /** The source, asked for pages that somebody waits for, has said nothing at all for `stuckMs`. It may be called again. */
  onSilent(error: AbdmError): void;
  /** Every page of this VM is in place: called once for each. */
  onWhole(vm: number): void;
  /** This VM has failed, whoever found that: called once for each. The others go on; if there are none, `onEnd` is called as well. */
  onVmFailed(vm: number, error: AbdmError): void;
  /** Called once. */
  onEnd(ending: Ending): void;
}

export class Session {
  readonly merger: Merger;
  readonly holders: Holders;
  /** A source is there that makes frames anew when they are lost, and that still owns the VM. */
  hasSource = false;
  readonly #options: SessionOptions;
  readonly #images: Images;
  readonly #window = new GatherWindow();
  readonly #gatherer: Gatherer;
  readonly #known: KnownFrames;
  readonly #demand: Demand;
  readonly #intake: Intake;
  readonly #search: Search;
  readonly #progress: Progress;
  readonly #silence: Silence;
  #lanes = 0;
  #over = false;

  private constructor(options: SessionOptions, images: Images, merger: Merger, opener: Opener, catalog: CatalogReader) {
    const { vms, limit, security, migration, left } = options;
    this.#options = options;
    this.#silence = new Silence(options.stuckMs);
    this.#images = images;
    images.onFree = () => this.#guard(() => this.#gatherer.pump());
    this.merger = merger;
    const hasFailed = (vm: number) => images.hasFailed(vm);
    this.holders = new Holders({
      migration,
      security,
      urgent: images.haveGuests,
      onChange: (holder) => this.#guard(() => this.#gatherer.onHolder(holder)),
    });
    const urgentSlots = images.haveGuests ? URGENT_SLOTS : 0;
    const gatherer = new Gatherer({
      merger,
      limit,
      window: this.#window,
      onFrame: (frame, slot, bytes) => this.#onFrame(frame, slot, bytes),
      isWanted: (frame) => this.#known.isWanted(frame),
      onOrphan: (frame, why) => this.#known.orphan(frame, why),
      spareSlots: () => {
        if (this.#progress.isHeld || images.areBusy) return Number.POSITIVE_INFINITY;
        return urgentSlots + (this.#lanes > 0 ? LANE_SLOTS : left === 'keep' ? 1 : 0);
      },
      onError: (error) => this.#end({ how: 'failed', error }),
    });
    this.#gatherer = gatherer;
    const known = new KnownFrames({
      merger,
      gatherer,
      holders: this.holders,
      vms,
      hasFailed,
      onOrphan: (frame, why) => this.#onOrphan(frame, why),
    });
    this.#known = known;
    const progress = new Progress({ merger, known, vms, hasFailed });
    this.#progress = progress;
    const demand = new Demand({
      merger,
      gatherer,
      known,
      window: this.#window,
      vms,
      ask: (vm, pfns) => this.#ask(vm, pfns),
      spareSlots: Math.min(urgentSlots, URGENT_LANE_SLOTS),
      isHeld: () => progress.isHeld,
    });
    this.#demand = demand;
    const onFailed = (vm: number, error: AbdmError) => this.#afterFailure(vm, error);
    this.#intake = new Intake({ merger, images, known, demand, opener: options.sealed ? opener : null, onFailed });
    this.#search = new Search({
      holders: this.holders,
      gatherer,
      known,
      catalog,
      restores: left === 'keep',
      stuckMs: options.stuckMs,
      others: options.others,
      total: () => progress.total,
      isFinal: () => progress.isFinal,
      isWanting: () =>
        progress.isFinal && (gatherer.idle || progress.isHeld) && !this.#search.restoring && !progress.isWhole,
      hasFreeSlot: () => merger.freeSlots > 0 && !progress.isHeld,
      restore: (frame, meta) => {
        this.#intake.restore(frame, meta);
        this.#guard(() => this.#advance());
      },
      onRead: () => this.#guard(() => this.#advance()),
      onLost: (why) => this.#lose(why),
      onEnd: (ending) => this.#end(ending),
    });
    for (const vm of vms.keys()) {
      const guest = images.guest(vm);
      if (!guest?.hasRun) continue;
      merger.adopt(vm, guest.present);
      merger.freeze(vm);
      progress.goOn(vm);
      if (options.oneVersion) progress.sure(vm);
      this.#window.isBounded = true;
    }
  }

  /** Opens the images. @throws {AbdmError} and then nothing is left open. */
  static async open(options: SessionOptions): Promise<Session> {
    const { key, vms, targets, left } = options;
    const images = await Images.open(vms, targets, left);
    try {
      const slots = SLOTS + (images.haveGuests ? URGENT_SLOTS : 0);
      const merger = await Merger.create({ key, vms, slots });
      return new Session(options, images, merger, await Opener.create(key), await CatalogReader.create(key));
    } catch (error) {
      await images.giveUp();
      throw error;
    }
  }

  /** Bytes of frames received. */
  get frameBytes(): number {
    return this.#intake.bytes;
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

  /** Records are read from the nodes. */
  set followsIndex(follows: boolean) {
    this.#search.followsIndex = follows;
  }

  /** Nodes that answer. */
  get upHolders(): Holder[] {
    return [...this.holders].filter(({ state }) => state === 'up');
  }

  /** VMs whose images could not be opened, and why: each is to be failed (`failVm`) before anything comes. */
  get unopened(): ReadonlyMap<number, AbdmError> {
    return this.#images.unopened;
  }

  /** What a VM becomes: whoever owns the VMs brings it to an end. */
  sink(vm: number): ImageSink {
    return this.#images.sink(vm);
  }

  /** The guest that a VM becomes; null if it becomes none. */
  guest(vm: number): GuestSink | null {
    return this.#images.guest(vm);
  }

  /** Pages that the guest of a VM has waited for. */
  postcopyRequests(vm: number): number {
    return this.#demand.requests(vm);
  }

  /** How long guests waited for pages in the last seconds: 99 of a hundred waits at most so long; null: there were none. */
  get latelyP99Ms(): number | null {
    return this.#demand.latelyP99Ms;
  }

  /** How long it waited for them; null: for none. */
  faults(vm: number): FaultLatency | null {
    return this.#demand.latency(vm);
  }

  /** The nodes that may have frames. */
  join(nodes: readonly NodeRef[]): void {
    for (const node of nodes) this.holders.of(node);
  }

  /** The source's list of nodes, to which its records refer; `anew`: instead of the one before. */
  name(nodes: readonly NodeRef[], anew: boolean): void {
    this.#known.name(nodes, anew);
  }

  /** A RECORDS body. @throws {AbdmError} PROTOCOL. */
  onRecords(body: Uint8Array): void {
    this.#silence.broken();
    this.#known.onRecords(body);
    this.#advance();
  }

  /** A DISCARD body. @throws {AbdmError} PROTOCOL. */
  onDiscard(body: Uint8Array): void {
    this.#silence.broken();
    this.#known.onDiscard(body);
    this.#advance();
  }

  /** A connection on which the source sends frames itself; `isUrgent`: those that somebody waits for. */
  lane(isUrgent = false): FrameLane {
    const { merger } = this;
    const spareSlots = isUrgent || !this.#images.haveGuests ? 0 : URGENT_SLOTS;
    this.#lanes++;
    return new FrameLane(
      {
        merger,
        limit: this.#options.limit,
        isUrgent,
        spareSlots,
        isHeld: () => this.#progress.isHeld,
        isBusy: () => this.#images.areBusy,
      },
      {
        onFilled: () => this.#window.filled(),
        onFrame: (id, slot, bytes) => this.#onDirectFrame(id, slot, bytes),
        onClose: () => {
          this.#lanes--;
          this.#guard(() => this.#gatherer.pump());
        },
      },
    );
  }

  /** The source has divided everything, into so many frames, and makes none anew. */
  divided(frames: number): void {
    this.#progress.total = frames;
    this.#advance();
  }

  /** The source is gone for good, and has not said how many frames there are: there will be no others than those that are known, or that a node has. */
  forsaken(): void {
    this.#progress.forsaken = true;
    // Of what there is, nobody knows any more whether it is the last version.
    if (this.#progress.isHeld) this.#lose('the source is gone, and with it which versions of them are the last');
    else this.#advance();
  }

  /** Of a VM whose guest has run before us: the source, or the nodes, have said all that has to be known of its pages. */
  sure(vm: number): void {
    if (this.#progress.sure(vm)) this.#advance();
  }

  /**
   * Resolves when it is known what is in every frame that there is, or all is over; only then a guest may run that the source has not said RUN of: what it has
   * then is the last version of each page, or will be.
   */
  allTold(): Promise<void> {
    return this.#over ? Promise.resolve() : this.#progress.allTold();
  }

  /**
   * The guest of this VM runs from now on, or is about to take its execution state, if it does so once only. All that is not in place it waits for, and what is in
   * place is its own. Call it before that, when it is known of every page in which frame its last version comes.
   */
  start(vm: number): void {
    const { started } = this.#progress;
    if (started.has(vm) || this.#over) return;
    started.add(vm);
    this.#images.forgetStale(vm, this.merger);
    this.merger.freeze(vm);
    this.#intake.sayFailed();
    this.#advance();
  }

  /** The guest of this VM waits for page `pfn`. */
  fault(vm: number, pfn: number): void {
    if (!this.#images.hasFailed(vm)) this.#guard(() => this.#demand.fault(vm, pfn));
  }

  /** Nothing more is merged into this VM; the others go on. */
  failVm(vm: number, error: AbdmError): void {
    if (this.#images.hasFailed(vm)) return;
    this.#images.fail(vm);
    this.#afterFailure(vm, error);
  }

  /** Lets go of images into which nothing was merged. */
  giveUp(): Promise<void> {
    return this.#images.giveUp();
  }

  /** Nothing more is merged, nobody asked any more; `drop`: and the nodes are told to forget the migration. */
  async close(drop: boolean): Promise<void> {
    this.#stop();
    if (drop) await this.holders.drop();
    this.holders.end();
  }

  #onFrame(frame: Frame, slot: FrameSlot, bytes: number): void {
    this.#intake.merge(frame, slot, bytes);
    this.#guard(() => this.#advance());
  }

  /** Resolves, if that is not now, when the source need not be there any more for what this frame has brought. */
  #onDirectFrame(id: number, slot: FrameSlot, bytes: number): Promise<void> | null {
    if (this.#over) throw new AbdmError('PEER_GONE', 'the migration is over here');
    this.#silence.broken();
    try {
      const held = this.#intake.merge(id, slot, bytes);
      this.#guard(() => this.#advance());
      return held;
    } catch (error) {
      // A damaged frame is its sender's to send again; all else is nobody's fault there.
      if (!SPOILT.has(asAbdmError(error).code)) this.#end({ how: 'failed', error: asAbdmError(error) });
      throw error;
    }
  }

  /** False: there is nobody to be asked. */
  #ask(vm: number, pfns: readonly number[]): boolean {
    const { ask, vms, stuckMs, onSilent } = this.#options;
    if (!ask(vm, pfns)) {
      this.#silence.broken();
      return false;
    }
    if (this.#silence.asked()) {
      const text = `page ${pfns[0]} of ${vms[vm]!.name} is waited for, and the source, which is connected, has said nothing for ${stuckMs} ms`;
      // Not before whoever asks has done so.
      queueMicrotask(() => this.#over || onSilent(new AbdmError('PEER_UNREACHABLE', text)));
    }
    return true;
  }

  /** Nobody has a wanted frame. Before the source has left, it sees to what is gone with a node, but not to what a node has spoilt. */
  #onOrphan(frame: Frame, why: AbdmError): void {
    if (!this.hasSource || !SPOILT.has(why.code)) return;
    if (this.#progress.started.size === 0) return this.#end({ how: 'failed', error: why });
    const { vm, first, id } = frame;
    const end = Math.min(this.#options.vms[vm]?.pages ?? 0, first + FRAME_SPAN);
    for (let pfn = first, left = frame.live; pfn < end && left > 0; pfn++) {
      if (this.merger.newest(vm, pfn) !== id || this.merger.isMerged(vm, pfn)) continue;
      left--;
      void this.#demand.want(vm, pfn, id);
    }
  }

  #afterFailure(vm: number, error: AbdmError): void {
    this.#progress.sure(vm);
    this.#known.failVm(vm);
    this.#demand.failVm(vm);
    this.#options.onVmFailed(vm, error);
    if (this.#options.vms.every((_, other) => this.#images.hasFailed(other))) this.#end({ how: 'failed', error });
    else this.#advance();
  }

  /** Something is known or in place that was not. */
  #advance(): void {
    if (this.#over) return;
    for (const vm of this.#progress.look()) this.#options.onWhole(vm);
    this.#window.isBounded = this.#progress.isAwaited;
    this.#gatherer.pump();
    this.#demand.look();
    if (this.#progress.isFinal) this.#check();
  }

  #check(): void {
    const { total, allKnown, isWhole } = this.#progress;
    if (isWhole) return this.#end({ how: 'whole' });
    const { orphans, coming } = this.#known;
    if (
      total !== null &&
      allKnown &&
      this.#gatherer.idle &&
      orphans.size === 0 &&
      coming === 0 &&
      !this.#search.restoring
    ) {
      this.#lose('all frames were merged, and they were in none');
    }
  }

  /** What is not in place will never be. */
  #lose(why: string): void {
    const lost = lostPages(this.merger, this.#options.vms, (vm) => !this.#progress.isDone(vm));
    this.#end(lost.length === 0 ? { how: 'whole' } : { how: 'lost', lost, error: lostError(lost, why) });
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
    this.#progress.stop();
    this.#gatherer.stop();
    this.#demand.stop();
    this.#search.stop();
  }

  #end(ending: Ending): void {
    if (this.#over) return;
    this.#stop();
    this.#options.onEnd(ending);
  }
}
