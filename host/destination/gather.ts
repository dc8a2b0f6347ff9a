// Pre-paging: fetches frames from all holders at once, as they become known.
//
// A frame waits in the queue of each of its holders, and the first of them that has room in its window is asked. A holder that answers fast gets its
// window back fast and is asked for more: nobody's share is fixed. What is asked for in total is bounded by the merger's slots, and, while a guest runs here, by
// what its faults may have to wait behind (window.ts); the rate is bounded by the limit on what this host takes in. What somebody waits for is asked for
// at once, whatever the windows say (demand.ts).
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
import type { GatherWindow } from './window.js';

/** Frames asked of one holder at a time: enough to keep it busy, little enough to leave what others need in the merger's slots. */
const HOLDER_FRAMES = 6;
/** Of small ones more, */
const HOLDER_SMALL_FRAMES = 16;
/** as long as all of them are not more than this. */
const HOLDER_BYTES = 512 * 1024;
/** A holder that gave something else than the frame so often is not asked for it any more. */
const MAX_FAILURES = 3;
/** Frames that come before all others, at most. */
const MAX_NEAR = 64;

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
  /** What was asked for in bulk, and when. */
  readonly asked: Map<Frame, number>;
  askedBytes: number;
  /** When it last gave something, or was asked while it had nothing to give. */
  heardAt: number;
  /** The shortest time in which it gave a frame. */
  tripMs: number;
}

export interface GatherOptions {
  merger: Merger;
  limit: RateLimit;
  window: GatherWindow;
  /** Merges a frame and withdraws it. It must be done with the slot when it returns; a damaged frame's error is thrown on. */
  onFrame(frame: Frame, slot: FrameSlot, bytes: number): void;
  /** A frame that was asked for in vain is worth asking for again. */
  isWanted(frame: Frame): boolean;
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
  /** Queued frames that come first, next to what a guest waits for. */
  #near: Frame[] = [];
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
    this.#enqueue(frame, (queue) => queue.push(frame), null);
  }

  /** A frame that was offered has more holders now. */
  addHolders(frame: Frame, holders: readonly Holder[]): void {
    for (const holder of holders) this.#lane(holder).queue.push(frame);
  }

  /** A frame came by another way, or (`known`, `void`) is not to be fetched any more: what was asked for already is thrown away. */
  withdraw(frame: Frame, state: 'merged' | 'known' | 'void'): void {
    if (frame.state === 'queued' || frame.state === 'asked') this.#pending--;
    frame.state = state;
  }

  /** Before all others that are queued, in this order. */
  hasten(frames: readonly Frame[]): void {
    const others = this.#near.filter((frame) => frame.state === 'queued' && !frames.includes(frame));
    this.#near = [...frames, ...others].slice(0, MAX_NEAR);
    this.pump();
  }

  /** Asks `holder` for a frame that was offered over its urgent connection, now. There must be a free slot. Resolves when that is over, however it ended. */
  fetchNow(frame: Frame, holder: Holder): Promise<void> {
    return this.#fetch(this.#lane(holder), frame, true);
  }

  /** Since when the frame has been asked for in bulk; null: it is not. */
  askedAt(frame: Frame): number | null {
    for (const { asked } of this.#lanes.values()) {
      const at = asked.get(frame);
      if (at !== undefined) return at;
    }
    return null;
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
    const { merger, limit, window, spareSlots } = this.#options;
    if (!this.#stopped && window.waitMs > 0) return this.#pumpIn(window.waitMs);
    while (!this.#stopped && merger.freeSlots > spareSlots()) {
      const { lanes, leftBytes } = this.#open();
      const found = this.#nearest(lanes) ?? this.#oldest(lanes);
      // Who is late gives his room back after a while.
      if (!found || found.frame.bytes > leftBytes) return window.isBounded ? this.#pumpIn(window.lateMs) : undefined;
      const waitMs = limit.waitMs;
      if (waitMs > 0) return this.#pumpIn(waitMs);
      void this.#fetch(found.lane, found.frame, false);
    }
  }

  /** Something is wanted, and nobody who could give it answers. */
  get stuck(): boolean {
    if (this.#pending === 0) return false;
    return [...this.#lanes.values()].every((lane) => !isUp(lane) || (lane.asked.size === 0 && !nextOf(lane)));
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
      const queue = new FrameQueue();
      lane = { holder, queue, asked: new Map(), askedBytes: 0, heardAt: 0, tripMs: Number.POSITIVE_INFINITY };
      this.#lanes.set(holder, lane);
    }
    return lane;
  }

  /** Who may be asked for more, and for how much. */
  #open(): { lanes: readonly Lane[]; leftBytes: number } {
    const { window } = this.#options;
    const lanes = [...this.#lanes.values()].filter(isUp);
    if (!window.isBounded) return { lanes: lanes.filter(hasRoom), leftBytes: Number.POSITIVE_INFINITY };
    const busy = lanes.filter((lane) => !this.#isLate(lane) && (lane.asked.size > 0 || nextOf(lane)));
    const trips = busy.map(({ tripMs }) => tripMs).filter(Number.isFinite);
    const bytes = window.bytes(Math.max(0, ...trips));
    const underWay = busy.reduce((sum, { askedBytes }) => sum + askedBytes, 0);
    // One that is slow, or gone without a word, does not take all of it.
    const share = busy.length > 1 ? bytes / 2 : bytes;
    const open = busy.filter((lane) => hasRoom(lane) && withOneMore(lane) <= share);
    return { lanes: open, leftBytes: underWay === 0 ? Number.POSITIVE_INFINITY : bytes - underWay };
  }

  /** It was asked, and has given nothing for so long that it can have nothing on the link. */
  #isLate({ asked, heardAt }: Lane): boolean {
    return asked.size > 0 && performance.now() - heardAt > this.#options.window.lateMs;
  }

  /** Of the frames that come first, the first that one of these can be asked for. */
  #nearest(lanes: readonly Lane[]): Found | undefined {
    while (this.#near.length > 0 && this.#near[0]!.state !== 'queued') this.#near.shift();
    for (const frame of this.#near) {
      if (frame.state !== 'queued') continue;
      const having = lanes.filter((lane) => frame.holders.includes(lane.holder) && !lane.asked.has(frame));
      if (having.length > 0) return { frame, lane: having.reduce((a, b) => (isBetter(b, a, frame) ? b : a)) };
    }
    return undefined;
  }

  /** Of what can be asked for now, what was divided first: a duplicate's content then mostly comes before it. */
  #oldest(lanes: readonly Lane[]): Found | undefined {
    let oldest: Found | undefined;
    for (const lane of lanes) {
      const frame = nextOf(lane);
      if (!frame || lane.asked.has(frame)) continue;
      if (!oldest || frame.id < oldest.frame.id || (frame === oldest.frame && isBetter(lane, oldest.lane, frame))) {
        oldest = { lane, frame };
      }
    }
    return oldest;
  }

  async #fetch(lane: Lane, frame: Frame, urgent: boolean): Promise<void> {
    const { merger, limit, window, onFrame } = this.#options;
    const { holder } = lane;
    const slot = merger.acquire();
    const bytes = frame.bytes || slot.bytes.byteLength;
    const at = performance.now();
    limit.take(bytes);
    if (!urgent) {
      if (lane.asked.size === 0) lane.heardAt = at;
      lane.asked.set(frame, at);
      lane.askedBytes += bytes;
    }
    frame.state = 'asked';
    frame.asking++;
    let failure: AbdmError | null = null;
    try {
      const got = await holder.get(frame.id, slot.bytes, urgent);
      lane.tripMs = Math.min(lane.tripMs, performance.now() - at);
      window.arrived(got);
      if (!this.#stopped && frame.state === 'asked') {
        onFrame(frame, slot, got);
        holder.frames++;
        holder.bytes += got;
      }
    } catch (cause) {
      failure = asAbdmError(cause);
    }
    slot.release();
    frame.asking--;
    if (!urgent) {
      lane.asked.delete(frame);
      lane.askedBytes -= bytes;
      lane.heardAt = performance.now();
    }
    if (failure) this.#onFailure(frame, holder, failure);
    this.pump();
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
    if (frame.asking === 0) this.#requeue(frame, holder.state === 'gone' ? goneError(holder.address) : error);
  }

  /** In front of all others: it was next before. */
  #requeue(frame: Frame, why: AbdmError): void {
    if (!this.#options.isWanted(frame)) return this.withdraw(frame, 'known');
    this.#enqueue(frame, (queue) => queue.unshift(frame), why);
  }

  #enqueue(frame: Frame, put: (queue: FrameQueue) => void, why: AbdmError | null): void {
    if (frame.holders.some(({ dead }) => dead)) frame.holders = frame.holders.filter(({ dead }) => !dead);
    frame.state = 'queued';
    for (const holder of frame.holders) put(this.#lane(holder).queue);
    if (frame.holders.length > 0) return;
    frame.state = 'known';
    this.#pending--;
    // An error costs more than all of the above: it is not made for nothing.
    this.#options.onOrphan(frame, why ?? goneError(`who had frame ${frame.id}`));
  }

  #pumpIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.pump(), ms);
  }

  #fail(error: AbdmError): void {
    if (this.#stopped) return;
    this.stop();
    this.#options.onError(error);
  }
}

interface Found {
  lane: Lane;
  frame: Frame;
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

function isUp({ holder }: Lane): boolean {
  return holder.state === 'up';
}

function hasRoom({ asked, askedBytes }: Lane): boolean {
  return asked.size < HOLDER_FRAMES || (asked.size < HOLDER_SMALL_FRAMES && askedBytes < HOLDER_BYTES);
}

/** What it would be asked for, were the next frame as long as those before; nothing, if it is the first. */
function withOneMore({ asked, askedBytes }: Lane): number {
  return asked.size === 0 ? 0 : askedBytes * (1 + 1 / asked.size);
}

/** The next frame in its queue. */
function nextOf({ queue }: Lane): Frame | undefined {
  return queue.peek(({ state }) => state === 'queued');
}
