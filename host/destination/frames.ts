// Frames that come straight from the source: towards it the destination is a node like any other, which says STORED when a frame is merged.
//
// Where the connection is secured, frames come over a plain one beside it, made with a ticket; the two end together.
//
// It pushes back by not reading: while the rate limit is in debt or no slot is free, the next frame's body waits in the source.

import { AbdmError } from '../../bindings/errors.js';
import type { FrameSlot, Merger } from '../../bindings/merger.js';
import type { BodyTarget, Channel, ChannelHandler } from '../wire/channel.js';
import { encodeU64s, isAboutBlocks, type MessageHeader, MessageType, messageName } from '../wire/messages.js';
import type { RateLimit } from '../wire/rate.js';

/** There is always room: frames are merged as they come. */
const FREE_BYTES = encodeU64s(Number.MAX_SAFE_INTEGER);

export interface LaneEvents {
  /** Must be done with the slot when it returns; what it throws ends the lane. */
  onFrame(id: number, slot: FrameSlot, bytes: number): void;
  onClose(): void;
}

export class FrameLane implements ChannelHandler {
  readonly #merger: Merger;
  readonly #limit: RateLimit;
  readonly #events: LaneEvents;
  /** The frame that is being received. */
  #slot: FrameSlot | null = null;

  constructor(merger: Merger, limit: RateLimit, events: LaneEvents) {
    this.#merger = merger;
    this.#limit = limit;
    this.#events = events;
  }

  bodyTarget(header: MessageHeader, channel: Channel): BodyTarget {
    if (header.type !== MessageType.PUT) return null;
    const waitMs = this.#merger.freeSlots > 0 ? this.#limit.waitMs : 1;
    if (waitMs > 0) {
      setTimeout(() => channel.resume(), waitMs);
      return 'wait';
    }
    this.#slot = this.#merger.acquire();
    if (header.bodyBytes > this.#slot.bytes.byteLength) {
      throw new AbdmError('PROTOCOL', `frame ${header.id} has ${header.bodyBytes} bytes, too many`);
    }
    this.#limit.take(header.bodyBytes);
    return this.#slot.bytes.subarray(0, header.bodyBytes);
  }

  onMessage(header: MessageHeader, body: Uint8Array, channel: Channel): void {
    if (header.type === MessageType.DROP) return;
    if (header.type === MessageType.PING) return channel.send(MessageType.PONG, 0);
    if (header.type !== MessageType.PUT) {
      throw new AbdmError('PROTOCOL', `${messageName(header.type)} came where only PUT is expected`);
    }
    const slot = this.#slot!;
    this.#slot = null;
    try {
      this.#events.onFrame(header.id, slot, body.byteLength);
    } finally {
      slot.release();
    }
    channel.send(MessageType.STORED, header.id, FREE_BYTES);
  }

  onClose(): void {
    this.#slot?.release();
    this.#slot = null;
    this.#events.onClose();
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
