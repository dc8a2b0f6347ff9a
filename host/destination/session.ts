// One migration at its destination, from the moment that it is known what comes until the images are whole: nodes reached, frames gathered or let
// in, merged, counted. Knows nothing of who listens and who connects.

import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { type FrameSlot, Merger } from '../../bindings/merger.js';
import { MamNode } from '../mam/node.js';
import type { ChannelHandler } from '../wire/channel.js';
import type { RateLimit } from '../wire/rate.js';
import { RecordReader } from '../wire/records.js';
import type { Announced } from './announcement.js';
import { FrameLane } from './frames.js';
import { Gatherer } from './gather.js';
import { Images, type ImageTarget } from './images.js';

/** Frames that can be in memory at a time. */
const SLOTS = 32;
const RECONNECTS = 5;
const RECONNECT_MS = 500;
/** How long a node may take to forget a migration when it is over. */
const DROP_MS = 2_000;

export class Session {
  readonly merger: Merger;
  /** Bytes of frames received. */
  frameBytes = 0;
  /** Called once: with null when every page is in place, or with what makes that impossible. */
  readonly #onEnd: (error: AbdmError | null) => void;
  readonly #migration: string;
  readonly #announced: Announced;
  readonly #images: Images;
  readonly #limit: RateLimit;
  readonly #gatherer: Gatherer;
  readonly #records: RecordReader;
  /** Where each frame can be fetched, and fetched again. */
  readonly #places = new Map<number, { node: number; bytes: number }>();
  readonly #refetching = new Set<number>();
  /** How many frames there are, once the source has said so. */
  #frames: number | null = null;
  #over = false;

  private constructor(
    migration: string,
    announced: Announced,
    images: Images,
    merger: Merger,
    nodes: readonly MamNode[],
    limit: RateLimit,
    onEnd: (error: AbdmError | null) => void,
  ) {
    this.#migration = migration;
    this.#announced = announced;
    this.#images = images;
    this.merger = merger;
    this.#limit = limit;
    this.#onEnd = onEnd;
    const { vms } = announced;
    this.#records = new RecordReader({ nodes: nodes.length, vms: vms.length, imagePages: (vm) => vms[vm]!.pages });
    this.#gatherer = new Gatherer({
      nodes,
      merger,
      limit,
      onFrame: (slot, bytes) => this.#onFrame(slot, bytes),
      onError: (error) => this.#end(error),
      reconnect: (node) => this.#reconnect(node.address),
    });
  }

  /** Opens the images and reaches the nodes. @throws {AbdmError} and then nothing is left open. */
  static async open(
    migration: string,
    announced: Announced,
    targets: readonly ImageTarget[],
    limit: RateLimit,
    onEnd: (error: AbdmError | null) => void,
  ): Promise<Session> {
    const { key, vms, nodes } = announced;
    const images = await Images.open(vms, targets);
    try {
      const merger = await Merger.create({ key, vms, slots: SLOTS });
      const reached = await Promise.all(nodes.map((node) => MamNode.connect(node, { migration, role: 'destination' })));
      return new Session(migration, announced, images, merger, reached, limit, onEnd);
    } catch (error) {
      await images.discard();
      throw error;
    }
  }

  /** Bytes of the images whose pages are in place. */
  get mergedBytes(): number {
    return this.#announced.vms.reduce((sum, { bytes }, vm) => {
      return sum + Math.min(bytes, this.merger.mergedPages(vm) * PAGE_BYTES);
    }, 0);
  }

  /** Pages that are not in place. */
  get missingPages(): number {
    return this.#announced.vms.reduce((sum, { pages }, vm) => sum + pages - this.merger.mergedPages(vm), 0);
  }

  /** What came from each node. */
  get shares(): { address: string; frames: number; bytes: number }[] {
    return this.#gatherer.shares;
  }

  /** A RECORDS body. @throws {AbdmError} PROTOCOL. */
  onRecords(body: Uint8Array): void {
    this.#records.read(body, ({ frameId, frameBytes, nodes, nodeIndexes }) => {
      if (nodes === 0) throw new AbdmError('PROTOCOL', `RECORDS: frame ${frameId} is at no node`);
      if (this.#places.has(frameId)) throw new AbdmError('PROTOCOL', `RECORDS: frame ${frameId} came before`);
      const place = { node: nodeIndexes[0]!, bytes: frameBytes };
      this.#places.set(frameId, place);
      this.#gatherer.add(place.node, frameId, place.bytes);
    });
    this.#gatherer.pump();
  }

  /** A connection on which the source sends frames itself. */
  lane(): ChannelHandler {
    return new FrameLane(
      this.merger,
      this.#limit,
      (slot, bytes) => this.#onFrame(slot, bytes),
      (error) => {
        if (error && !this.#over) this.#end(error);
      },
    );
  }

  /** The source has divided everything, into so many frames. */
  divided(frames: number): void {
    this.#frames = frames;
    this.#checkComplete();
  }

  /** Makes the images visible under their names. @throws {AbdmError} IMAGE. */
  commit(): Promise<void> {
    return this.#images.commit();
  }

  /** Removes what of the images is there so far. */
  discard(): Promise<void> {
    return this.#images.discard();
  }

  /** Tells the nodes to forget the frames, and leaves them. */
  async forget(): Promise<void> {
    this.#over = true;
    this.#gatherer.stop();
    const { nodes } = this.#gatherer;
    const drops = Promise.allSettled(nodes.map((node) => node.drop()));
    await Promise.race([drops, sleep(DROP_MS, undefined, { ref: false })]);
    for (const node of nodes) node.end();
  }

  #onFrame(slot: FrameSlot, bytes: number): void {
    this.frameBytes += bytes;
    const { id } = this.merger.merge(slot, bytes, this.#images);
    this.#refetching.delete(id);
    for (const wanted of this.merger.wanted) this.#fetchAgain(wanted);
    this.#checkComplete();
  }

  /** A duplicate's content was overwritten in its image since: its frame has it still. */
  #fetchAgain(id: number): void {
    if (this.#refetching.has(id)) return;
    const place = this.#places.get(id);
    if (!place) throw new AbdmError('FRAME_LOST', `frame ${id} is needed again, and no node keeps it`);
    this.#refetching.add(id);
    this.#gatherer.add(place.node, id, place.bytes);
  }

  #checkComplete(): void {
    const { merger } = this;
    if (this.#frames === null || merger.frames < this.#frames || this.#refetching.size > 0) return;
    const missing = this.missingPages;
    this.#end(
      missing === 0 ? null : new AbdmError('FRAME_LOST', `all frames were merged, but ${missing} pages were in none`),
    );
  }

  async #reconnect(address: string): Promise<MamNode> {
    for (let left = RECONNECTS; ; left--) {
      try {
        return await MamNode.connect(address, { migration: this.#migration, role: 'destination' });
      } catch (cause) {
        if (left > 1 && !this.#over) await sleep(RECONNECT_MS);
        else
          throw new AbdmError('FRAME_LOST', `the frames at ${address} cannot be had: ${(cause as Error).message}`, {
            cause,
          });
      }
    }
  }

  #end(error: AbdmError | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#gatherer.stop();
    this.#onEnd(error);
  }
}
