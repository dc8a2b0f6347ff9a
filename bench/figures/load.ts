// What guests do while they migrate.

export interface Load {
  readonly name: 'idle' | 'light' | 'busy';
  /** Operations a second when nothing disturbs them, half of which write; 0: none. */
  readonly operationsPerS: number;
  readonly pattern: 'uniform' | 'zipf';
  /** Of its memory. */
  readonly workingSetShare: number;
}

/** Of the operations. */
export const WRITES = 1 / 2;

/** Does nothing. */
export const IDLE: Load = { name: 'idle', operationsPerS: 0, pattern: 'uniform', workingSetShare: 1 };
/** Idle, where a guest has to touch pages so that there is something to measure. */
export const LIGHT: Load = { name: 'light', operationsPerS: 100, pattern: 'zipf', workingSetShare: 1 / 4 };

const LINK_BITS_PER_S = 1e9;

/**
 * Writes 16 MB a second anywhere in half of its memory: nearly what a link of 1/6.5 of a gigabit carries, so that pre-copy ends, but late. Over another
 * link as much slower, so that figures keep their shape.
 */
export function busy(bitsPerS: number): Load {
  const operationsPerS = Math.round((8000 * bitsPerS) / LINK_BITS_PER_S);
  return { name: 'busy', operationsPerS, pattern: 'uniform', workingSetShare: 1 / 2 };
}

/** A server with pages that are asked for often: where a guest's own speed is measured. */
export function server(bitsPerS: number): Load {
  const operationsPerS = Math.round((2000 * bitsPerS) / LINK_BITS_PER_S);
  return { name: 'busy', operationsPerS, pattern: 'zipf', workingSetShare: 1 / 4 };
}

/** What it says to `abdm guest`. */
export function loadArgs({ operationsPerS, pattern, workingSetShare }: Load, vmBytes: number): string[] {
  if (operationsPerS === 0) return ['--ops', '0'];
  const workingSet = String(Math.round(vmBytes * workingSetShare));
  const how = ['--pattern', pattern, '--writes', String(WRITES), '--working-set', workingSet];
  return ['--ops', String(operationsPerS), ...how];
}
