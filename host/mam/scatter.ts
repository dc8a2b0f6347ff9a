// Scatters the frames of one migration over the nodes, and keeps the books: what was divided, who has it, what is lost when nodes go. Knows nothing of
// images: whoever divides puts frames, is told which of them nobody has any more, and puts those again.
//
//   put ---> courier ---> R nodes ---> ledger ---> recorder ---> index blocks at R nodes
//                     \-> or the destination, while it keeps up
//   a node is gone ---> ledger: frames that nobody has ---> onLost ---> put again
//
//   finish   everything is where it should be, and every node knows that: whoever put it may leave

import { FRAME_PAGES } from '../../bindings/abi.js';
import { type AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Manifest } from './catalog.js';
import { Courier } from './courier.js';
import type { NodeIndex } from './index.js';
import { type Kept, Ledger } from './ledger.js';
import { Mam } from './mam.js';
import { MamNode, type NodeOptions } from './node.js';
import type { Dial } from './place.js';
import { Recorder } from './recorder.js';
import { Registrar } from './registrar.js';
import { type Block, Sealer } from './seal.js';

/** Index blocks that may be on their way at a time. */
const INDEX_SLOTS = 4;
/** A node that is asked for something and says nothing for so long is gone, as far as its source is concerned. */
const SILENT_MS = 5_000;
/** A destination may be merging at its own pace. */
const DESTINATION_SILENT_MS = 10_000;

/** A frame on its way: its bytes, sealed or not, and which pages it holds. */
export interface Frame extends Block {
  readonly vm: number;
  readonly base: number;
  readonly pages: number;
  readonly deltas: Uint16Array | undefined;
  /** What stands before its payload; needed if the destination may get it and there are nodes. */
  readonly meta: Uint8Array | undefined;
}

export interface ScatterOptions extends Pick<NodeOptions, 'migration' | 'security'> {
  /** The migration's secret. */
  readonly key: Uint8Array;
  /** Which nodes there are; null: the destination alone. */
  readonly index: NodeIndex | null;
  readonly manifest: Manifest;
  readonly parked: boolean;
  readonly leaseMs: number;
  readonly token: string | null;
  /** R nodes have the frame, or the destination. */
  readonly onStored: (frame: Kept) => void;
  /** Nobody has these frames any more: put them again, the same pages under the same ids. */
  readonly onLost: (frames: readonly Kept[]) => void;
  /** It cannot go on. */
  readonly onError: (error: AbdmError) => void;
}

export class Scatter {
  readonly ledger = new Ledger();
  readonly #options: ScatterOptions;
  #mam!: Mam;
  #courier!: Courier;
  #recorder: Recorder | null = null;
  #registrar: Registrar | null = null;
  /** Frames that nobody has and that were not put again yet. */
  readonly #lost = new Set<number>();
  #putAgain = 0;
  #waiting: (() => void)[] = [];

  private constructor(options: ScatterOptions) {
    this.#options = options;
  }

  /** Begins to connect to the nodes. @throws {AbdmError} IMAGE if there is more to say of the images than a manifest takes. */
  static async open(options: ScatterOptions): Promise<Scatter> {
    const scatter = new Scatter(options);
    const { index, manifest, key, onError } = options;
    const mam = await Mam.open({
      index,
      replicas: index ? manifest.replicas : 0,
      dial: scatter.#dial('source', SILENT_MS),
      onJoin: (member) => scatter.#registrar?.join(member),
      onGone: () => scatter.#onGone(),
      onChange: () => scatter.#courier?.pump(),
    });
    scatter.#mam = mam;
    scatter.#courier = new Courier({ mam, onError });
    if (index) {
      scatter.#recorder = new Recorder(await Sealer.create(key, INDEX_SLOTS), scatter.#courier, () => scatter.#wake());
      scatter.#registrar = await Registrar.create({ mam, ...options });
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

  /** Resolves when enough nodes are there and know what is coming. @throws {AbdmError} NO_ROOM, USAGE; what aborts `signal`. */
  async ready(signal: AbortSignal): Promise<void> {
    await this.#mam.ready(signal);
    await this.#registrar?.begin();
  }

  /** The destination takes frames too from now on, at `address`. */
  addDestination(address: string): void {
    const silentMs = this.#options.index ? DESTINATION_SILENT_MS : undefined;
    this.#mam.addDestination(address, this.#dial('frames', silentMs));
  }

  /** The destination is gone, with all that only it had. Returns whether it had anything. */
  loseDestination(): boolean {
    this.#mam.removeDestination();
    const lost = this.ledger.lose((holders) => holders === 'destination');
    this.#lose(lost);
    return lost.length > 0;
  }

  /** Gives a frame to R nodes, or to the destination. It is released when they have it. */
  put(frame: Frame): void {
    const { id, vm, base, pages, deltas, meta, bytes } = frame;
    const known = this.ledger.get(id);
    const kept: Kept = known ?? { id, vm, base, pages, deltas, bytes: 0, generation: 0, holders: null, meta };
    kept.bytes = bytes.byteLength;
    kept.meta = meta;
    if (!known) this.ledger.add(kept);
    if (this.#lost.delete(id)) this.#putAgain++;
    const extent = Math.floor(base / FRAME_PAGES) + vm * 2 ** 40;
    const stored = this.#courier.send(frame, extent, true).then((chain) => {
      const direct = chain.length === 1 && chain[0]!.id === '';
      kept.holders = direct ? 'destination' : chain;
      if (!direct) kept.meta = undefined;
      // They may be gone again by now.
      if (!direct && chain.every(({ gone }) => gone)) return this.#onGone();
      this.#recorder?.add(kept);
      this.#options.onStored(kept);
      this.#wake();
    });
    stored.catch((error) => this.#options.onError(asAbdmError(error)));
  }

  /**
   * That was all. Resolves when everything is at its nodes, the index too, and all nodes have been told so; what is lost until then is still reported, and
   * waited for.
   * @throws {AbdmError} NO_ROOM, USAGE; what aborts `signal`.
   * @param onCommit called when from now on others may take what is at the nodes: there is no way back.
   */
  async finish(signal: AbortSignal, onCommit: () => void): Promise<void> {
    this.#courier.hurry = true;
    for (;;) {
      await this.settle(signal);
      if (!this.#registrar) return;
      onCommit();
      await this.#registrar.complete(this.ledger.size);
      // A node that did not answer to that was gone already, perhaps with frames that nobody else has.
      if (this.#isSettled) return;
    }
  }

  /** Resolves when all that was put is where it should be, the index of it too; more may follow. @throws what aborts `signal`. */
  async settle(signal: AbortSignal): Promise<void> {
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake);
    try {
      await this.#settled(signal);
    } finally {
      // Whoever flushes often would leave a listener each time.
      signal.removeEventListener('abort', wake);
    }
  }

  /** All nodes forget everything, those too that were lost. Resolves within two seconds. */
  async drop(): Promise<void> {
    this.#courier.stop();
    await this.#mam.drop();
  }

  /** Nothing more is sent; connections end. */
  end(): void {
    this.#courier.stop();
    this.#recorder?.stop();
    this.#mam.end();
  }

  get #isSettled(): boolean {
    const { outstanding } = this.#courier;
    return this.#lost.size === 0 && outstanding === 0 && (this.#recorder?.idle ?? true);
  }

  async #settled(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#lost.size === 0 && this.#courier.outstanding === 0) this.#recorder?.flush();
      if (this.#isSettled) return;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #onGone(): void {
    this.#lose(this.ledger.lose((holders) => holders !== 'destination' && holders.every(({ gone }) => gone)));
    const unprovable = new Set(this.#recorder?.recover());
    if (unprovable.size > 0) this.#lose([...unprovable].map((frame) => this.#forget(frame)));
  }

  /** The destination has merged it, but nobody could prove that to its successor: it is put to the nodes instead. */
  #forget(frame: Kept): Kept {
    frame.holders = null;
    frame.generation++;
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

  #dial(role: 'source' | 'frames', answerMs: number | undefined): Dial {
    const { migration, security } = this.#options;
    return (address, onState, signal) => {
      return MamNode.connect(address, {
        migration,
        role,
        onState,
        signal,
        ...(security && { security }),
        ...(answerMs !== undefined && { answerMs }),
      });
    };
  }
}
