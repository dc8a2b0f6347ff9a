// What the command prints. With --json: one JSON object a line on stdout, the last of each role being its summary. Without: one live line for people
// on stderr while a terminal is there to show it, and a few lines when it is over.

import { AbdmError } from '../../bindings/errors.js';
import type { Notice, Summary } from '../summary.js';
import { type Meter, progressLine } from './progress.js';
import { summaryLines } from './summary.js';

const LIVE_MS = 200;

export class Output {
  readonly #json: boolean;
  #timer: NodeJS.Timeout | undefined;
  /** Lines on the terminal that are replaced by the next ones. */
  #liveLines = 0;
  readonly #warned = new Set<string>();

  constructor(json: boolean) {
    this.#json = json;
  }

  /** An event for programs; people see `text`. */
  event(event: { type: string }, text?: string): void {
    if (this.#json) process.stdout.write(`${JSON.stringify(event, errorsInFull)}\n`);
    else if (text !== undefined) this.say(text);
  }

  /** A line for people. */
  say(text: string): void {
    this.#clearLive();
    if (!this.#json) process.stderr.write(`${text}\n`);
  }

  /** Something that the operator should know, and that ends nothing. */
  notice(text: string): void {
    this.event({ type: 'notice', text } as { type: string }, `abdm: ${text}`);
  }

  /** Likewise, of one VM. */
  vmNotice(notice: Notice): void {
    this.event({ type: 'notice', ...notice } as { type: string }, `abdm: ${notice.message}`);
    this.#warned.add(notice.message);
  }

  /** What ended the command before there was anything to sum up. */
  error({ code, message }: AbdmError): void {
    this.event({ type: 'error', code, message } as { type: string });
    this.#clearLive();
    process.stderr.write(`abdm: ${message}\n`);
  }

  /** Shows how far it has come until `stopLive`: as a live line, or as events. */
  live(name: string, meter: Meter): void {
    this.#timer = setInterval(() => {
      const progress = meter.read();
      for (const warning of progress.warnings ?? []) {
        if (!this.#warned.has(warning)) this.notice(warning);
        this.#warned.add(warning);
      }
      if (this.#json) this.event({ type: 'progress', ...progress });
      else this.liveLines(progressLine(name, progress));
    }, LIVE_MS);
  }

  /** Somebody looks at live lines. */
  get isTerminal(): boolean {
    return process.stderr.isTTY;
  }

  /** Replaces the live lines, where there is a terminal. */
  liveLines(...lines: readonly string[]): void {
    if (this.#json || !this.isTerminal) return;
    this.#clearLive();
    const { columns = 80, rows = 25 } = process.stderr;
    const shown = lines.slice(0, Math.max(1, rows - 1)).map((line) => line.slice(0, Math.max(20, columns - 1)));
    process.stderr.write(shown.map((line) => `${line}\n`).join(''));
    this.#liveLines = shown.length;
  }

  stopLive(): void {
    clearInterval(this.#timer);
    this.#clearLive();
  }

  /** The summary of a role, last. */
  summary(summary: Summary): void {
    this.stopLive();
    this.event(summary);
    if (!this.#json) for (const line of summaryLines(summary)) this.say(line);
  }

  #clearLive(): void {
    if (this.#liveLines > 0) process.stderr.write(`\x1b[${this.#liveLines}A\r\x1b[J`);
    this.#liveLines = 0;
  }
}

/** An error's message is not among the properties that JSON takes by itself. */
function errorsInFull(_name: string, value: unknown): unknown {
  return value instanceof AbdmError ? { code: value.code, message: value.message } : value;
}
