// Frames that come straight from the source: towards it the destination is a node like any other, which says STORED when a frame is merged.
//
// Where the connection is secured, frames come over a plain one beside it, made with a ticket; the two end together.
//
// It pushes back by not reading: while the rate limit is in debt or no slot is free, the next frame's body waits in the source. A connection for what somebody
// waits for does not wait for the limit, and has slots of its own.

import { AbdmError } from '../../bindings/errors.js';
import type { FrameSlot, Merger } from '../../bindings/merger.js';
import type { BodyTarget, Channel, ChannelHandler } from '../wire/channel.js';
import { encodeU64s, FILLS, isAboutBlocks, type MessageHeader, MessageType, messageName } from '../wire/messages.js';
import type { RateLimit } from '../wire/rate.js';

/** There is always room: frames are merged as they come. */
const FREE_BYTES = encodeU64s(Number.MAX_SAFE_INTEGER);

/** How often it is looked whether something is merged by now. */
const HELD_MS = 20;
/** So many frames may wait for their STORED; then no more are read before some of them have it. */
const MAX_HELD = 256;

export interface LaneEvents {
  /** What comes here fills the link. */
  onFilled(): void;
  /** Must be done with the slot when it returns; what it throws ends the lane. The frame is STORED when what it returns is resolved. */
  onFrame(id: number, slot: FrameSlot, bytes: number): Promise<void> | null;
  onClose(): void;
}

export interface LaneOptions {
  merger: Merger;
  limit: RateLimit;
  /** What comes is waited for. */
  isUrgent: boolean;
  /** Slots that are left to others. */
  spareSlots: number;
  /** Nothing is merged yet. */
  isHeld(): boolean;
  /** What is merged waits to be written. */
  isBusy(): boolean;
}

export class FrameLane implements ChannelHandler {
  readonly #options: LaneOptions;
  readonly #events: LaneEvents;
  /** The frame that is being received. */
  #slot: FrameSlot | null = null;
  /** Frames that are merged, and not STORED yet. */
  #held = 0;
  #closed = false;

  constructor(options: LaneOptions, events: LaneEvents) {
    this.#options = options;
    this.#events = events;
  }

  bodyTarget(header: MessageHeader, channel: Channel): BodyTarget {
    if (header.type !== MessageType.PUT) return null;
    const { merger, limit } = this.#options;
    const waitMs = this.#waitMs;
    if (waitMs > 0) {
      setTimeout(() => channel.resume(), waitMs);
      return 'wait';
    }
    this.#slot = merger.acquire();
    if (header.bodyBytes > this.#slot.bytes.byteLength) {
      throw new AbdmError('PROTOCOL', `frame ${header.id} has ${header.bodyBytes} bytes, too many`);
    }
    limit.take(header.bodyBytes);
    return this.#slot.bytes.subarray(0, header.bodyBytes);
  }

  onMessage(header: MessageHeader, body: Uint8Array, channel: Channel): void {
    if (header.type === MessageType.DROP) return;
    if (header.type === MessageType.PING) return channel.send(MessageType.PONG, 0);
    if (header.type !== MessageType.PUT) {
      throw new AbdmError('PROTOCOL', `${messageName(header.type)} came where only PUT is expected`);
    }
    if (header.chain === FILLS) this.#events.onFilled();
    const slot = this.#slot!;
    this.#slot = null;
    try {
      const held = this.#events.onFrame(header.id, slot, body.byteLength);
      if (held) void this.#hold(held, header.id, channel);
      else channel.send(MessageType.STORED, header.id, FREE_BYTES);
    } finally {
      slot.release();
    }
  }

  onClose(): void {
    this.#closed = true;
    this.#slot?.release();
    this.#slot = null;
    this.#events.onClose();
  }

  get #waitMs(): number {
    const { merger, limit, isUrgent, spareSlots, isHeld, isBusy } = this.#options;
    if (isHeld()) return HELD_MS;
    if (merger.freeSlots <= spareSlots) return 1;
    if (isUrgent) return 0;
    if (isBusy()) return 1;
    return this.#held < MAX_HELD ? limit.waitMs : 1;
  }

  async #hold(held: Promise<void>, id: number, channel: Channel): Promise<void> {
    this.#held++;
    await held;
    this.#held--;
    if (!this.#closed) channel.send(MessageType.STORED, id, FREE_BYTES);
  }
}

/** A lane on a plain connection. `talk` is the connection on which its ticket is given. */
export class PlainLane {
  readonly #lane: FrameLane;
  readonly #talk: Channel;
  #plain: Channel | null = null;
  #closed = false;

  constructor(lane: FrameLane, talk: Channel) {
    this.#lane = lane;
    this.#talk = talk;
    talk.handler = {
      onMessage: ({ type }) => {
        if (type === MessageType.DROP) return;
        throw new AbdmError('PROTOCOL', `${messageName(type)} came beside frames, where nothing is expected`);
      },
      onClose: () => this.#close(),
    };
  }

  /** The plain connection has come. */
  take(plain: Channel): ChannelHandler {
    this.#plain = plain;
    return {
      bodyTarget: (header, channel) => {
        if (this.#closed) throw new AbdmError('PEER_GONE', 'the other connection has gone');
        if (!isAboutBlocks(header.type)) {
          throw new AbdmError('PROTOCOL', `${messageName(header.type)} is nothing for a plain connection`);
        }
        return this.#lane.bodyTarget(header, channel);
      },
      onMessage: (header, body, channel) => this.#lane.onMessage(header, body, channel),
      onClose: () => {
        this.#plain = null;
        this.#close();
      },
    };
  }

  // A frame that is being received has its slot until the plain connection is gone.
  #close(): void {
    this.#talk.end();
    this.#plain?.end();
    if (this.#plain !== null || this.#closed) return;
    this.#closed = true;
    this.#lane.onClose();
  }
}
