// That a source is connected, as a store says it: a key that expires soon after nobody says so any more.

import type { Engine } from './engine.js';
import type { HeadRecord } from './head.js';

/** How long it holds. */
const HERE_MS = 10_000;
const HERE = new Uint8Array([1]);

export class Presence {
  readonly #engine: Engine;
  readonly #key: string;
  readonly #head: HeadRecord;
  #over = false;

  constructor(engine: Engine, key: string, head: HeadRecord) {
    this.#engine = engine;
    this.#key = key;
    this.#head = head;
  }

  /** He is here. @throws {AbdmError} PEER_GONE, surely, if what he put is not there any more. */
  async say(): Promise<void> {
    const [isThere] = await this.#engine.touch([this.#key], HERE_MS);
    if (isThere) return;
    await this.#head.refresh();
    if (!this.#over) await this.#engine.add(this.#key, HERE, HERE_MS);
  }

  /** Nothing is to be there from now on. */
  stop(): void {
    this.#over = true;
  }

  /** He has left. */
  async leave(): Promise<void> {
    this.stop();
    await this.#engine.remove([this.#key]);
  }
}
