// A connection for blocks to one server of Valkey or Redis, and what its replicas have of what was written on it.
//
//   SET 1, SET 2, SET 3   ->            WAIT answers for everything that was written before it on its connection, and lets nothing through behind it
//   WAIT 1                ->            until then: so one stands for all that came while the one before it was waited for
//                         <-  3 x OK, 1
//   SET 4, WAIT 1         ->

import type { ReadTarget } from '../engine.js';
import type { Pipe } from '../pipe.js';
import { command, type Reply } from './resp.js';

/** How long replicas may take to confirm a write. */
export const CONFIRM_MS = 1_000;

export class BlockLine {
  readonly #pipe: Pipe<Reply>;
  #confirming: Promise<unknown> = Promise.resolve();
  #next: Promise<Reply> | null = null;

  constructor(pipe: Pipe<Reply>) {
    this.#pipe = pipe;
  }

  get open(): boolean {
    return this.#pipe.open;
  }

  /** @param asking the server is just being given what this is about. @throws {AbdmError} PEER_GONE. */
  ask(parts: readonly (string | Uint8Array)[], asking: boolean, target?: ReadTarget): Promise<Reply> {
    if (asking) void this.#pipe.ask(command('ASKING')).catch(() => {});
    return this.#pipe.ask(parts, target);
  }

  /** How many replicas have all that was written here before; it is enough to have heard of so many. @throws {AbdmError} PEER_GONE. */
  confirm(replicas: number): Promise<Reply> {
    this.#next ??= this.#confirming.then(() => {
      this.#next = null;
      const confirmed = this.#pipe.ask(command('WAIT', String(replicas), String(CONFIRM_MS)));
      this.#confirming = confirmed.catch(() => {});
      return confirmed;
    });
    return this.#next;
  }

  close(): void {
    this.#pipe.close();
  }
}
