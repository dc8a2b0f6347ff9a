// Pre-paging: fetches frames from all nodes at once, as the source makes them known.
//
// Each node has a queue, in the order in which its frames became known, and a window of frames that are asked for and not here yet. A node that
// answers fast gets its window back fast and is asked for more: nobody's share is fixed. What is asked for in total is bounded by the merger's
// slots, and the rate by the limit on what this host takes in.

import type { AbdmError, AbdmErrorCode } from '../../bindings/errors.js';
import type { FrameSlot, Merger } from '../../bindings/merger.js';
import type { FrameKeeper } from '../mam/keeper.js';
import type { RateLimit } from '../wire/rate.js';

/** Frames asked of one node at a time: enough to keep it busy, little enough to leave what others need in the merger's slots. */
const WINDOW_FRAMES = 6;

/** What another try may mend. */
const DAMAGED: ReadonlySet<AbdmErrorCode> = new Set([
  'FRAME_MALFORMED',
  'FRAME_CHECKSUM',
  'FRAME_TAG',
  'CONTENT_MISMATCH',
]);
/** A frame that arrives damaged is fetched again so often. */
const RETRIES = 2;

interface Wanted {
  id: number;
  bytes: number;
  retries: number;
}

interface Lane {
  node: FrameKeeper;
  queue: Wanted[];
  /** Index in the queue of what is asked for next. */
  next: number;
  asked: number;
  /** The connection is gone, and a new one under way. */
  down: boolean;
  frames: number;
  bytes: number;
}

export interface GatherOptions {
  nodes: readonly FrameKeeper[];
  merger: Merger;
  limit: RateLimit;
  /** Gets each frame, and must be done with the slot when it returns. A damaged frame's error is thrown on. */
  onFrame(slot: FrameSlot, bytes: number): void;
  /** Called once, with what ended the gathering. */
  onError(error: AbdmError): void;
  /** Connects to a node anew whose connection has ended: its frames may still be there. */
  reconnect(node: FrameKeeper): Promise<FrameKeeper>;
}

export class Gatherer {
  /** Frames that are known and not here yet. */
  pending = 0;
  readonly #options: GatherOptions;
  readonly #lanes: Lane[];
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: GatherOptions) {
    this.#options = options;
    this.#lanes = options.nodes.map((node) => ({
      node,
      queue: [],
      next: 0,
      asked: 0,
      down: false,
      frames: 0,
      bytes: 0,
    }));
  }

  /** Node `node` has the frame `id` of `bytes` bytes. Call `pump` when all that is known was added. */
  add(node: number, id: number, bytes: number): void {
    this.#lanes[node]!.queue.push({ id, bytes, retries: 0 });
    this.pending++;
  }

  /** Asks for as much as windows, slots and the rate allow. */
  pump(): void {
    const { merger, limit } = this.#options;
    while (!this.#stopped && merger.freeSlots > 0) {
      const lane = this.#oldest();
      if (!lane) return;
      const waitMs = limit.waitMs;
      if (waitMs > 0) return this.#pumpIn(waitMs);
      this.#fetch(lane, lane.queue[lane.next++]!);
    }
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  get nodes(): FrameKeeper[] {
    return this.#lanes.map(({ node }) => node);
  }

  /** What came from each node. */
  get shares(): { address: string; frames: number; bytes: number }[] {
    return this.#lanes.map(({ node, frames, bytes }) => ({ address: node.address, frames, bytes }));
  }

  /** Of the lanes with room in their windows the one whose next frame was divided first: a duplicate's content then mostly comes before it. */
  #oldest(): Lane | undefined {
    let oldest: Lane | undefined;
    for (const lane of this.#lanes) {
      if (lane.down || lane.next === lane.queue.length || lane.asked >= WINDOW_FRAMES) continue;
      if (!oldest || lane.queue[lane.next]!.id < oldest.queue[oldest.next]!.id) oldest = lane;
    }
    return oldest;
  }

  async #fetch(lane: Lane, wanted: Wanted): Promise<void> {
    if (lane.next === 1024) {
      // What was asked for is cut off now and then, so that the queue does not grow with the image.
      lane.queue.splice(0, lane.next);
      lane.next = 0;
    }
    const { merger, limit, onFrame } = this.#options;
    const slot = merger.acquire();
    limit.take(wanted.bytes);
    lane.asked++;
    try {
      const bytes = await lane.node.get(wanted.id, slot.bytes);
      if (this.#stopped) return;
      lane.frames++;
      lane.bytes += bytes;
      onFrame(slot, bytes);
      this.pending--;
    } catch (error) {
      this.#onFailure(lane, wanted, error as AbdmError);
    } finally {
      slot.release();
      lane.asked--;
      this.pump();
    }
  }

  #onFailure(lane: Lane, wanted: Wanted, error: AbdmError): void {
    if (this.#stopped) return;
    if (!lane.node.open) this.#reconnect(lane);
    else if (!DAMAGED.has(error.code) || wanted.retries++ === RETRIES) return this.#fail(error);
    lane.queue.splice(lane.next, 0, wanted);
  }

  async #reconnect(lane: Lane): Promise<void> {
    if (lane.down) return;
    lane.down = true;
    try {
      lane.node = await this.#options.reconnect(lane.node);
      lane.down = false;
      this.pump();
    } catch (error) {
      this.#fail(error as AbdmError);
    }
  }

  #pumpIn(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.pump();
    }, ms);
  }

  #fail(error: AbdmError): void {
    if (this.#stopped) return;
    this.stop();
    this.#options.onError(error);
  }
}
