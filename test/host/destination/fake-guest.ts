// A guest that does as told: where a true one is a process, this one notes what is asked of it, and may be slow, refuse, or go away.
import { randomBytes } from 'node:crypto';
import type { GuestSink } from '#abdm/host/image/image.js';

export class FakeGuest implements GuestSink {
  readonly description = 'guest of the test';
  readonly guestId = randomBytes(16).toString('hex');
  readonly hasRun: boolean;
  present = new Uint8Array(0);
  onFault: (pfn: number) => void = () => {};
  onGone: (error: Error) => void = () => {};
  /** What was asked of it, in order. */
  readonly asked: string[] = [];
  /** Awaited before it answers to this. */
  hold: Partial<Record<'load' | 'run', Promise<void>>> = {};
  /** What it answers to this. */
  refuse: Partial<Record<'load' | 'run' | 'commit', Error>> = {};

  constructor(hasRun = false) {
    this.hasRun = hasRun;
  }

  async load(state: Uint8Array): Promise<void> {
    await this.#answer('load', Buffer.from(state).toString());
  }

  async run(): Promise<void> {
    await this.#answer('run');
  }

  async commit(): Promise<void> {
    await this.#answer('commit');
  }

  async discard(): Promise<void> {
    this.asked.push('discard');
  }

  async leave(): Promise<void> {
    this.asked.push('leave');
  }

  forget(): void {}
  write(): void {}
  zero(): void {}
  read(): void {}

  async #answer(what: 'load' | 'run' | 'commit', with_ = ''): Promise<void> {
    await this.hold[what as 'load'];
    const error = this.refuse[what];
    if (error) throw error;
    this.asked.push(with_ === '' ? what : `${what} ${with_}`);
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
