// Scatters the frames of one migration over the nodes, and keeps the books: what was divided, who has it, what is lost when nodes go. Knows nothing of
// images: whoever divides puts frames, is told which of them nobody has any more, and puts those again.
//
//   put ---> courier ---> R nodes ---> ledger ---> recorder ---> index blocks at R nodes
//                     \-> or the destination, while it keeps up
//   urgent -> the destination, at once; if it does not say in time that it has it, as `put`
//   a node is gone ---> ledger: frames that nobody has ---> onLost ---> put again, or void
//   void ---> ledger: they never come ---> recorder
//
//   finish   everything is where it should be, and every node knows that: whoever put it may leave
//
// Where a guest runs at the destination (`live`), a duplicate may not be resolvable from its memory any more, so that the frame that it refers to has to be
// fetched. Nobody can fetch what went straight to the destination. So whoever divides hears at once who is given a frame (`onGiven`), and lets frames
// that may go to nodes refer to none that went straight; a frame that is referred to goes to nodes; and one that refers to what went straight goes there too.

import { FRAME_PAGES, frameBound } from '../../bindings/abi.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Manifest } from './catalog.js';
import { type Chain, Courier, type Straight } from './courier.js';
import { dial } from './dial.js';
import type { NodeIndex } from './index.js';
import type { KeeperOptions } from './keeper.js';
import { type Kept, Ledger } from './ledger.js';
import { Mam } from './mam.js';
import type { Member } from './member.js';
import type { Dial } from './place.js';
import { Recorder } from './recorder.js';
import { Registrar } from './registrar.js';
import { type Block, SEAL_BYTES, Sealer } from './seal.js';
import { States } from './states.js';
import { SHORT_FRAME_PAGES, windowLimits } from './window.js';

/** Index blocks that may be on their way at a time. */
const INDEX_SLOTS = 4;
/** A node that is asked for something and says nothing for so long is gone, as far as its source is concerned. */
const SILENT_MS = 5_000;
/** A destination may be merging at its own pace. */
const DESTINATION_SILENT_MS = 10_000;
/** What somebody waits for goes to the nodes too if the destination does not say within this that it has it. */
const URGENT_MS = 2_000;

/** A frame on its way: its bytes, sealed or not, and which pages it holds. */
export interface Frame extends Block {
  readonly vm: number;
  readonly base: number;
  readonly pages: number;
  readonly deltas: Uint16Array | undefined;
  /** Ids of other frames, whose contents its duplicates have. */
  readonly references: readonly number[];
  /** What stands before its payload; needed if the destination may get it and there are nodes. */
  readonly meta: Uint8Array | undefined;
}

/** So much of what it takes lately, in milliseconds, on top of what an acknowledgement takes; and so many frames always. */
export interface Lead {
  readonly ms: number;
  readonly frames: number;
}

export interface ScatterOptions extends Pick<KeeperOptions, 'migration' | 'security'> {
  /** The migration's secret. */
  readonly key: Uint8Array;
  /** Which nodes there are; null: the destination alone. */
  readonly index: NodeIndex | null;
  readonly manifest: Manifest;
  readonly parked: boolean;
  readonly leaseMs: number;
  readonly token: string | null;
  /** Frames are short (framer.ts). */
  readonly short?: boolean;
  /** A guest may run at the destination before all of its memory is there. */
  readonly live?: boolean;
  /** A frame is given to the destination, or will be to nobody else; or to nodes. They do not have it yet, and it may be said again of others. */
  readonly onGiven?: (frame: Kept, straight: boolean) => void;
  /** A frame never comes. */
  readonly onVoid?: (frame: Kept) => void;
  /** R nodes have the frame, or the destination. */
  readonly onStored: (frame: Kept) => void;
  /**
   * Nobody has these frames any more: put them again, the same pages under the same ids; or, if those were written to since, or it `isDoubtful`, put the pages in
   * others and make them void.
   */
  readonly onLost: (frames: readonly Kept[]) => void;
  /** It cannot go on. */
  readonly onError: (error: AbdmError) => void;
  /** How many bytes of frames are still to be put, as far as is known. Default: nobody knows. */
  readonly leftBytes?: () => number;
}

export class Scatter {
  readonly ledger = new Ledger();
  readonly #options: ScatterOptions;
  #mam!: Mam;
  #courier!: Courier;
  #recorder: Recorder | null = null;
  #registrar: Registrar | null = null;
  #states: States | null = null;
  /** On their way to the destination, because somebody waits for them there. */
  readonly #urgent = new Set<Kept>();
  /** Null: as far as to any node. */
  #leads: { lead: Lead; ifSlow: Lead } | null = null;
  /** Frames that nobody has and that were not put again yet. */
  readonly #lost = new Set<number>();
  #putAgain = 0;
  #waiting: (() => void)[] = [];
  /** Aborted when nothing is sent any more. */
  readonly #stopped = new AbortController();

  private constructor(options: ScatterOptions) {
    this.#options = options;
  }

  /** Begins to connect to the nodes. @throws {AbdmError} IMAGE if there is more to say of the images than a manifest takes. */
  static async open(options: ScatterOptions): Promise<Scatter> {
    const scatter = new Scatter(options);
    const { index, manifest, key } = options;
    const onError = (error: AbdmError) => {
      scatter.#stopped.abort(error);
      options.onError(error);
    };
    const mam = await Mam.open({
      index,
      replicas: index ? manifest.replicas : 0,
      limits: windowLimits(options.short),
      dial: scatter.#dial('source', SILENT_MS),
      onJoin: (member) => scatter.#registrar?.join(member),
      onGone: () => scatter.#onGone(),
      onChange: () => scatter.#courier?.pump(),
    });
    scatter.#mam = mam;
    const { leftBytes } = options;
    scatter.#courier = new Courier({ mam, onError, onSlow: () => scatter.#limitAhead(), leftBytes });
    if (index) {
      const wake = () => scatter.#wake();
      scatter.#recorder = new Recorder(await Sealer.create(key, INDEX_SLOTS), scatter.#courier, wake);
      scatter.#registrar = await Registrar.create({ mam, ...options });
      scatter.#states = new States(await Sealer.create(key, INDEX_SLOTS), scatter.#courier, wake);
    }
    return scatter;
  }

  get mam(): Mam {
    return this.#mam;
  }

  /** Times that a block was sent once more, and frames that were put again because nobody had them. */
  get resent(): number {
    return this.#courier.resent + this.#putAgain;
  }

  /** Resolves when enough nodes are there. @throws {AbdmError} NO_ROOM, USAGE; what aborts `signal`. */
  async ready(signal: AbortSignal): Promise<void> {
    await this.#mam.ready(signal);
    this.#checkRoom();
  }

  /** Tells the nodes what is coming, before anything does. Resolves when each has heard it, or is gone. @throws {AbdmError} USAGE if one refuses it. */
  async begin(): Promise<void> {
    await this.#registrar?.begin();
  }

  /** A store that is filled to the brim fails whoever else uses it: where there is nobody but stores, they have room for all. @throws {AbdmError} NO_ROOM. */
  #checkRoom(): void {
    const { members } = this.#mam;
    if (members.length === 0 || members.some(({ node }) => node.chains)) return;
    const { vms, replicas } = this.#options.manifest;
    const bytes = vms.reduce((sum, vm) => sum + vm.bytes, 0) * replicas;
    const room = members.reduce((sum, { freeBytes, node }) => sum + freeBytes * node.copies, 0);
    if (room >= bytes) return;
    const text = `the stores have room for ${room} bytes, and ${replicas} copies of this may take ${bytes}`;
    const hint = 'raise maxmemory of Valkey or Redis, -m of memcached, or add a store or intermediates';
    throw new AbdmError('NO_ROOM', `${text}: ${hint} (${this.#mam.describe()})`);
  }

  /** The destination takes frames too from now on, at `address`. */
  addDestination(address: string): void {
    const { index, live } = this.#options;
    const silentMs = index ? DESTINATION_SILENT_MS : undefined;
    const urgent = live ? this.#dial('urgent', SILENT_MS) : null;
    this.#mam.addDestination(address, this.#dial('frames', silentMs), urgent);
  }

  /**
   * How far ahead of the destination bytes may be outstanding. Little where a guest runs, so that what it waits for comes soon.
   * @param ifSlow while the destination is known not to keep up.
   */
  setAhead(lead: Lead, ifSlow = lead): void {
    this.#leads = { lead, ifSlow };
    this.#limitAhead();
  }

  /** The destination is gone, with all that only it had, or was to have. Returns whether it had anything. */
  loseDestination(): boolean {
    this.#mam.removeDestination();
    const lost = this.ledger.lose((holders) => holders === 'destination');
    for (const id of this.#courier.recallStraight()) lost.push(this.#forget(this.ledger.get(id)!));
    this.#lose(lost);
    return lost.length > 0;
  }

  /** A frame that is put now may be one that goes nowhere but to the destination: it would not wait for long. */
  canGoStraight(): boolean {
    return this.#courier.canGoStraight(this.#frameBytes);
  }

  /**
   * Gives a frame to R nodes, or to the destination. It is released when they have it. Where a guest runs at the destination, one that refers to what
   * went straight there goes there and nowhere else: it is lost if that is gone.
   */
  put(frame: Frame): void {
    const kept = this.#admit(frame);
    if (kept) this.#send(frame, kept);
  }

  /** Gives a frame to the destination at once, whatever else is on its way there: somebody waits for it. If that fails it goes on as `put` does. */
  urgent(frame: Frame): void {
    const kept = this.#admit(frame);
    if (!kept) return;
    const { urgent } = this.#mam;
    if (urgent?.up) void this.#sendUrgently(frame, kept, urgent);
    else this.#send(frame, kept);
  }

  /** The destination was seen not to keep up. */
  get isSlow(): boolean {
    return this.#courier.isSlow;
  }

  /** A frame could go to the destination like one that somebody waits for, and would be in the way of little. */
  canAccompany(): boolean {
    const { urgent } = this.#mam;
    return urgent?.up === true && urgent.window.hasRoom(this.#frameBytes);
  }

  /** These frames never come: nobody waits for them any more, and whoever reads the index knows. They are not put again. */
  void(frames: readonly Kept[]): void {
    for (const frame of frames) {
      if (frame.state === 'void') continue;
      this.#courier.recall(frame.id);
      this.#urgent.delete(frame);
      this.#lost.delete(frame.id);
      this.ledger.void(frame);
      this.#recorder?.add(frame);
      this.#options.onVoid?.(frame);
    }
    this.#wake();
  }

  /**
   * Whether somebody waits for all that is on its way: then what takes far longer than most goes along another chain too, or is lost if there is none and it is
   * the destination that takes so long.
   */
  hurry(on: boolean): void {
    this.#courier.hurry = on;
  }

  /** This VM does not leave with the others: the nodes will say that what they have of it is not whole. */
  leaveOut(vm: number): void {
    this.#registrar?.leaveOut(vm);
  }

  /** Frames that were divided, and that nobody has yet. */
  underWay(): Iterable<Kept> {
    return this.ledger.coming;
  }

  /**
   * Puts the execution state of a VM to the nodes, once in a migration. Resolves when it is there; `settle` and `finish` wait for it too, and put again
   * what is lost of it.
   * @throws {AbdmError} IMAGE if it is empty or longer than 64 MiB; why nothing is sent any more.
   */
  async putState(vm: number, state: Uint8Array): Promise<void> {
    const states = this.#states;
    if (!states) throw new AbdmError('INTERNAL', 'there are no nodes to keep an execution state');
    states.put(vm, state);
    await this.#until(this.#stopped.signal, () => states.has(vm));
  }

  /**
   * That was all. Resolves when everything is at its nodes, the index too, and all nodes have been told so; what is lost until then is still reported, and
   * waited for.
   * @throws {AbdmError} NO_ROOM, USAGE; what aborts `signal`.
   * @param onCommit called when from now on others may take what is at the nodes: there is no way back.
   */
  async finish(signal: AbortSignal, onCommit: () => void): Promise<void> {
    this.hurry(true);
    for (;;) {
      await this.settle(signal);
      if (!this.#registrar) return;
      // Who may have forgotten something says so before there is no way back.
      await Promise.all(this.#mam.members.map(({ node }) => node.verify()));
      if (!this.#isSettled) continue;
      onCommit();
      await this.#registrar.complete(this.ledger.size);
      // A node that did not answer to that was gone already, perhaps with frames that nobody else has.
      if (this.#isSettled) return;
    }
  }

  /** Resolves when all that was put is where it should be, the index of it too; more may follow. @throws what aborts `signal`. */
  async settle(signal: AbortSignal): Promise<void> {
    await this.#until(signal, () => {
      if (this.#isDelivered) this.#recorder?.flush();
      return this.#isSettled;
    });
  }

  /** All nodes forget everything, those too that were lost. Resolves within two seconds. */
  async drop(): Promise<void> {
    this.#stop();
    await this.#mam.drop();
  }

  /** Nothing more is sent; connections end. */
  end(): void {
    this.#stop();
    this.#recorder?.stop();
    this.#mam.end();
  }

  #stop(): void {
    this.#courier.stop();
    this.#stopped.abort(new AbdmError('CANCELLED', 'nothing is sent any more'));
  }

  /** Nothing is on its way or lost. */
  get #isDelivered(): boolean {
    return this.#lost.size + this.#urgent.size + this.#courier.outstanding === 0;
  }

  get #isSettled(): boolean {
    return this.#isDelivered && (this.#states?.idle ?? true) && (this.#recorder?.idle ?? true);
  }

  /** Resolves when `isSo`. @throws what aborts `signal`. */
  async #until(signal: AbortSignal, isSo: () => boolean): Promise<void> {
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake);
    try {
      for (;;) {
        signal.throwIfAborted();
        if (isSo()) return;
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      // Whoever flushes often would leave a listener each time.
      signal.removeEventListener('abort', wake);
    }
  }

  /** A frame that is to be sent; null, and it is released, if it is void. */
  #admit(frame: Frame): Kept | null {
    const { id, vm, base, pages, deltas, references, meta, bytes } = frame;
    let kept = this.ledger.get(id);
    if (kept?.state === 'void') {
      frame.release();
      return null;
    }
    if (!kept) {
      const nothing = { bytes: 0, generation: 0, holders: null, isPinned: false, isStraight: false, isDoubtful: false };
      kept = { id, vm, base, pages, deltas, references, meta, state: 'coming', ...nothing };
      this.ledger.add(kept);
    }
    kept.bytes = bytes.byteLength;
    kept.references = references;
    kept.meta = meta;
    if (this.#lost.delete(id)) this.#putAgain++;
    if (this.#isParting) for (const reference of references) this.#pin(reference);
    return kept;
  }

  #limitAhead(): void {
    if (!this.#leads) return;
    const { ms, frames } = this.isSlow ? this.#leads.ifSlow : this.#leads.lead;
    this.#mam.setAhead({ ms, minBytes: frames * this.#frameBytes });
  }

  /** Of a frame that cannot be compressed. */
  get #frameBytes(): number {
    return frameBound(this.#options.short ? SHORT_FRAME_PAGES : FRAME_PAGES) + SEAL_BYTES;
  }

  /** It matters who has a frame that others refer to. */
  get #isParting(): boolean {
    return this.#options.live === true && this.#options.index !== null;
  }

  /** A frame is referred to: unless it went straight already, or soon will, it goes to nodes. */
  #pin(id: number): void {
    const kept = this.ledger.get(id);
    if (!kept || kept.isPinned) return;
    if (this.#courier.commit(id)) return this.#onGiven(kept, true);
    kept.isPinned = true;
    this.#courier.pin(id);
  }

  #send(frame: Frame, kept: Kept): void {
    const { id, vm, base, references } = kept;
    let straight: Straight = kept.isPinned ? 'never' : 'may';
    if (this.#isParting && references.some((id) => this.ledger.get(id)?.isStraight)) straight = 'only';
    const extent = Math.floor(base / FRAME_PAGES) + vm * 2 ** 40;
    const onGiven = (isStraight: boolean) => this.#onGiven(kept, isStraight);
    // Even while it waits for room there: nobody else will have it.
    if (straight === 'only') onGiven(true);
    const onLost = (isDoubtful: boolean) => {
      this.#lost.add(id);
      kept.isDoubtful = isDoubtful;
      // Whoever is putting it does not expect to hear of it yet.
      queueMicrotask(() => {
        if (this.#lost.has(id)) this.#lose([this.#forget(kept)]);
      });
    };
    const sent = this.#courier.send(frame, extent, { straight, onGiven, onLost });
    const stored = sent.then((chain) => this.#onStored(kept, chain));
    stored.catch((error) => this.#options.onError(asAbdmError(error)));
  }

  async #sendUrgently(frame: Frame, kept: Kept, destination: Member): Promise<void> {
    const { id, bytes } = frame;
    // One for the socket, one for what comes after.
    let needed = 2;
    const release = () => {
      if (--needed === 0) frame.release();
    };
    this.#urgent.add(kept);
    this.#onGiven(kept, true);
    const { byteLength } = bytes;
    const startedAt = performance.now();
    destination.window.sent(byteLength);
    let isStored = false;
    try {
      const result = await destination.node.put(id, bytes, [], { deadlineMs: URGENT_MS, onFree: release });
      isStored = result.stored;
    } catch {
      // It is gone, or silent.
    }
    destination.window.settled(byteLength, isStored ? performance.now() - startedAt : null);
    // Meanwhile it may be void.
    if (!this.#urgent.delete(kept)) return release();
    if (!isStored) return this.#send({ ...frame, release }, kept);
    release();
    destination.stored.frames++;
    destination.stored.bytes += byteLength;
    this.#onStored(kept, [destination]);
  }

  #onGiven(kept: Kept, isStraight: boolean): void {
    if (isStraight) kept.isStraight = true;
    this.#options.onGiven?.(kept, isStraight);
  }

  #onStored(kept: Kept, chain: Chain): void {
    const direct = chain.length === 1 && chain[0]!.id === '';
    this.ledger.keep(kept, direct ? 'destination' : chain);
    if (!direct) kept.meta = undefined;
    // They may be gone again by now.
    if (!direct && chain.every(({ gone }) => gone)) return this.#onGone();
    this.#recorder?.add(kept);
    this.#options.onStored(kept);
    this.#wake();
  }

  #onGone(): void {
    this.#lose(this.ledger.lose((holders) => holders !== 'destination' && holders.every(({ gone }) => gone)));
    // What the destination has merged, but what nobody could prove to its successor, is put once more.
    const unprovable = new Set(this.#recorder?.recover());
    this.#lose([...unprovable].map((frame) => this.#forget(frame)));
    this.#states?.recover();
  }

  #forget(frame: Kept): Kept {
    this.ledger.forget(frame);
    return frame;
  }

  #lose(frames: readonly Kept[]): void {
    if (frames.length === 0) return;
    for (const { id } of frames) this.#lost.add(id);
    this.#options.onLost(frames);
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #dial(role: 'source' | 'frames' | 'urgent', answerMs: number | undefined): Dial {
    const { migration, security, manifest } = this.#options;
    return (address, onState, signal) => {
      return dial(address, {
        migration,
        replicas: manifest.replicas,
        role,
        onState,
        signal,
        ...(security && { security }),
        ...(answerMs !== undefined && { answerMs }),
      });
    };
  }
}
