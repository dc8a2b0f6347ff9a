// What is known of a migration's frames: which there are, what each of them has to bring, and who has them. From that follows which are wanted:
//
//   it has to bring a page        no later frame is known that has it, and it is not in place (Merger.expect says how many)
//   a page waits for its content  it is a duplicate of what the frame holds
//
// Others are not fetched, and who has them does not matter.

import { AbdmError } from '../../bindings/errors.js';
import type { Merger } from '../../bindings/merger.js';
import type { Holder, Holders } from '../mam/holders.js';
import type { NodeRef } from '../mam/keeper.js';
import { type FrameRecord, RecordReader } from '../wire/records.js';
import { readDiscard } from './discard.js';
import { type Frame, newFrame } from './frame.js';
import type { Gatherer } from './gather.js';

/** Lists of holders that are shared between frames. */
const MAX_LISTS = 65_536;
/** Nodes that a source may name. */
const MAX_NAMED = 256;

export interface KnownOptions {
  merger: Merger;
  gatherer: Gatherer;
  holders: Holders;
  vms: readonly { pages: number }[];
  /** Nothing of this VM is wanted. */
  hasFailed(vm: number): boolean;
  /** Nobody has this frame, which is wanted; `why` is what happened to it. */
  onOrphan(frame: Frame, why: AbdmError): void;
}

export class KnownFrames {
  /** Wanted frames that nobody is known to have, and why. */
  readonly orphans = new Map<Frame, AbdmError>();
  /** Frames that are on their way to somebody who will keep them, or to us. */
  coming = 0;
  /** Frames of which nobody has said what is in them. */
  untold = 0;
  readonly #options: KnownOptions;
  readonly #frames = new Map<number, Frame>();
  /** Lists of holders, by their ids. */
  readonly #lists = new Map<string, readonly Holder[]>();
  /** What the source calls a node: its place in this list. */
  #named: Holder[] = [];
  /** Frames that have nothing to bring any more, as the merger has just said. */
  #superseded: Frame[] = [];

  constructor(options: KnownOptions) {
    this.#options = options;
  }

  /** Frames that are known, of whatever kind. */
  get size(): number {
    return this.#frames.size;
  }

  get(id: number): Frame | undefined {
    return this.#frames.get(id);
  }

  /** The source's list of nodes, to which its records refer; `anew`: instead of the one before. @throws {AbdmError} PROTOCOL. */
  name(nodes: readonly NodeRef[], anew: boolean): void {
    if (anew) this.#named = [];
    for (const node of nodes) this.#named.push(this.#options.holders.of(node));
    if (this.#named.length > MAX_NAMED) {
      throw new AbdmError('PROTOCOL', `the source has named more than ${MAX_NAMED} nodes`);
    }
  }

  /** A RECORDS body. @throws {AbdmError} PROTOCOL. */
  onRecords(body: Uint8Array): void {
    const { vms } = this.#options;
    const limits = { nodes: this.#named.length, vms: vms.length, imagePages: (vm: number) => vms[vm]!.pages };
    new RecordReader(limits).read(body, (record) => {
      const { nodes, nodeIndexes } = record;
      this.record(
        record,
        Array.from(nodeIndexes.subarray(0, nodes), (index) => this.#named[index]!),
      );
    });
  }

  /** A DISCARD body. @throws {AbdmError} PROTOCOL. */
  onDiscard(body: Uint8Array): void {
    const { merger, vms } = this.#options;
    const { vm, first, pages, bitmap, floor } = readDiscard(body, vms);
    merger.discard(vm, first, pages, bitmap, floor, this.onSuperseded);
    this.sweep();
  }

  /** What a record says. */
  record({ state, frameId, frameBytes, vm, pfns, pages }: FrameRecord, holders: readonly Holder[]): Frame {
    const { merger, hasFailed } = this.#options;
    const frame = this.#frame(frameId);
    frame.bytes = frameBytes;
    this.#told(frame, vm);
    if (state === 'void') {
      this.#void(frame);
      return frame;
    }
    frame.first = pfns[0]!;
    const live = merger.expect(frameId, vm, pfns, pages, this.onSuperseded);
    frame.live = hasFailed(vm) ? 0 : live;
    this.sweep();
    if (state === 'kept') this.#kept(frame, holders);
    return frame;
  }

  /** A node has this frame; nobody has said what is in it. */
  found(id: number, holder: Holder): void {
    this.#kept(this.#frame(id), [holder]);
  }

  /** A frame of this VM came straight from the source. */
  arrived(id: number, bytes: number, vm: number): Frame {
    const frame = this.#frame(id);
    frame.bytes = bytes;
    this.#told(frame, vm);
    return frame;
  }

  /** A frame was merged, of `vm`. */
  merged(frame: Frame, vm: number): void {
    this.#told(frame, vm);
    this.#came(frame);
    this.orphans.delete(frame);
    this.#options.gatherer.withdraw(frame, 'merged');
  }

  /** Pages wait for what frame `id` holds: it is fetched, once more if it was here before. */
  need(id: number): void {
    const frame = this.#frames.get(id);
    if (frame?.state === 'known') this.#want(frame);
    else if (frame?.state === 'merged') {
      // A frame that came straight, and is kept by nobody: the source still has its pages, if anybody has.
      if (frame.holders.length > 0) this.#options.gatherer.offer(frame);
      else this.orphans.set(frame, new AbdmError('FRAME_LOST', `frame ${id} is needed again, and no node keeps it`));
    }
  }

  /** It was here, is needed again, and cannot be had again. */
  isUnkept(id: number): boolean {
    const frame = this.#frames.get(id);
    return frame?.state === 'merged' && frame.holders.length === 0;
  }

  isWanted({ id, live }: Frame): boolean {
    return live > 0 || this.#options.merger.isAwaited(id);
  }

  /** Nobody has this frame; `why` is what the last one did. */
  orphan(frame: Frame, why: AbdmError): void {
    this.orphans.set(frame, why);
    this.#options.onOrphan(frame, why);
  }

  /** Nothing of this VM is wanted any more, except by others. */
  failVm(vm: number): void {
    for (const frame of this.#frames.values()) {
      if (frame.vm !== vm) continue;
      frame.live = 0;
      this.#unwant(frame);
    }
  }

  /** For the merger; `sweep` afterwards. */
  readonly onSuperseded = (id: number): void => {
    const frame = this.#frames.get(id);
    if (frame && frame.live > 0 && --frame.live === 0) this.#superseded.push(frame);
  };

  /** What has nothing to bring any more is not fetched. */
  sweep(): void {
    if (this.#superseded.length === 0) return;
    for (const frame of this.#superseded) this.#unwant(frame);
    this.#superseded = [];
  }

  #frame(id: number): Frame {
    let frame = this.#frames.get(id);
    if (!frame) {
      frame = newFrame(id);
      this.#frames.set(id, frame);
      this.coming++;
      this.untold++;
    }
    return frame;
  }

  #told(frame: Frame, vm: number): void {
    if (frame.vm < 0) this.untold--;
    frame.vm = vm;
  }

  /** It is not on its way any more. */
  #came(frame: Frame): void {
    if (frame.state !== 'coming') return;
    frame.state = 'known';
    this.coming--;
  }

  #kept(frame: Frame, holders: readonly Holder[]): void {
    this.#came(frame);
    const more = holders.filter((holder) => !frame.holders.includes(holder) && holder.state !== 'gone');
    // The latest word comes first. Lists are shared where they are the same as before.
    if (more.length > 0) frame.holders = this.#shared([...more, ...frame.holders]);
    if (frame.state === 'queued' || frame.state === 'asked') this.#options.gatherer.addHolders(frame, more);
    else if (frame.state === 'known') this.#want(frame);
    else if (more.length > 0 && this.#options.merger.isAwaited(frame.id)) this.need(frame.id);
  }

  #want(frame: Frame): void {
    if (!this.isWanted(frame)) return;
    if (frame.holders.length === 0) {
      return this.orphan(frame, new AbdmError('PEER_GONE', `no node has frame ${frame.id}`));
    }
    this.orphans.delete(frame);
    this.#options.gatherer.offer(frame);
  }

  #unwant(frame: Frame): void {
    if (this.#options.merger.isAwaited(frame.id)) return;
    this.orphans.delete(frame);
    if (frame.state === 'queued') this.#options.gatherer.withdraw(frame, 'known');
  }

  #void(frame: Frame): void {
    this.#came(frame);
    this.orphans.delete(frame);
    if (frame.state === 'merged') return;
    frame.holders = [];
    this.#options.gatherer.withdraw(frame, 'void');
  }

  #shared(holders: readonly Holder[]): readonly Holder[] {
    const name = holders.map(({ id }) => id).join();
    const known = this.#lists.get(name);
    if (known) return known;
    if (this.#lists.size < MAX_LISTS) this.#lists.set(name, holders);
    return holders;
  }
}
