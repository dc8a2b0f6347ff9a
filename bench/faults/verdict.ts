// Whether a run ended as promised: everything that it left is held against the image, the exit codes and the summaries. Each function adds what is
// broken, in words; a run without any is as promised.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from 'abdm';
import type { Security } from '#abdm/host/wire/security.js';
import { keptBytes } from './probe.js';
import type { Role } from './role.js';
import type { Scene } from './scene.js';
import type { Node } from './stage.js';

export class Verdict {
  readonly broken: string[] = [];

  expect(holds: boolean, otherwise: string): void {
    if (!holds) this.broken.push(otherwise);
  }

  /** A role ended with this exit code, and says this of it. */
  outcome(role: Role, code: number, outcome: 'completed' | 'aborted' | 'paused-recoverable'): void {
    const { summary } = role;
    const reason = summary?.reason ? ` (${summary.reason.code}: ${summary.reason.message})` : '';
    this.expect(role.code === code, `${role.name}: exit code ${role.code}, not ${code}${reason}`);
    this.expect(
      summary?.outcome === outcome,
      `${role.name}: ${summary?.outcome ?? 'no summary'}, not ${outcome}${reason}`,
    );
  }

  /** The image arrived, bit by bit, and nothing lies beside it. */
  arrived({ image, out, processOut }: Scene): void {
    this.expect(
      existsSync(out) && readFileSync(image).equals(readFileSync(out)),
      'the image that arrived is not the one that left',
    );
    this.#onlyImages([image, out, processOut]);
  }

  /** Nothing was made of it. */
  nothingArrived({ image }: Scene): void {
    this.#onlyImages([image]);
  }

  /** Completed at both ends. */
  completed(scene: Scene): void {
    this.outcome(scene.source, 0, 'completed');
    this.outcome(scene.destination, 0, 'completed');
    this.arrived(scene);
  }

  /** Aborted at both ends before the exit: the source still owns the VM, and there is nothing at the destination. */
  aborted(scene: Scene): void {
    this.outcome(scene.source, 2, 'aborted');
    this.outcome(scene.destination, 2, 'aborted');
    this.nothingArrived(scene);
  }

  /** After the exit something could not be had: the destination waits for it, or names what is lost. A page that it does not name is right. */
  named(scene: Scene): void {
    const { destination } = scene;
    this.outcome(scene.source, 0, 'completed');
    if (destination.code === 3) return this.outcome(destination, 3, 'paused-recoverable');
    this.outcome(destination, 4, 'aborted');
    const { summary } = destination;
    this.expect(summary?.reason?.code === 'FRAME_LOST', `reason ${summary?.reason?.code}, not FRAME_LOST`);
    const ranges = summary?.lost?.find(({ vm }) => vm === 'a')?.ranges ?? [];
    this.expect(ranges.length > 0, 'no lost pages are named');
    const pages = readFileSync(scene.image).length / PAGE_BYTES;
    const sound = ranges.every(([first, last]) => first >= 0 && first <= last && last < pages);
    this.expect(sound, `lost ranges ${JSON.stringify(ranges)} of ${pages} pages`);
    this.#rightBeside(scene, ranges);
  }

  /** No node keeps anything, `withinMs` from now at the latest. */
  async empty(nodes: readonly Node[], withinMs: number, security?: Security): Promise<void> {
    const deadline = performance.now() + withinMs;
    await Promise.all(
      nodes.map(async ({ ownAddress, role }) => {
        for (;;) {
          const kept = await keptBytes(ownAddress, security).catch((error: Error) => error.message);
          if (kept === 0) return;
          if (performance.now() > deadline)
            return this.broken.push(`${role.name} keeps ${kept} bytes after ${withinMs} ms`);
          await sleep(50);
        }
      }),
    );
  }

  /** Nobody stood still for longer, save before there was anything to do. */
  noStall(scene: Scene, mostMs: number): void {
    for (const role of [scene.source, scene.destination]) {
      const stall = longestStallMs(role);
      this.expect(stall <= mostMs, `${role.name} stood still for ${Math.round(stall)} ms`);
    }
  }

  #onlyImages(expected: readonly string[]): void {
    const directory = dirname(expected[0]!);
    const others = readdirSync(directory).filter((name) => !expected.includes(join(directory, name)));
    this.expect(others.length === 0, `left behind: ${others.join(', ')}`);
  }

  #rightBeside({ image, out }: Scene, lost: readonly (readonly [number, number])[]): void {
    const path = [out, `${out}.partial`].find(existsSync);
    if (!path) return;
    const [left, arrived] = [readFileSync(image), readFileSync(path)];
    for (const [first, last] of lost)
      for (const bytes of [left, arrived]) bytes.fill(0, first * PAGE_BYTES, (last + 1) * PAGE_BYTES);
    this.expect(left.equals(arrived), 'a page that is not named as lost is wrong');
  }
}

/**
 * The longest time in which a role's work did not grow, from its first page to its end. A destination that has merged everything waits for the
 * source's word that this was all: that is no work of its own.
 */
export function longestStallMs(role: Role): number {
  let longest = 0;
  let since: number | null = null;
  let before = -1;
  for (const { type, heardMs, phase, doneBytes, totalBytes, wireBytes } of role.events) {
    if (type === 'summary' && since !== null) longest = Math.max(longest, heardMs - since);
    if (type !== 'progress' || (phase !== 'dividing' && phase !== 'gathering')) continue;
    if (phase === 'gathering' && doneBytes === totalBytes) return longest;
    const work = (doneBytes as number) + (wireBytes as number);
    if (since !== null) longest = Math.max(longest, heardMs - since);
    if (work !== before && work > 0) since = heardMs;
    before = work;
  }
  return longest;
}
