// Exit codes, and what a signal does.

import { AbdmError } from '../../bindings/errors.js';
import type { Summary } from '../summary.js';

/** Exit codes of the command (docs, "The command"). */
export const EXIT = { completed: 0, usage: 1, aborted: 2, recoverable: 3, lost: 4 } as const;

/** The exit code for how a migration ended, or the worst of its VMs. `handedOver`: the source has left, and with it the only other copy. */
export function exitCodeOf(summary: Summary, handedOver: boolean): number {
  if (summary.outcome === 'completed') return EXIT.completed;
  if (summary.outcome === 'paused-recoverable') return EXIT.recoverable;
  if (handedOver || (summary.lost ?? []).length > 0) return EXIT.lost;
  const isNothing = !summary.vms.some(({ outcome }) => outcome === 'completed');
  return isNothing && summary.reason?.code === 'USAGE' ? EXIT.usage : EXIT.aborted;
}

/** The exit code for an error that ended the command before there was a migration. */
export function exitCodeOfError(error: unknown): number {
  return error instanceof AbdmError && error.code !== 'USAGE' ? EXIT.aborted : EXIT.usage;
}

/** Calls `cancel` at the first SIGINT, SIGTERM or SIGHUP; a second one ends this process at once, with the code that `hurry` gives. */
export function onSignal(cancel: (signal: string) => void, hurry: () => number = () => EXIT.aborted): void {
  let signals = 0;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (++signals === 1) return cancel(signal);
      // Processes that were stopped for their images go on (image/process.ts sees to it), unless `hurry` has let go of them.
      process.exit(hurry());
    });
  }
}
