// Negative controls: whether guests would have said so. A guest has moved, and its new memory is a file; then a bit of it is flipped, a page is made an old
// one, two are swapped, and made good again. Each time the guest must say FAIL, and OK afterwards.
import { closeSync, existsSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestPlan, Machine } from './machine.js';
import { ours } from './ours.js';
import { Scene, type SceneOptions } from './scene.js';

const PAGE = 4096;
/** Pages full of noise, as every fourth is: one that the guest goes on writing to, and two that it does not. */
const WRITTEN = 7;
const [STILL, OTHER] = [1003, 1007];
/** Often enough, and so long, that the guest has written to that page again. */
const SET = { setPages: 32, pagesPerS: 500 };
const RENEWED_MS = 1000;

export interface Control {
  readonly control: 'flipped bit' | 'stale page' | 'swapped pages';
  /** Whether the guest has found it, and nothing when it was undone. */
  readonly isFound: boolean;
}

export async function controls(plan: Omit<GuestPlan, 'attachment'>, options: SceneOptions): Promise<Control[]> {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'abdm-bench-qemu-memory-'));
  const scene = new Scene(options);
  try {
    const vm = await scene.addGuest({ ...plan, ...SET }, false);
    const path = join(directory, 'memory');
    const there = await scene.expect(vm, path);
    await ours(scene, { mode: 'post-copy', replicas: 2 });
    const memory = new Memory(path, there);
    return [
      await memory.control('flipped bit', async () => {
        const bytes = memory.read(await memory.address(STILL));
        const flipped = Buffer.from(bytes);
        flipped[2500]! ^= 1;
        return [[STILL, flipped, bytes]];
      }),
      await memory.control('stale page', async () => {
        const at = await memory.address(WRITTEN);
        const stale = memory.read(at);
        await there.qmp.execute('cont');
        await sleep(RENEWED_MS);
        await there.qmp.execute('stop');
        // The guest makes it good itself when it writes to it next.
        return [[WRITTEN, stale, null]];
      }),
      await memory.control('swapped pages', async () => {
        const [one, other] = [memory.read(await memory.address(STILL)), memory.read(await memory.address(OTHER))];
        return [
          [STILL, other, one],
          [OTHER, one, other],
        ];
      }),
    ];
  } finally {
    await scene.close(false);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A page, what it becomes, and what makes it good again. */
type Change = readonly [page: number, bytes: Buffer, undo: Buffer | null];

class Memory {
  readonly #path: string;
  readonly #machine: Machine;
  readonly #addresses = new Map<number, number>();

  constructor(path: string, machine: Machine) {
    this.#path = path;
    this.#machine = machine;
  }

  /** Where a page lies in the file; the guest must run to be asked for the first time. */
  async address(page: number): Promise<number> {
    const known = this.#addresses.get(page);
    if (known !== undefined) return known;
    const { serial } = this.#machine;
    serial.tell(`p ${page}`);
    const [, at] = await serial.line(new RegExp(`PHYSICAL ${page} (\\d+)`));
    this.#addresses.set(page, Number(at));
    return Number(at);
  }

  read(at: number): Buffer {
    const bytes = Buffer.alloc(PAGE);
    const file = openSync(this.#path, 'r');
    readSync(file, bytes, 0, PAGE, at);
    closeSync(file);
    return bytes;
  }

  /** @param changes called while the guest stands still. */
  async control(control: Control['control'], changes: () => Promise<Change[]>): Promise<Control> {
    const { qmp } = this.#machine;
    for (const page of [STILL, OTHER, WRITTEN]) await this.address(page);
    const before = await this.#verify();
    await qmp.execute('stop');
    const made = await changes();
    for (const [page, bytes] of made) this.#write(await this.address(page), bytes);
    await qmp.execute('cont');
    const meanwhile = await this.#verify();
    await qmp.execute('stop');
    for (const [page, , undo] of made) if (undo) this.#write(await this.address(page), undo);
    await qmp.execute('cont');
    if (made.some(([, , undo]) => !undo)) await sleep(RENEWED_MS);
    const after = await this.#verify();
    return { control, isFound: before && !meanwhile && after };
  }

  /** Whether the guest has found nothing wrong since it was asked. */
  async #verify(): Promise<boolean> {
    const { serial } = this.#machine;
    const asked = serial.lines.length;
    serial.tell('v');
    await serial.line(/ABDM VERIFY/, asked);
    return !serial.lines.slice(asked).some(({ text }) => text.includes('FAIL'));
  }

  #write(at: number, bytes: Buffer): void {
    const file = openSync(this.#path, 'r+');
    writeSync(file, bytes, 0, PAGE, at);
    closeSync(file);
  }
}
