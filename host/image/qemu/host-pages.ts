// What has come of a RAM block with huge pages. QEMU takes a huge page whole, and once: so all that comes is kept, until the host page it belongs to is
// complete, and that is sent only when the guest has its state.

import { PAGE_BYTES } from '../../../bindings/abi.js';

interface HostPage {
  /** null: zeros so far. */
  bytes: Uint8Array | null;
  /** How many pages of it are not there. */
  missing: number;
}

export class HostPages {
  /** 4 KiB pages in one of them. */
  readonly pages: number;
  /** Those that somebody waits for, by number. */
  readonly wanted = new Set<number>();
  readonly #kept = new Map<number, HostPage>();

  constructor(hostPageBytes: number) {
    this.pages = hostPageBytes / PAGE_BYTES;
  }

  /** Those that are complete. */
  get complete(): number[] {
    return [...this.#kept].filter(([, { missing }]) => missing === 0).map(([number]) => number);
  }

  /** A page of the block comes: memory[at, at + 4096), or zeros. @param isNew it was not there. */
  put(page: number, memory: Uint8Array | null, at: number, isNew: boolean): void {
    const number = Math.floor(page / this.pages);
    let kept = this.#kept.get(number);
    if (!kept) {
      kept = { bytes: null, missing: this.pages };
      this.#kept.set(number, kept);
    }
    if (isNew) kept.missing--;
    const to = (page % this.pages) * PAGE_BYTES;
    if (memory) {
      kept.bytes ??= new Uint8Array(this.pages * PAGE_BYTES);
      kept.bytes.set(memory.subarray(at, at + PAGE_BYTES), to);
    } else kept.bytes?.fill(0, to, to + PAGE_BYTES);
  }

  /** A page that was there is not any more. */
  forget(page: number): void {
    const kept = this.#kept.get(Math.floor(page / this.pages));
    if (kept) kept.missing++;
  }

  /** All bytes of a host page, which is kept no more; null: it is zero. Undefined if it is not complete, or was taken. */
  take(number: number): Uint8Array | null | undefined {
    const kept = this.#kept.get(number);
    if (kept?.missing !== 0) return undefined;
    this.#kept.delete(number);
    return kept.bytes;
  }
}
