// The images that a migration is merged into: opened when the source has said how large they are, visible under their names only when whole.

import { AbdmError } from '../../bindings/errors.js';
import type { PageSink } from '../../bindings/merger.js';
import type { LeftOver } from '../image/filesink.js';
import type { ImageSink } from '../image/image.js';

/** An image that the operator named, and how to begin it. */
export interface ImageTarget {
  readonly name: string;
  /** Where a destination notes what it needs to go on after it died; no file: it cannot. */
  readonly statePath?: string;
  /** Begins the image, once its size is known. */
  open(bytes: number, left?: LeftOver): ImageSink | Promise<ImageSink>;
}

export class Images implements PageSink {
  readonly #sinks: ImageSink[] = [];
  readonly #left: LeftOver | undefined;

  private constructor(left: LeftOver | undefined) {
    this.#left = left;
  }

  /** Opens the targets for the images that were announced, matched by name. @throws {AbdmError} USAGE if they are not the same, IMAGE. */
  static async open(
    announced: readonly { name: string; bytes: number }[],
    targets: readonly ImageTarget[],
    left?: LeftOver,
  ): Promise<Images> {
    const byName = new Map(targets.map((target) => [target.name, target]));
    const names = (list: readonly { name: string }[]) => list.map(({ name }) => name).join(', ');
    if (announced.length !== targets.length || announced.some(({ name }) => !byName.has(name))) {
      const text = `the source sends ${names(announced)}, but the destination expects ${names(targets)}`;
      throw new AbdmError('USAGE', `${text}: both must name the same images`);
    }
    const images = new Images(left);
    try {
      for (const { name, bytes } of announced) images.#sinks.push(await byName.get(name)!.open(bytes, left));
    } catch (error) {
      await images.giveUp();
      throw error;
    }
    return images;
  }

  write(vm: number, pfn: number, memory: Uint8Array, offset: number, bytes: number): void {
    this.#sinks[vm]!.write(pfn, memory, offset, bytes);
  }

  zero(vm: number, pfn: number, pages: number): void {
    this.#sinks[vm]!.zero(pfn, pages);
  }

  // No guest runs on these images before they are whole: what was merged into them is still there.
  read(vm: number, pfn: number, memory: Uint8Array, offset: number): boolean {
    this.#sinks[vm]!.read(pfn, memory, offset);
    return true;
  }

  /** Makes all of them visible. @throws {AbdmError} IMAGE. */
  async commit(): Promise<void> {
    for (const sink of this.#sinks) await sink.commit();
  }

  /** Lets go of them as they are, where that is possible. */
  async leave(): Promise<void> {
    for (const sink of this.#sinks) await (sink.leave?.() ?? sink.discard());
  }

  /** Lets go of them when nothing was merged yet: what an earlier destination has left, and nobody else has, stays. */
  giveUp(): Promise<void> {
    return this.#left === 'keep' ? this.leave() : this.discard();
  }

  /** Removes what is there so far. */
  async discard(): Promise<void> {
    for (const sink of this.#sinks) await sink.discard();
  }
}
