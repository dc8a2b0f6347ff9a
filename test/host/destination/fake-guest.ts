// A guest that does as told: where a true one is a process, this one notes what is asked of it, and may be slow, refuse, or go away.
import type { LeftOver } from '#abdm/host/image/filesink.js';
import { MemoryGuest } from './live.js';

export class FakeGuest extends MemoryGuest {
  /** What was asked of it, in order. */
  readonly asked: string[] = [];
  /** Awaited before it answers to this. */
  hold: Partial<Record<'load' | 'run', Promise<void>>> = {};
  /** What it answers to this. */
  refuse: Partial<Record<'load' | 'run' | 'commit', Error>> = {};

  constructor(pages = 0, hasRun = false) {
    super(pages);
    this.hasRun = hasRun;
  }

  /** A destination opens it, maybe not the first one. */
  open(left?: LeftOver): this {
    this.hasRun = this.runs;
    if (left !== 'keep') this.present.fill(0);
    this.asked.push(`open ${left}`);
    return this;
  }

  override async load(state: Uint8Array): Promise<void> {
    await this.#answer('load', Buffer.from(state).toString());
  }

  override async run(): Promise<void> {
    await this.#answer('run');
    await super.run();
  }

  override async commit(): Promise<void> {
    await this.#answer('commit');
  }

  override async discard(): Promise<void> {
    this.asked.push('discard');
  }

  async leave(): Promise<void> {
    this.asked.push('leave');
  }

  async #answer(what: 'load' | 'run' | 'commit', to = ''): Promise<void> {
    await this.hold[what as 'load'];
    const error = this.refuse[what];
    if (error) throw error;
    this.asked.push(to === '' ? what : `${what} ${to}`);
  }
}

/** The bodies of STATE for this. */
export function stateBodies(vm: number, state: Uint8Array): Uint8Array[] {
  const pieces = Math.max(1, Math.ceil(state.byteLength / 256_000));
  return Array.from({ length: pieces }, (_, part) =>
    stateBody(vm, part, pieces, state.subarray(part * 256_000, (part + 1) * 256_000)),
  );
}

export function stateBody(vm: number, part: number, parts: number, piece: Uint8Array, reserved = 0): Uint8Array {
  const head = Buffer.alloc(8);
  for (const [i, value] of [vm, part, parts, reserved].entries()) head.writeUInt16LE(value, 2 * i);
  return new Uint8Array(Buffer.concat([head, piece]));
}
