// QEMUs whose guests leave: each has a second monitor, for whoever takes the guest.
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { PageListener, SendingGuest } from '#abdm/host/image/image.js';
import { openSource, parseImage } from '#abdm/host/image/parse.js';
import { type Qemu, startQemu } from '../../qemu/qemu.js';
import { tempDir } from '../../temp.js';

export interface Leaving extends Qemu {
  /** Of the second monitor. */
  readonly path: string;
}

export async function startLeaving(args: string[] = [], machine?: string[], program?: string): Promise<Leaving> {
  const path = join(tempDir(), 'qmp');
  const all = [...args, '-qmp', `unix:${path},server=on,wait=off`];
  return { ...(await startQemu(all, machine, undefined, program)), path };
}

export async function openLeaving({ path }: { path: string }): Promise<SendingGuest> {
  const guest = (await openSource(parseImage(`vm=qemu:${path}`))) as SendingGuest;
  onTestFinished(() => guest.close());
  return guest;
}

/** What a guest says, checked: nothing comes twice after `stop`. */
export class Listener implements PageListener {
  readonly has: Set<number> = new Set();
  readonly rounds: number[] = [];
  readonly gone: Error[] = [];
  awaited = 0;
  again = 0;
  /** Whether a page may come again. */
  isStill = false;
  #wake: () => void = () => {};

  onPage(pfn: number): void {
    if (this.has.has(pfn)) {
      if (this.isStill) throw new Error(`page ${pfn} comes twice`);
      this.again++;
    }
    this.has.add(pfn);
    this.#wake();
  }
  onAwaited(pfn: number, pages: number): void {
    for (let page = pfn; page < pfn + pages; page++) this.has.delete(page);
    this.awaited += pages;
  }
  onRound(dirtyPages: number): void {
    this.rounds.push(dirtyPages);
    this.#wake();
  }
  onGone(error: Error): void {
    this.gone.push(error);
    this.#wake();
  }

  async until(what: () => boolean): Promise<void> {
    while (!what()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** All of it, in the order of its regions. */
export function memoryOf(guest: SendingGuest): Buffer {
  const bytes = Buffer.alloc(guest.bytes, 0xee);
  guest.read(0, guest.pages, bytes, 0);
  return bytes;
}
