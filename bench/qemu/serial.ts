// What a guest says of itself on its serial line (guest/init.c), with the time at which it was heard, and what it is told.
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

export interface Line {
  readonly text: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
}

export const now = () => performance.timeOrigin + performance.now();

export class Serial {
  readonly lines: Line[] = [];
  /** When anything was heard. */
  readonly signsOfLife: number[] = [];
  readonly #input: Writable;
  #rest = '';
  #wakes: (() => void)[] = [];
  #over = false;

  constructor(output: Readable, input: Writable) {
    this.#input = input;
    input.on('error', () => {});
    output.setEncoding('latin1').on('data', (data: string) => this.#onData(data));
    void once(output, 'close').then(() => {
      this.#over = true;
      this.#wake();
    });
  }

  tell(command: string): void {
    this.#input.write(`${command}\n`);
  }

  /** The first line behind the first `skip` ones that matches. @throws {Error} if it ends before. */
  async line(wanted: RegExp, skip = 0): Promise<RegExpMatchArray> {
    for (;;) {
      for (const { text } of this.lines.slice(skip)) {
        const match = wanted.exec(text);
        if (match) return match;
      }
      if (this.#over) throw new Error(`the guest ended before it said ${wanted}: ${this.lines.at(-1)?.text}`);
      await new Promise<void>((resolve) => this.#wakes.push(resolve));
    }
  }

  /** What tells that a guest is not the one that it was: each is a reason for FAIL. */
  get wrong(): string[] {
    return this.lines.map(({ text }) => text).filter((text) => /FAIL|panic|Oops|BUG:/.test(text));
  }

  /** By the guest's own clock, the longest time that its pulse was held up, in all that it said. */
  get longestStallMs(): number {
    const stalls = this.lines.map(({ text }) => Number(/STALL (\d+)/.exec(text)?.[1] ?? 0));
    return Math.max(0, ...stalls) / 1000;
  }

  #onData(data: string): void {
    const atMs = now();
    this.signsOfLife.push(atMs);
    const parts = (this.#rest + data).split('\n');
    this.#rest = parts.pop()!.replace(/^\.+$/, '');
    for (const part of parts) {
      const text = part.replaceAll('\r', '').replace(/^\.+/, '');
      if (text !== '') this.lines.push({ text, atMs });
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }
}

/** The longest silence between `fromMs` and `toMs` of a guest that was heard first here, then there. */
export function longestSilenceMs(all: readonly Serial[], fromMs: number, toMs: number): number {
  const times = all.flatMap(({ signsOfLife }) => signsOfLife).sort((a, b) => a - b);
  const within = times.filter((atMs) => atMs >= fromMs && atMs <= toMs);
  return Math.max(...[...within, toMs].map((atMs, i) => atMs - (within[i - 1] ?? fromMs)));
}
