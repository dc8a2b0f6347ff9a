// abdm guest: a model of a VM, to be moved and held against the truth.

import { resolve } from 'node:path';
import { AbdmError } from '../../bindings/errors.js';
import { GuestClient } from '../guest/client.js';
import type { GuestEvent } from '../guest/events.js';
import { type GuestProgram, startGuest } from '../guest/program.js';
import type { ASKS } from '../guest/protocol.js';
import { readWorkload, type Workload } from '../guest/workload.js';
import { EXIT, onSignal } from './exit.js';
import type { Output } from './output.js';
import { formatMs } from './sizes.js';

export interface GuestFlags {
  readonly socket: string;
  readonly memory?: number;
  readonly incoming?: boolean;
  readonly ask?: (typeof ASKS)[number];
  readonly seed: number;
  readonly workingSet?: number;
  readonly pattern: Workload['pattern'];
  readonly ops: number;
  readonly writes: number;
  readonly vcpus: number;
  readonly content: string;
  readonly common: number;
  readonly backing: string;
}

export async function guest(output: Output, flags: GuestFlags): Promise<number> {
  const { socket, ask, incoming = false, memory, backing } = flags;
  if (ask !== undefined) return askGuest(output, socket, ask);
  if (incoming === (memory !== undefined)) {
    throw new AbdmError('USAGE', 'say what to do: --memory SIZE for a guest that runs, --incoming, or --ask');
  }
  const emit = (event: GuestEvent) => output.event(event, eventText(event));
  const workload = memory === undefined ? null : workloadOf(flags, memory);
  let running: GuestProgram | undefined;
  // Before it says that it is there: from then on it may be told to end.
  onSignal(() => (running ? running.end() : process.exit(EXIT.aborted)));
  running = await startGuest({ socket: resolve(socket), backing, workload, emit });
  const { wrongPages, error } = await running.done;
  if (error) output.error(error);
  if (wrongPages > 0) return EXIT.lost;
  return error ? EXIT.aborted : EXIT.completed;
}

/** @throws {AbdmError} USAGE if there can be no such guest. */
function workloadOf(flags: GuestFlags, memoryBytes: number): Workload {
  const { workingSet: workingSetBytes = memoryBytes, pattern, ops: operationsPerS, writes: writeShare } = flags;
  const { vcpus, seed, common: commonShare } = flags;
  const content = ['random', 'zero'].includes(flags.content) ? flags.content : resolve(flags.content);
  const wanted = {
    memoryBytes,
    workingSetBytes,
    pattern,
    operationsPerS,
    writeShare,
    vcpus,
    seed,
    content,
    commonShare,
  };
  try {
    return readWorkload(wanted, 'the guest');
  } catch (cause) {
    throw new AbdmError('USAGE', (cause as Error).message, { cause });
  }
}

async function askGuest(output: Output, socket: string, ask: (typeof ASKS)[number]): Promise<number> {
  const client = await GuestClient.open(socket);
  try {
    const { answer } = await client.request({ ask }, undefined, ask === 'verify');
    const { ok: _, ...said } = answer;
    const text = Object.entries(said).map(([name, value]) => `  ${name}: ${JSON.stringify(value)}`);
    output.event({ type: ask, ...said }, [`guest ${socket}: ${ask}`, ...text].join('\n'));
    return ask === 'verify' && answer.wrong !== 0 ? EXIT.lost : EXIT.completed;
  } finally {
    client.close();
  }
}

/** What people want to see of it; the rest is for programs. */
function eventText(event: GuestEvent): string | undefined {
  switch (event.type) {
    case 'listening':
      return `guest ${event.guestId.slice(0, 8)} at ${event.socket}`;
    case 'state':
      return `${event.state} at operation ${event.operation}`;
    case 'wrong':
      return `WRONG: page ${event.pfn} at operation ${event.operation}: ${event.what}`;
    case 'summary': {
      const { operations, faults, wrongPages } = event;
      const waited = faults.count > 0 ? `, half of them below ${formatMs(faults.p50Ms)}` : '';
      return `${operations} operations, ${faults.count} waits for a page${waited}, ${wrongPages} wrong pages`;
    }
    default:
      return undefined;
  }
}
