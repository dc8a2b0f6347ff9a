// How far a migration has come: which frames there are in all, whether anything can come that is not known yet, and which VMs are whole.
//
// A guest may have been run by a destination before us. What that knew of which frame has the last version of a page is gone with it: until it is known again
// nothing is merged at all, for what is merged into such a guest stays.

import type { Merger } from '../../bindings/merger.js';
import type { KnownFrames } from './known.js';

export interface ProgressOptions {
  merger: Merger;
  known: KnownFrames;
  vms: readonly { pages: number }[];
  hasFailed(vm: number): boolean;
}

export class Progress {
  /** How many frames there are, once that is known. */
  total: number | null = null;
  /** The source will never say how many there are. */
  forsaken = false;
  /** VMs whose guest runs here. */
  readonly started = new Set<number>();
  readonly #options: ProgressOptions;
  /** Of those that run, the ones of which it is not known in which frames their last versions come. */
  readonly #unsure = new Set<number>();
  readonly #whenTold: (() => void)[] = [];
  /** VMs whose pages are all in place. */
  readonly #whole = new Set<number>();
  /** By VM: a page that was not in place when it was last looked at. */
  readonly #unmerged: number[];

  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#unmerged = options.vms.map(() => 0);
  }

  /** The guest of this VM had been run by a destination before us. */
  goOn(vm: number): void {
    this.started.add(vm);
    this.#unsure.add(vm);
  }

  /** It is known in which frames the last versions of this VM's pages come, or does not matter. True if it was not before. */
  sure(vm: number): boolean {
    return this.#unsure.delete(vm);
  }

  /** Resolves when it is known what is in every frame that there is, or nothing more will be known. */
  allTold(): Promise<void> {
    if (this.isTold) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenTold.push(resolve);
    });
  }

  /** Nothing more will be known. */
  stop(): void {
    for (const resolve of this.#whenTold.splice(0)) resolve();
  }

  /** Something is known or in place that was not. Returns the VMs that are whole now, and were not. */
  look(): number[] {
    if (this.isTold) {
      this.#unsure.clear();
      this.stop();
    }
    const whole = [...this.#options.vms.keys()].filter((vm) => !this.isDone(vm) && this.#isWhole(vm));
    for (const vm of whole) {
      this.#whole.add(vm);
      this.#unsure.delete(vm);
    }
    return whole;
  }

  /** Nothing is merged yet. */
  get isHeld(): boolean {
    return this.#unsure.size > 0;
  }

  /** A guest runs here, and does not have all of its pages. */
  get isAwaited(): boolean {
    return [...this.started].some((vm) => !this.isDone(vm));
  }

  /** It is whole, or never will be, and nothing of it is wanted. */
  isDone(vm: number): boolean {
    return this.#whole.has(vm) || this.#options.hasFailed(vm);
  }

  /** All is here that there is. */
  get isWhole(): boolean {
    return this.allKnown && this.#options.vms.every((_, vm) => this.isDone(vm));
  }

  /** It is known how many frames there are, or that it never will be. */
  get isFinal(): boolean {
    return this.total !== null || this.forsaken;
  }

  /** Which frames there are, and what is in them: of one that was only found at a node, any page might be the last version. */
  get allKnown(): boolean {
    return this.total === null ? this.forsaken : this.isTold;
  }

  /** It is known what is in every frame that there is. */
  get isTold(): boolean {
    const { known } = this.#options;
    return this.total !== null && known.size >= this.total && known.untold === 0;
  }

  /** What a guest runs on stays; what one does not run on may be superseded as long as not all frames are known. */
  #isWhole(vm: number): boolean {
    return (this.started.has(vm) || this.allKnown) && this.#isComplete(vm);
  }

  /** Every page is in place. */
  #isComplete(vm: number): boolean {
    const { merger, vms } = this.#options;
    const at = this.#unmerged[vm]!;
    if (at < vms[vm]!.pages && !merger.isMerged(vm, at)) return false;
    let next = merger.nextUnmerged(vm, at);
    // What was in place before it may not be any more.
    if (next < 0 && at > 0) next = merger.nextUnmerged(vm);
    this.#unmerged[vm] = Math.max(0, next);
    return next < 0;
  }
}
