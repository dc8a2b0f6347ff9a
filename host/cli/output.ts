// What the command prints. With --json: one JSON object a line on stdout, the last of each role being its summary. Without: one live line for people
// on stderr while a terminal is there to show it, and a few lines when it is over.

import { AbdmError } from '../../bindings/errors.js';
import type { Status, Summary } from '../summary.js';
import { formatBytes, formatMs } from './sizes.js';

const LIVE_MS = 200;

export class Output {
  readonly #json: boolean;
  #timer: NodeJS.Timeout | undefined;
  #liveShown = false;

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

  /** What ended the command before there was anything to sum up. */
  error({ code, message }: AbdmError): void {
    this.event({ type: 'error', code, message } as { type: string });
    this.#clearLive();
    process.stderr.write(`abdm: ${message}\n`);
  }

  /** Shows the status until `stopLive`: as a live line, or as events. */
  live(name: string, status: () => Status): void {
    const rate = new Rate();
    this.#timer = setInterval(() => {
      const now = status();
      const speed = rate.update(now);
      if (this.#json) this.event({ type: 'progress', ...now, ...speed } as { type: string });
      else this.liveLine(progressLine(name, now, speed));
    }, LIVE_MS);
  }

  /** Replaces the live line, where there is a terminal. */
  liveLine(text: string): void {
    if (this.#json || !process.stderr.isTTY) return;
    process.stderr.write(`\r\x1b[K${text.slice(0, Math.max(20, (process.stderr.columns || 80) - 1))}`);
    this.#liveShown = true;
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
    if (!this.#liveShown) return;
    process.stderr.write('\r\x1b[K');
    this.#liveShown = false;
  }
}

/** An error's message is not among the properties that JSON takes by itself. */
function errorsInFull(_name: string, value: unknown): unknown {
  return value instanceof AbdmError ? { code: value.code, message: value.message } : value;
}

/** Bytes a second, and what is left at that rate. */
interface Speed {
  bytesPerS: number;
  etaMs: number | null;
  mergeEtaMs: number | null;
}

/** Rates over the last two seconds. */
class Rate {
  readonly #seen: { at: number; done: number; merged: number }[] = [];

  update({ doneBytes, mergedBytes, totalBytes }: Status): Speed {
    const now = performance.now();
    const merged = mergedBytes ?? 0;
    this.#seen.push({ at: now, done: doneBytes, merged });
    while (this.#seen.length > 2 && now - this.#seen[0]!.at > 2000) this.#seen.shift();
    const first = this.#seen[0]!;
    const elapsedMs = now - first.at;
    const perMs = elapsedMs > 0 ? (doneBytes - first.done) / elapsedMs : 0;
    const mergedPerMs = elapsedMs > 0 ? (merged - first.merged) / elapsedMs : 0;
    return {
      bytesPerS: Math.round(perMs * 1000),
      etaMs: perMs > 0 ? Math.round((totalBytes - doneBytes) / perMs) : null,
      mergeEtaMs: mergedPerMs > 0 ? Math.round((totalBytes - merged) / mergedPerMs) : null,
    };
  }
}

export function progressLine(name: string, status: Status, { bytesPerS, etaMs, mergeEtaMs }: Speed): string {
  const { phase, doneBytes, totalBytes } = status;
  if (phase === 'waiting' || phase === 'preparing') return `${name}: ${phase}`;
  const percent = totalBytes > 0 ? Math.floor((100 * doneBytes) / totalBytes) : 100;
  const parts = [`${name}: ${phase} ${percent} %`, `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`];
  if (bytesPerS > 0) parts.push(`${formatBytes(bytesPerS)}/s`);
  if (phase === 'dividing' && etaMs !== null) parts.push(`exit in ${formatMs(etaMs)}`);
  if (mergeEtaMs !== null) parts.push(`merged in ${formatMs(mergeEtaMs)}`);
  return parts.join(', ');
}

function summaryLines(summary: Summary): string[] {
  const { role, outcome, reason, vms, exitTimeMs, totalMigrationTimeMs, wireBytes, nodes } = summary;
  const lines = vms.map((vm) => {
    const kinds = [
      `${vm.zeroPages} zero`,
      `${vm.duplicatePages} duplicate`,
      `${vm.compressedPages} compressed`,
      `${vm.normalPages} normal`,
    ];
    return `  ${vm.name}: ${formatBytes(vm.imageBytes)} in ${vm.pages} pages: ${kinds.join(', ')}`;
  });
  for (const { address, frames, bytes } of nodes) lines.push(`  ${address}: ${frames} frames, ${formatBytes(bytes)}`);
  const wire = formatBytes((role === 'source' ? wireBytes.source : wireBytes.destination) ?? 0);
  const head = [`${role}: ${outcome}`];
  if (exitTimeMs !== null) head.push(`exit after ${formatMs(exitTimeMs)}`);
  if (totalMigrationTimeMs !== null) head.push(`merged and verified after ${formatMs(totalMigrationTimeMs)}`);
  head.push(`${wire} on the wire`, `${summary.cpuSeconds.toFixed(2)} CPU s`);
  if (reason) lines.push(`  ${reason.message} (${reason.code})`);
  return [head.join(', '), ...lines];
}
