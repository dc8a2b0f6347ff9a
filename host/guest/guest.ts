// The guest itself: what it may do when.
//
//   begun here              stop            release
//   ----------> running <-----------> stopped ------> left
//                  ^       resume
//                  | run
//   waiting ---> loaded
//      ^   load     |
//      +------------+  reset
//
// Only one who is told so by whoever migrates it runs: a guest that waits never begins by itself, and one that has left never goes on.

import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { Content } from './content.js';
import { Faults, type GuestEvent, type GuestSummary, nowMs, type Ran } from './events.js';
import { GuestMemory } from './memory.js';
import type { GuestState } from './protocol.js';
import { decodeState, type ExecutionState, encodeState } from './state.js';
import { firstStreams, Vcpus } from './vcpus.js';
import { MAX_MEMORY_BYTES, type Workload } from './workload.js';

const OPERATIONS_MS = 250;
const VERIFY_PAGES = 128;
/** Wrong pages that are named, and ranges of absent ones: they have to fit on a line. */
const NAMED_PAGES = 16;
const NAMED_RANGES = 512;

export interface GuestOptions {
  /** The directory of the memory's file. */
  readonly backing: string;
  readonly emit: (event: GuestEvent) => void;
  /** It cannot go on: a page is wrong, or its memory cannot be used. */
  readonly onBroken: (error: AbdmError | null) => void;
}

/** What `verify` has found. */
export interface Verdict {
  readonly pages: number;
  readonly absent: number;
  /** The first of those that are absent: first and last page of each range. */
  readonly absentRanges: readonly (readonly [number, number])[];
  readonly wrong: number;
  /** The first wrong ones. */
  readonly first: readonly { readonly pfn: number; readonly what: string }[];
}

export class Guest {
  /** Made anew whenever one is started. */
  readonly id = randomBytes(16).toString('hex');
  /** Called with pages that are waited for. */
  onFault: (pfns: readonly number[]) => void = () => {};
  readonly #options: GuestOptions;
  readonly #isIncoming: boolean;
  readonly #faults = new Faults();
  readonly #ran: Ran[] = [];
  readonly #wrong = new Set<number>();
  #state: GuestState = 'waiting';
  #hasRun = false;
  #memory: GuestMemory | null = null;
  #content: Content | null = null;
  #vcpus: Vcpus | null = null;
  #began: { readonly operation: number; readonly atMs: number } | null = null;
  #timer: NodeJS.Timeout | undefined;
  /** Where the last `operations` event ended. */
  #told = { operation: 0, atMs: 0 };

  /** @param workload null: it waits for a migration. @throws {AbdmError} IMAGE if it cannot be made here. */
  constructor(workload: Workload | null, options: GuestOptions) {
    this.#options = options;
    this.#isIncoming = workload === null;
    if (workload === null) return;
    this.#content = new Content(workload);
    this.#memory = new GuestMemory(options.backing, workload.memoryBytes, false);
    this.#memory.fill(this.#content);
    const versions = new Uint32Array(this.#memory.pages);
    this.#make({ workload, operation: 0, streams: firstStreams(workload), versions });
  }

  /** It begins to run, or to wait. */
  begin(): void {
    if (this.#isIncoming) this.#turn('waiting');
    else this.#go();
  }

  get hasRun(): boolean {
    return this.#hasRun;
  }

  status() {
    return {
      guest: this.id,
      state: this.#state,
      operation: this.#operation,
      memoryBytes: this.#memory?.bytes ?? 0,
      memory: this.#memory?.path ?? null,
      absentPages: this.#memory?.absentPages() ?? 0,
      waitingFor: this.waiting().length,
      faults: this.#faults.count,
      wrongPages: this.#wrong.size,
    };
  }

  /** Pages that it waits for. */
  waiting(): number[] {
    return this.#vcpus?.waiting() ?? [];
  }

  /** Pages may have come. */
  wake(): void {
    this.#vcpus?.wake();
  }

  /** It stands still after this. */
  stop(): void {
    if (this.#state === 'stopped') return;
    this.#expect('stopped', 'running');
    this.#halt();
    this.#turn('stopped');
  }

  resume(): void {
    if (this.#state === 'running') return;
    this.#expect('resumed', 'stopped');
    this.#go();
  }

  /** Its memory is to be read: from now on it is known which pages are written to. */
  beSource(): { guest: string; bytes: number; memory: string } {
    this.#expect('a source', 'running', 'stopped');
    const memory = this.#memory!;
    this.#settle(memory);
    memory.takeDirty();
    return { guest: this.id, bytes: memory.bytes, memory: memory.path };
  }

  takeDirty(): Uint8Array {
    this.#expect('asked for dirty pages', 'running', 'stopped');
    return this.#memory!.takeDirty();
  }

  executionState(): Uint8Array {
    this.#expect('asked for its execution state', 'stopped');
    return encodeState(this.#vcpus!.state());
  }

  /** It runs elsewhere: its memory is given back. */
  release(): void {
    if (this.#state === 'left') return;
    this.#expect('released', 'stopped');
    this.#turn('left');
    this.#drop();
  }

  /**
   * Its memory is to be written.
   * @param keep what an earlier migrator has written stays.
   */
  beSink(bytes: number, keep: boolean) {
    if (!this.#isIncoming) throw refuse('waits for no migration: it was not started with --incoming');
    if (this.#hasRun && !keep) throw refuse('has run already, and takes no other migration: start a new one');
    if (bytes < PAGE_BYTES || bytes > MAX_MEMORY_BYTES || bytes % PAGE_BYTES !== 0) {
      throw refuse(`cannot have ${bytes} bytes of memory: whole pages, and at most ${MAX_MEMORY_BYTES}`);
    }
    if (this.#hasRun) this.#expect('a destination', 'running', 'stopped');
    const isEmpty = !keep || this.#memory?.bytes !== bytes;
    if (isEmpty) {
      if (this.#hasRun) throw refuse(`has ${this.#memory?.bytes} bytes of memory, not ${bytes}`);
      this.reset();
      this.#memory = new GuestMemory(this.#options.backing, bytes, true);
    }
    const { path: memory, presencePath: presence } = this.#memory!;
    return { guest: this.id, hasRun: this.#hasRun, isEmpty, memory, presence };
  }

  load(state: Uint8Array): void {
    this.#expect('loaded', 'waiting', 'loaded');
    const decoded = decodeState(state);
    const { memoryBytes } = decoded.workload;
    if (this.#memory?.bytes !== memoryBytes) {
      throw refuse(`has ${this.#memory?.bytes ?? 0} bytes of memory, and this execution state is for ${memoryBytes}`);
    }
    const content = new Content(decoded.workload);
    this.#content?.close();
    this.#content = content;
    this.#make(decoded);
    this.#turn('loaded');
  }

  run(): void {
    if (this.#state === 'running') return;
    this.#expect('run', 'loaded');
    this.#go();
  }

  /** Every page has come. */
  commit(): void {
    if (!this.#memory) throw refuse('has no memory yet');
    this.#settle(this.#memory);
    this.wake();
  }

  /** It waits for another migration. */
  reset(): void {
    if (this.#hasRun) throw refuse('has run, and cannot wait for another migration');
    this.#drop();
    this.#vcpus = null;
    this.#turn('waiting');
  }

  /** Reads every page that is there, while it runs or not, and holds it against what it must be. */
  async verify(): Promise<Verdict> {
    this.#expect('verified', 'running', 'stopped');
    const memory = this.#memory!;
    const first: { pfn: number; what: string }[] = [];
    let wrong = 0;
    let absent = 0;
    const absentRanges: [number, number][] = [];
    for (let pfn = 0; pfn < memory.pages; pfn++) {
      if (pfn % VERIFY_PAGES === 0) {
        await setImmediate();
        this.#expect('verified any more', 'running', 'stopped');
      }
      if (!memory.has(pfn)) {
        absent++;
        const last = absentRanges.at(-1);
        if (last?.[1] === pfn - 1) last[1] = pfn;
        else if (absentRanges.length < NAMED_RANGES) absentRanges.push([pfn, pfn]);
        continue;
      }
      const what = this.#vcpus!.check(pfn);
      if (what === null) continue;
      wrong++;
      this.#tellWrong(pfn, what);
      if (first.length < NAMED_PAGES) first.push({ pfn, what });
    }
    return { pages: memory.pages, absent, absentRanges, wrong, first };
  }

  /** Ends it for good, wherever it is. */
  end(): GuestSummary {
    this.#halt();
    const operations = this.#operation;
    this.#drop();
    return {
      type: 'summary',
      role: 'guest',
      guestId: this.id,
      operations,
      ran: this.#ran,
      faults: { count: this.#faults.count, ...this.#faults.latency() },
      wrongPages: this.#wrong.size,
    };
  }

  get #operation(): number {
    return this.#vcpus?.operation ?? 0;
  }

  #make(state: ExecutionState): void {
    this.#vcpus = new Vcpus(state, this.#content!, this.#memory!, {
      fault: (pfn) => {
        this.#faults.begin();
        this.onFault([pfn]);
      },
      waited: (ms) => this.#faults.end(ms),
      wrong: (pfn, what) => {
        this.#tellWrong(pfn, what);
        this.#break(null);
      },
      failed: (error) => this.#break(asAbdmError(error)),
    });
  }

  #go(): void {
    const operation = this.#operation;
    this.#memory!.noteRun();
    this.#hasRun = true;
    this.#turn('running');
    this.#began = this.#told = { operation, atMs: nowMs() };
    this.#timer = setInterval(() => this.#tellOperations(), OPERATIONS_MS);
    this.#vcpus!.run();
  }

  #halt(): void {
    if (!this.#began) return;
    this.#vcpus!.halt();
    clearInterval(this.#timer);
    this.#tellOperations();
    const { operation: fromOperation, atMs: beganAtMs } = this.#began;
    this.#ran.push({ fromOperation, toOperation: this.#operation, beganAtMs, endedAtMs: nowMs() });
    this.#began = null;
  }

  /** It stands still for good. */
  #break(error: AbdmError | null): void {
    this.#halt();
    this.#turn('stopped');
    this.#options.onBroken(error);
  }

  /** @throws {AbdmError} IMAGE unless all of it is there. */
  #settle(memory: GuestMemory): void {
    const absent = memory.absentPages();
    if (absent > 0) throw refuse(`has not all its memory: ${absent} pages have not come`);
    memory.settle();
  }

  #drop(): void {
    this.#memory?.close();
    this.#content?.close();
    this.#memory = null;
    this.#content = null;
  }

  #turn(state: GuestState): void {
    this.#state = state;
    this.#options.emit({ type: 'state', state, operation: this.#operation, atMs: nowMs() });
  }

  #tellOperations(): void {
    const { operation, atMs } = this.#told;
    this.#told = { operation: this.#operation, atMs: nowMs() };
    const ms = this.#told.atMs - atMs;
    const operations = this.#told.operation - operation;
    this.#options.emit({ type: 'operations', atMs: this.#told.atMs, ms, operations, ...this.#faults.take() });
  }

  #tellWrong(pfn: number, what: string): void {
    if (this.#wrong.has(pfn)) return;
    this.#wrong.add(pfn);
    this.#options.emit({ type: 'wrong', pfn, operation: this.#operation, what });
  }

  /** @throws {AbdmError} IMAGE unless it is in one of these states. */
  #expect(what: string, ...states: readonly GuestState[]): void {
    if (!states.includes(this.#state)) throw refuse(`cannot be ${what}: it is ${this.#state}`);
  }
}

function refuse(why: string): AbdmError {
  return new AbdmError('IMAGE', `the guest ${why}`);
}
