// What nobody has said: reads the nodes' index where that is asked for, makes again what the images still have of frames that no node has, asks all nodes for
// what nobody is known to have, and at last finds out what will never come. Nobody waits for ever.

import { AbdmError, type AbdmErrorCode, asAbdmError } from '../../bindings/errors.js';
import { MANIFEST_ID } from '../mam/catalog.js';
import type { CatalogReader } from '../mam/catalog-reader.js';
import type { Holder, Holders } from '../mam/holders.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Ending } from './ending.js';
import type { Frame } from './frame.js';
import type { Gatherer } from './gather.js';
import type { KnownFrames } from './known.js';

/** How often what stands still is looked at. */
const TEND_MS = 250;
/** How often all nodes are asked for what nobody is known to have. */
const SEARCH_MS = 2_000;
/** While nobody has said how many frames there are, so many more than are known are believed in. */
const MAX_UNTOLD = 4_096;

/** A node gave something else than it was given: no use asking it again, and no reason to trust it with the rest. */
export const SPOILT: ReadonlySet<AbdmErrorCode> = new Set([
  'FRAME_LOST',
  'FRAME_MALFORMED',
  'FRAME_CHECKSUM',
  'FRAME_TAG',
  'CONTENT_MISMATCH',
]);

export interface SearchOptions {
  holders: Holders;
  gatherer: Gatherer;
  known: KnownFrames;
  catalog: CatalogReader;
  /** The images may have pages that an earlier destination has brought. */
  restores: boolean;
  /** Nothing at all came from those who have what is missing, for so long. */
  stuckMs: number;
  /** Nodes that keep frames for others, and might have some of these. */
  others(): readonly NodeRef[];
  /** How many frames there are; null: nobody has said. */
  total(): number | null;
  /** There will be no other frames than those that are known, or that a node has. */
  isFinal(): boolean;
  /** Everything that can be had is here, and it is not everything. */
  isWanting(): boolean;
  hasFreeSlot(): boolean;
  /** Merges what the images have of a frame. */
  restore(frame: Frame, meta: Uint8Array): void;
  /** The nodes' index was read. */
  onRead(): void;
  /** What is not in place will never be; `why` is what happened to it. */
  onLost(why: string): void;
  onEnd(ending: Ending): void;
}

export class Search {
  /** Records are read from the nodes. */
  followsIndex = false;
  readonly #options: SearchOptions;
  /** Frames that came straight from the source of an earlier destination: what stood before their payloads. */
  readonly #restorable: { frame: Frame; meta: Uint8Array }[] = [];
  #searchedAt = Number.NEGATIVE_INFINITY;
  #stuckSince: number | null = null;
  readonly #tending: NodeJS.Timeout;
  #busy = false;
  #over = false;

  constructor(options: SearchOptions) {
    this.#options = options;
    this.#tending = setInterval(() => void this.#tend(), TEND_MS);
  }

  /** There is something in the images that was not looked at yet. */
  get restoring(): boolean {
    return this.#restorable.length > 0;
  }

  stop(): void {
    this.#over = true;
    clearInterval(this.#tending);
  }

  /** Reads what the nodes keep of records. @throws {AbdmError} */
  async readIndex(): Promise<void> {
    const { holders, known, catalog, restores, onRead } = this.#options;
    await catalog.poll(up(holders), (record, nodes, meta) => {
      const frame = known.record(
        record,
        nodes.map((node) => holders.of(node)),
      );
      if (!meta || !restores || record.state !== 'kept') return;
      this.#restorable.push({ frame, meta: meta.slice() });
      this.#restore();
    });
    if (!this.#over) onRead();
  }

  /** Now and then. */
  async #tend(): Promise<void> {
    if (this.#busy || this.#over) return;
    this.#busy = true;
    const { holders, known, gatherer, total, isWanting, onLost, onEnd } = this.#options;
    try {
      const isComplete = total() !== null && known.size >= total()!;
      if (this.followsIndex && !isComplete) await this.readIndex();
      this.#restore();
      const searches = isWanting() && performance.now() - this.#searchedAt > SEARCH_MS;
      if (searches) await this.#search();
      if (this.#over) return;
      const unreachable = [...holders].filter(({ state }) => state === 'away' || state === 'silent');
      const wanting = isWanting();
      if (searches && wanting && unreachable.length === 0) {
        const [why] = known.orphans.values();
        onLost(why?.message ?? 'no node has their frames');
      } else this.#watch(wanting || gatherer.stuck, unreachable);
    } catch (error) {
      onEnd({ how: 'failed', error: asAbdmError(error) });
    } finally {
      this.#busy = false;
    }
  }

  /** Merges what the images still have of frames that no node has. */
  #restore(): void {
    const { known, restore, hasFreeSlot } = this.#options;
    while (!this.#over && this.#restorable.length > 0 && hasFreeSlot()) {
      const { frame, meta } = this.#restorable.pop()!;
      if (frame.state === 'merged' || !known.isWanted(frame)) continue;
      try {
        restore(frame, meta);
      } catch (cause) {
        const error = asAbdmError(cause);
        if (!SPOILT.has(error.code)) throw error;
        if (frame.state === 'known') known.orphans.set(frame, error);
      }
    }
  }

  /** Asks every node that there is for what nobody is known to have: others may have restored it. */
  async #search(): Promise<void> {
    const { holders, known, gatherer, others, total } = this.#options;
    await this.readIndex();
    for (const node of others()) holders.of(node);
    const most = total() ?? known.size + MAX_UNTOLD;
    const lists = up(holders).map((holder) =>
      holder.list(1, MANIFEST_ID, (ids) => {
        for (const id of ids) {
          const frame = known.get(id);
          const isMissing = frame ? frame.state === 'coming' || known.orphans.has(frame) : known.size < most;
          if (isMissing && !frame?.failures?.has(holder)) known.found(id, holder);
        }
      }),
    );
    await Promise.allSettled(lists);
    this.#searchedAt = performance.now();
    if (!this.#over) gatherer.pump();
  }

  /** Nobody waits for ever for nodes that do not answer; before the source has left it sees to that. */
  #watch(isStuck: boolean, unreachable: readonly Holder[]): void {
    const { stuckMs, isFinal, onEnd } = this.#options;
    if (!isStuck || !isFinal()) {
      this.#stuckSince = null;
      return;
    }
    this.#stuckSince ??= performance.now();
    if (performance.now() - this.#stuckSince < stuckMs) return;
    const who = unreachable.map(({ address, why }) => `${address} (${why?.message ?? 'not reached yet'})`).join(', ');
    const text = `what is missing may be at nodes that do not answer: ${who}; start this again when they can be reached`;
    onEnd({ how: 'stuck', error: new AbdmError('PEER_UNREACHABLE', text) });
  }
}

function up(holders: Holders): Holder[] {
  return [...holders].filter(({ state }) => state === 'up');
}
