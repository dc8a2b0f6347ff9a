// Where kept frames live: banks, each a WebAssembly memory, so that an engine may be instantiated over a bank and check frames where they
// lie. A bank is virtual: only what was written to is resident. It is never grown (that would detach views that are being written to
// sockets) and never reused: when the migration that it belongs to is dropped, the garbage collector gives it back.
//
// The first touch of a page is the largest cost of taking frames in: 0.37 CPU s/GiB of 0.87. Touching pages ahead of the log's tail was
// measured (2 MiB ahead, and everything ahead): the same CPU to a few percent, for memory that is resident before it is needed. So it is not done.
//
// A bank costs 10 to 20 ms, nearly all of it for a collection that V8 does when it is made. So one is made while nobody waits for it: the first frame of a
// migration finds it.
//
//   bank   | startBytes: for the engine | frame | frame | frame | ...                        | up to bankBytes
//            never touched by us          the log grows this way, lazily resident ->

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { FIXED_BYTES } from '../../bindings/abi.js';
import type { EngineMemory } from '../../bindings/engine.js';
import { AbdmError } from '../../bindings/errors.js';

const WASM_PAGE_BYTES = 65_536;
const MIN_BANK_BYTES = 16 * 2 ** 20;
/** One wasm page short of 4 GiB, so that the address behind the last byte is a u32 too. */
const MAX_BANK_BYTES = 2 ** 32 - WASM_PAGE_BYTES;
/** Each memory takes 8 to 10 GiB of address space for its guards; V8 has limited a process to about 100 of them. */
export const MAX_BANKS = 96;
/** Beyond this, banks of the largest size would not suffice with some to spare for migrations that fill theirs in part. */
export const MAX_MEMORY_BYTES = 32 * MAX_BANK_BYTES;

export interface Bank {
  readonly memory: EngineMemory;
  readonly bytes: Uint8Array;
}

/** The banks of one intermediate, and the count of what is used of the memory that it offers. */
export class BankPool {
  readonly memoryBytes: number;
  readonly bankBytes: number;
  /** Where the log begins in each bank. */
  readonly startBytes: number;
  #usedBytes = 0;
  #banks = 0;
  #spare: Bank | null = null;
  #reclaim: NodeJS.Timeout | undefined;

  /**
   * @param memoryBytes what may be kept in all.
   * @throws {AbdmError} `USAGE` if that is not 1 MiB to 127 GiB.
   */
  constructor(memoryBytes: number, startBytes = FIXED_BYTES) {
    if (!Number.isSafeInteger(memoryBytes) || memoryBytes < 2 ** 20 || memoryBytes > MAX_MEMORY_BYTES) {
      const text = `an intermediate's memory is 1 MiB to ${Math.floor(MAX_MEMORY_BYTES / 2 ** 30)} GiB, not ${memoryBytes} bytes`;
      throw new AbdmError('USAGE', text);
    }
    this.memoryBytes = memoryBytes;
    this.startBytes = startBytes;
    // 16 to 32 banks hold it all; the other 64 are for migrations whose last bank is not full.
    const wanted = 2 ** Math.ceil(Math.log2(memoryBytes / 32));
    this.bankBytes = Math.min(Math.max(wanted, MIN_BANK_BYTES), MAX_BANK_BYTES);
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get freeBytes(): number {
    return this.memoryBytes - this.#usedBytes;
  }

  /** Sets room aside; false if there is not so much. */
  charge(bytes: number): boolean {
    if (bytes > this.freeBytes) return false;
    this.#usedBytes += bytes;
    return true;
  }

  refund(bytes: number): void {
    this.#usedBytes -= bytes;
  }

  /** Nobody waits for a bank now: makes the next one that is taken. */
  prepare(): void {
    this.#spare ??= this.#make();
  }

  /** A fresh bank of zeros, or null if the process can have no more. */
  take(): Bank | null {
    const bank = this.#spare ?? this.#make();
    this.#spare = null;
    return bank;
  }

  #make(): Bank | null {
    if (this.#banks >= MAX_BANKS) return null;
    const pages = this.bankBytes / WASM_PAGE_BYTES;
    try {
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
      this.#banks++;
      return { memory, bytes: new Uint8Array(memory.buffer) };
    } catch {
      return null;
    }
  }

  /** Tells that the last reference to so many banks is gone. They leave memory within a second. */
  release(banks: number): void {
    this.#banks -= banks;
    if (banks === 0 || this.#reclaim !== undefined) return;
    this.#reclaim = setTimeout(() => {
      this.#reclaim = undefined;
      collectGarbage();
      this.prepare();
    }, 100);
    this.#reclaim.unref();
  }
}

// A process that only waits for connections allocates nothing, so V8 would not collect for hours, and gigabytes of dropped frames would
// stay resident. Nothing else frees a wasm memory. On a heap as small as ours a full collection takes 5 to 20 ms.
let collect: (() => void) | undefined;

function collectGarbage(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    const exposed: unknown = runInNewContext('globalThis.gc');
    collect = typeof exposed === 'function' ? () => void exposed() : () => {};
  }
  collect();
}
