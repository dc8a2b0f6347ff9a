// The operations of a guest. Each stream touches a page, thinks for a fixed time, touches the next one; where a page is not there yet it waits for it, and
// the other streams go on. All of it happens in short pieces between which the guest hears what it is told.

import { type Content, PageBuffer, STAMP_BYTES } from './content.js';
import type { GuestMemory } from './memory.js';
import { type Draw, drawOf, placeOf } from './pattern.js';
import { Random } from './random.js';
import type { ExecutionState, StreamState } from './state.js';
import type { Workload } from './workload.js';

/** Timers come late by a few milliseconds, which is made up for. More than this is time that the guest did not have. */
const MAX_LATE_MS = 20;
/** Operations in one go: about two milliseconds. */
const TICK_OPERATIONS = 512;
const MAX_VERSION = 2 ** 32 - 1;

interface Stream {
  readonly random: Random;
  /** What `random` becomes with the operation that is being tried: one that has to wait has not begun, and is drawn again. */
  readonly ahead: Random;
  readonly draw: Draw;
  position: number;
  /** When the next operation begins. */
  dueMs: number;
  waits: { readonly pfn: number; readonly sinceMs: number } | null;
}

/** What operations come upon. */
export interface VcpuEvents {
  /** A page that is not there: somebody waits for it. */
  fault(pfn: number): void;
  /** How long somebody has waited. */
  waited(ms: number): void;
  /** A page that is not what it must be. */
  wrong(pfn: number, what: string): void;
  /** The memory cannot be used any more. */
  failed(error: unknown): void;
}

/** The streams of a guest that begins. */
export function firstStreams({ seed, vcpus }: Workload): StreamState[] {
  return Array.from({ length: vcpus }, (_, stream) => ({
    words: [...Random.seeded(seed, stream).words],
    position: 0,
  }));
}

export class Vcpus {
  operation: number;
  readonly versions: Uint32Array;
  readonly #workload: Workload;
  readonly #streams: Stream[];
  readonly #place: (index: number) => number;
  readonly #thinkMs: number;
  readonly #content: Content;
  readonly #memory: GuestMemory;
  readonly #on: VcpuEvents;
  readonly #found = new PageBuffer();
  readonly #expected = new PageBuffer();
  #isRunning = false;
  #cancelTick = () => {};

  constructor(state: ExecutionState, content: Content, memory: GuestMemory, on: VcpuEvents) {
    const { workload, operation, streams, versions } = state;
    const draw = drawOf(workload);
    this.operation = operation;
    this.versions = versions;
    this.#workload = workload;
    this.#streams = streams.map(({ words, position }, i) => ({
      random: new Random(Uint32Array.from(words)),
      ahead: new Random(new Uint32Array(4)),
      draw: draw(i),
      position,
      dueMs: 0,
      waits: null,
    }));
    this.#place = placeOf(workload);
    this.#thinkMs = (1000 * workload.vcpus) / workload.operationsPerS;
    this.#content = content;
    this.#memory = memory;
    this.#on = on;
  }

  /** What a guest needs to go on elsewhere. It stands still. */
  state(): ExecutionState {
    const streams = this.#streams.map(({ random, position }) => ({ words: [...random.words], position }));
    return { workload: this.#workload, operation: this.operation, streams, versions: this.versions };
  }

  run(): void {
    this.#isRunning = true;
    const now = performance.now();
    // Not all at the same time.
    for (const [i, stream] of this.#streams.entries()) {
      stream.dueMs = now + (this.#thinkMs * (i + 1)) / this.#streams.length;
    }
    this.wake();
    if (this.#workload.operationsPerS > 0) this.#tick();
  }

  halt(): void {
    this.#isRunning = false;
    this.#cancelTick();
  }

  /** The pages that are waited for. */
  waiting(): number[] {
    return [...new Set(this.#streams.flatMap(({ waits }) => waits?.pfn ?? []))];
  }

  /** Looks whether pages that are waited for have come; those streams go on at once. */
  wake(): void {
    if (!this.#isRunning) return;
    let woken = false;
    for (const stream of this.#streams) {
      if (!this.#isRunning || !stream.waits || !this.#memory.has(stream.waits.pfn)) continue;
      const { sinceMs } = stream.waits;
      stream.waits = null;
      this.#operate(stream);
      const now = performance.now();
      this.#on.waited(now - sinceMs);
      stream.dueMs = now + this.#thinkMs;
      woken = true;
    }
    if (woken) this.#schedule();
  }

  #tick(): void {
    const now = performance.now();
    for (const stream of this.#streams) {
      stream.dueMs = Math.max(stream.dueMs, now - MAX_LATE_MS);
      let left = TICK_OPERATIONS / this.#streams.length;
      while (this.#isRunning && stream.dueMs <= now && left > 0 && this.#operate(stream)) {
        stream.dueMs += this.#thinkMs;
        left--;
      }
    }
    this.#schedule();
  }

  #schedule(): void {
    this.#cancelTick();
    if (!this.#isRunning) return;
    let due = Number.POSITIVE_INFINITY;
    for (const { waits, dueMs } of this.#streams) if (!waits && dueMs < due) due = dueMs;
    if (due === Number.POSITIVE_INFINITY) return;
    const ms = due - performance.now();
    if (ms > 0) {
      const timer = setTimeout(() => this.#tick(), ms);
      this.#cancelTick = () => clearTimeout(timer);
    } else {
      const immediate = setImmediate(() => this.#tick());
      this.#cancelTick = () => clearImmediate(immediate);
    }
  }

  /** One operation. False if it could not be done. */
  #operate(stream: Stream): boolean {
    if (stream.waits) return false;
    try {
      return this.#touch(stream);
    } catch (error) {
      this.#on.failed(error);
      return false;
    }
  }

  #touch(stream: Stream): boolean {
    const { random, ahead } = stream;
    ahead.words.set(random.words);
    const pfn = this.#place(stream.draw(ahead, stream.position));
    const isWrite = ahead.share() < this.#workload.writeShare;
    if (!this.#memory.has(pfn)) {
      stream.waits = { pfn, sinceMs: performance.now() };
      this.#on.fault(pfn);
      return false;
    }
    const wrong = this.check(pfn);
    if (wrong !== null) {
      this.#on.wrong(pfn, wrong);
      return false;
    }
    if (isWrite) {
      // A version that has no next one is followed by the first.
      const version = (this.versions[pfn]! % MAX_VERSION) + 1;
      this.#content.stamp(pfn, version, this.#found);
      this.#memory.write(pfn, this.#found, STAMP_BYTES);
      this.versions[pfn] = version;
    }
    random.words.set(ahead.words);
    stream.position++;
    this.operation++;
    return true;
  }

  /** Reads a page, and says what is wrong with it. */
  check(pfn: number): string | null {
    const version = this.versions[pfn]!;
    this.#memory.read(pfn, this.#found);
    this.#content.fill(pfn, version, this.#expected);
    return this.#found.bytes.equals(this.#expected.bytes) ? null : this.#content.explain(pfn, version, this.#found);
  }
}
