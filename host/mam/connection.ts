// A connection to one node, made again whenever it is lost, for as long as the node may be there.

import { setTimeout as sleep } from 'node:timers/promises';
import { type AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Security } from '../wire/security.js';
import { dial } from './dial.js';
import { type FrameKeeper, isSurelyGone, type NodeRef } from './keeper.js';

const RETRY_MS = 500;

export interface ConnectionEvents {
  onUp(): void;
  /** It is lost, or could not be made; `surely`: what the node had is gone with it, and it is not tried again. */
  onDown(error: AbdmError, surely: boolean): void;
}

export class Connection {
  #node: FrameKeeper | null = null;
  #ended = false;
  readonly #ref: NodeRef;
  readonly #migration: string;
  readonly #security: Security;
  readonly #events: ConnectionEvents;

  constructor(
    ref: NodeRef,
    { migration, security }: { migration: string; security: Security },
    events: ConnectionEvents,
  ) {
    this.#ref = ref;
    this.#migration = migration;
    this.#security = security;
    this.#events = events;
    void this.#connect();
  }

  /** The node, while it is connected. */
  get node(): FrameKeeper | null {
    return this.#node;
  }

  end(): void {
    this.#ended = true;
    this.#node?.end();
  }

  async #connect(): Promise<void> {
    const { address, id } = this.#ref;
    const about = { migration: this.#migration, security: this.#security, role: 'destination' as const };
    while (!this.#ended) {
      try {
        this.#node = await dial(address, { ...about, id, onState: (node) => this.#onState(node) });
        if (this.#ended) this.#node.end();
        return this.#events.onUp();
      } catch (cause) {
        const error = asAbdmError(cause);
        const surely = isSurelyGone(error);
        this.#events.onDown(error, surely);
        if (surely) return;
      }
      await sleep(RETRY_MS, undefined, { ref: false });
    }
  }

  #onState(node: FrameKeeper): void {
    if (this.#ended || node !== this.#node || !node.gone) return;
    const { error, surely } = node.gone;
    this.#node = null;
    this.#events.onDown(error, surely);
    if (!surely) void this.#connect();
  }
}
