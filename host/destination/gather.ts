// Pre-paging: fetches frames from all holders at once, as they become known.
//
// A frame waits in the queue of each of its holders, and the first of them that has room in its window is asked. A holder that answers fast gets its
// window back fast and is asked for more: nobody's share is fixed. What is asked for in total is bounded by the merger's slots, and the rate by the
// limit on what this host takes in.
//
// What may go wrong with a frame, and what becomes of it:
//   its holder is silent            another holder is asked; the silent one again when it has answered
//   the connection breaks           asked again: there or elsewhere
//   its holder is gone              the others are asked
//   its holder does not have it     likewise
//   it is damaged, or another one   likewise, and the same holder twice more if there is no other
//   nobody is left                  it is an orphan: whoever gave it to us must know what to do (session.ts)

import { AbdmError, type AbdmErrorCode, asAbdmError } from '../../bindings/errors.js';
import type { FrameSlot, Merger } from '../../bindings/merger.js';
import type { Holder } from '../mam/holders.js';
import type { RateLimit } from '../wire/rate.js';
import type { Frame } from './frame.js';
import { FrameQueue } from './queue.js';

/** Frames asked of one holder at a time: enough to keep it busy, little enough to leave what others need in the merger's slots. */
const WINDOW_FRAMES = 6;
/** A holder that gave something else than the frame so often is not asked for it any more. */
const MAX_FAILURES = 3;

/** What another try may mend. */
const DAMAGED: ReadonlySet<AbdmErrorCode> = new Set([
  'FRAME_MALFORMED',
  'FRAME_CHECKSUM',
  'FRAME_TAG',
  'CONTENT_MISMATCH',
]);

interface Lane {
  readonly holder: Holder;
  readonly queue: FrameQueue;
  readonly asked: Set<Frame>;
}

export interface GatherOptions {
  merger: Merger;
  limit: RateLimit;
  /** Gets each frame, and must be done with the slot when it returns. A damaged frame's error is thrown on. */
  onFrame(frame: Frame, slot: FrameSlot, bytes: number): void;
  /** Nobody is left who may have this frame; `why` is what the last one did. */
  onOrphan(frame: Frame, why: AbdmError): void;
  /** Slots that are left to others. */
  spareSlots(): number;
  /** Called once, with what ended the gathering. */
  onError(error: AbdmError): void;
}

export class Gatherer {
  readonly #options: GatherOptions;
  readonly #lanes = new Map<Holder, Lane>();
  /** Frames that are queued or asked for. */
  #pending = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: GatherOptions) {
    this.#options = options;
  }

  /** Fetches this frame from one of its holders. Call `pump` when all that is known was offered. */
  offer(frame: Frame): void {
    this.#pending++;
    this.#enqueue(frame, (queue) => queue.push(frame), goneError(`who had frame ${frame.id}`));
  }

  /** A frame that was offered has more holders now. */
  addHolders(frame: Frame, holders: readonly Holder[]): void {
    for (const holder of holders) this.#lane(holder).queue.push(frame);
  }

  /** A frame that was offered came by another way. */
  withdraw(frame: Frame): void {
    if (frame.state === 'queued' || frame.state === 'asked') this.#pending--;
    frame.state = 'merged';
  }

  /** A holder is up again, or is not any more. */
  onHolder(holder: Holder): void {
    const lane = this.#lane(holder);
    if (holder.state === 'gone') {
      for (const frame of lane.queue.clear()) {
        if (frame.state === 'queued') this.#requeue(frame, goneError(holder.address));
      }
    }
    this.pump();
  }

  /** Asks for as much as windows, slots and the rate allow. */
  pump(): void {
    const { merger, limit, spareSlots } = this.#options;
    while (!this.#stopped && merger.freeSlots > spareSlots()) {
      const found = this.#oldest();
      if (!found) return;
      const waitMs = limit.waitMs;
      if (waitMs > 0) return this.#pumpIn(waitMs);
      found.lane.queue.shift();
      void this.#fetch(found.lane, found.frame);
    }
  }

  /** Something is wanted, and nobody who could give it answers. */
  get stuck(): boolean {
    if (this.#pending === 0 || this.#oldest()) return false;
    return [...this.#lanes.values()].every(({ holder, asked }) => asked.size === 0 || holder.state !== 'up');
  }

  /** Nothing is wanted of anybody. */
  get idle(): boolean {
    return this.#pending === 0;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #lane(holder: Holder): Lane {
    let lane = this.#lanes.get(holder);
    if (!lane) {
      lane = { holder, queue: new FrameQueue(), asked: new Set() };
      this.#lanes.set(holder, lane);
    }
    return lane;
  }

  /** Of what can be asked for now, what was divided first: a duplicate's content then mostly comes before it. */
  #oldest(): { lane: Lane; frame: Frame } | undefined {
    let oldest: { lane: Lane; frame: Frame } | undefined;
    for (const lane of this.#lanes.values()) {
      if (!isUp(lane.holder) || lane.asked.size >= WINDOW_FRAMES) continue;
      const frame = lane.queue.peek(({ state }) => state === 'queued');
      if (!frame) continue;
      if (!oldest || frame.id < oldest.frame.id || (frame === oldest.frame && isBetter(lane, oldest.lane, frame))) {
        oldest = { lane, frame };
      }
    }
    return oldest;
  }

  async #fetch(lane: Lane, frame: Frame): Promise<void> {
    const { merger, limit, onFrame } = this.#options;
    const { holder } = lane;
    const slot = merger.acquire();
    limit.take(frame.bytes || slot.bytes.byteLength);
    lane.asked.add(frame);
    frame.state = 'asked';
    try {
      const bytes = await holder.get(frame.id, slot.bytes);
      if (this.#stopped || frame.state !== 'asked') return;
      onFrame(frame, slot, bytes);
      holder.frames++;
      holder.bytes += bytes;
      frame.state = 'merged';
      this.#pending--;
    } catch (cause) {
      this.#onFailure(frame, holder, asAbdmError(cause));
    } finally {
      slot.release();
      lane.asked.delete(frame);
      this.pump();
    }
  }

  #onFailure(frame: Frame, holder: Holder, error: AbdmError): void {
    if (this.#stopped || frame.state !== 'asked') return;
    const damaged = DAMAGED.has(error.code);
    if (!damaged && error.code !== 'FRAME_LOST' && error.code !== 'PEER_GONE') return this.#fail(error);
    if (holder.state !== 'gone' && error.code !== 'PEER_GONE') {
      const failures = (frame.failures?.get(holder) ?? 0) + 1;
      frame.failures ??= new Map();
      frame.failures.set(holder, failures);
      if (failures >= MAX_FAILURES || !damaged) frame.holders = frame.holders.filter((other) => other !== holder);
    }
    this.#requeue(frame, holder.state === 'gone' ? goneError(holder.address) : error);
  }

  /** In front of all others: it was next before. */
  #requeue(frame: Frame, why: AbdmError): void {
    this.#enqueue(frame, (queue) => queue.unshift(frame), why);
  }

  #enqueue(frame: Frame, put: (queue: FrameQueue) => void, why: AbdmError): void {
    if (frame.holders.some(({ dead }) => dead)) frame.holders = frame.holders.filter(({ dead }) => !dead);
    frame.state = 'queued';
    for (const holder of frame.holders) put(this.#lane(holder).queue);
    if (frame.holders.length > 0) return;
    frame.state = 'known';
    this.#pending--;
    this.#options.onOrphan(frame, why);
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

/** Of two that have the same frame: who gave something else for it is asked last, otherwise who has less to do comes first. */
function isBetter(a: Lane, b: Lane, { failures }: Frame): boolean {
  const failed = (failures?.get(a.holder) ?? 0) - (failures?.get(b.holder) ?? 0);
  return failed === 0 ? a.asked.size < b.asked.size : failed < 0;
}

/** Before the source has left, it sees to what is gone with a node. */
function goneError(what: string): AbdmError {
  return new AbdmError('PEER_GONE', `${what} is gone`);
}

function isUp({ state }: Holder): boolean {
  return state === 'up';
}
