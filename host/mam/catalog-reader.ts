// Reads what the nodes keep beside the frames: lists every node's index blocks, fetches each of them once, from any node that has it, and believes
// only what opens with the migration's key. It may be asked again while the source is still at it. And the execution states that they keep.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { MAX_FRAME_BYTES } from '../wire/messages.js';
import type { FrameRecord } from '../wire/records.js';
import {
  decodeManifest,
  decodeState,
  MANIFEST_ID,
  type Manifest,
  manifestParts,
  RECORDS_ID,
  readRecords,
  STATE_ID,
  stateIds,
  stateParts,
} from './catalog.js';
import type { NodeRef } from './keeper.js';
import { Opener } from './seal.js';

/** Who may have index blocks. */
export interface IndexKeeper {
  readonly address: string;
  /** @throws {AbdmError} */
  get(id: number, into: Uint8Array): Promise<number>;
  /** Calls `each` with all ids of blocks that it has, from `from` on and below `to`. @throws {AbdmError} */
  list(from: number, to: number, each: (ids: readonly number[]) => void): Promise<void>;
}

/**
 * A frame's record, kept or void; its holders, and what stands before its payload if it went straight to the destination. Of two records of a frame the
 * later one counts; but when a block could not be had at first, an earlier one may come after it, and void it stays.
 */
export type OnRecord = (record: FrameRecord, holders: readonly NodeRef[], meta: Uint8Array | null) => void;

/** More index blocks than this belong to no migration: 256 frames each, of an image of 64 TiB. */
const MAX_BLOCKS = 2 ** 20;

/** Sealed blocks that several nodes keep. */
class Blocks {
  readonly #opener: Opener;
  readonly #into = new Uint8Array(MAX_FRAME_BYTES);

  constructor(opener: Opener) {
    this.#opener = opener;
  }

  /** Which blocks there are, and who has them, of those from `from` on and below `to` that are `wanted`. Who does not answer has nothing, this time. */
  async list(
    keepers: readonly IndexKeeper[],
    from: number,
    to: number,
    isWanted: (id: number) => boolean = () => true,
  ): Promise<Map<number, IndexKeeper[]>> {
    const where = new Map<number, IndexKeeper[]>();
    const lists = keepers.map((keeper) =>
      keeper.list(from, to, (ids) => {
        for (const id of ids) {
          if (!isWanted(id)) continue;
          if (where.size >= MAX_BLOCKS)
            throw new AbdmError('PROTOCOL', `${keeper.address} lists too many index blocks`);
          where.set(id, [...(where.get(id) ?? []), keeper]);
        }
      }),
    );
    await Promise.allSettled(lists);
    return where;
  }

  /** A block's body, until the next call. @throws {AbdmError} why the last of these did not give it. */
  async fetch(id: number, keepers: readonly IndexKeeper[]): Promise<Uint8Array> {
    let why = new AbdmError('FRAME_LOST', `no node has block ${id}`);
    for (const keeper of keepers) {
      try {
        const bytes = await keeper.get(id, this.#into);
        return this.#into.subarray(0, this.#opener.open(id, this.#into.subarray(0, bytes)));
      } catch (cause) {
        why = asAbdmError(cause);
      }
    }
    throw why;
  }
}

/**
 * The execution state of a VM, as the nodes have it; null if none of those that answer has any of it.
 * @param key the migration's secret.
 * @throws {AbdmError} why a part of it cannot be had; PROTOCOL if what opens makes no sense.
 */
export async function readState(
  key: Uint8Array,
  keepers: readonly IndexKeeper[],
  vm: number,
): Promise<Uint8Array | null> {
  const blocks = new Blocks(await Opener.create(key));
  const [first, end] = stateIds(vm);
  const where = await blocks.list(keepers, first, end);
  if (where.size === 0) return null;
  const bodies: Uint8Array[] = [];
  for (let parts = 1; bodies.length < parts; parts = stateParts(bodies[0]!)) {
    const id = first + bodies.length;
    const body = await blocks.fetch(id, where.get(id) ?? []);
    bodies.push(body.slice());
  }
  return decodeState(bodies);
}

export class CatalogReader {
  /** What left; null: not all of it was found yet. */
  manifest: Manifest | null = null;
  /** Blocks that a node has listed and nobody could give, and why: at the last `poll`. */
  missing: { id: number; why: AbdmError }[] = [];
  readonly #blocks: Blocks;
  readonly #parts: Uint8Array[] = [];
  /** Blocks of records that were read. */
  readonly #read = new Set<number>();

  private constructor(blocks: Blocks) {
    this.#blocks = blocks;
  }

  /** @param key the migration's secret. */
  static async create(key: Uint8Array): Promise<CatalogReader> {
    return new CatalogReader(new Blocks(await Opener.create(key)));
  }

  /**
   * Fetches what has come since the last time; `onRecord` gets each record. Records are read only when the manifest is there; null: they are not.
   * @throws {AbdmError} PROTOCOL if what opens makes no sense.
   */
  async poll(keepers: readonly IndexKeeper[], onRecord: OnRecord | null): Promise<void> {
    const isNew = (id: number) => !this.#read.has(id) && !this.#parts[id - MANIFEST_ID];
    const where = await this.#blocks.list(keepers, this.manifest ? RECORDS_ID : MANIFEST_ID, STATE_ID, isNew);
    this.missing = [];
    for (const [id, holders] of [...where].sort(([a], [b]) => a - b)) {
      if (id >= RECORDS_ID && !(this.manifest && onRecord)) break;
      try {
        const body = await this.#blocks.fetch(id, holders);
        if (id < RECORDS_ID) this.#onPart(id - MANIFEST_ID, body);
        else {
          readRecords(body, this.manifest!.vms, onRecord!);
          this.#read.add(id);
        }
      } catch (cause) {
        const why = asAbdmError(cause);
        if (why.code === 'PROTOCOL') throw why;
        this.missing.push({ id, why });
      }
    }
  }

  #onPart(i: number, body: Uint8Array): void {
    this.#parts[i] = body.slice();
    const parts = manifestParts(body);
    if (i >= parts) throw new AbdmError('PROTOCOL', `manifest: part ${i} of ${parts}`);
    const all = Array.from({ length: parts }, (_, part) => this.#parts[part]);
    if (all.every((part) => part !== undefined)) this.manifest = decodeManifest(all);
  }
}
