// Starts the demo's workload: a Node process whose heap is filled with what servers hold (heap.ts).
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { imageError } from '../../image/image.js';

export { writeHeapFile } from './heap.js';

/** With what Node itself takes, an image of about 480 MB. */
export const DEFAULT_HEAP_BYTES = 288 * 1024 * 1024;
const READY_DEADLINE_MS = 60_000;

export interface Workload {
  readonly pid: number;
  /** Ends it, whatever state it is in. */
  stop(): Promise<void>;
}

/**
 * Starts a process whose heap holds about `heapBytes` more than Node's own, and resolves when it is filled. The process ends with this one.
 * @throws AbdmError IMAGE if it ends, or is not ready within a minute.
 */
export async function startWorkload(heapBytes = DEFAULT_HEAP_BYTES): Promise<Workload> {
  const child = fork(fileURLToPath(new URL('workload-child.js', import.meta.url)), [String(heapBytes)], {
    execArgv: [],
    // Nothing of it on our stdout, which may be read by a program.
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  // It sees by itself that we are gone, unless it is stopped just then.
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(`it ended with ${signal ?? `code ${code}`}`));
  }).finally(() => process.off('exit', kill));
  const stop = async () => {
    kill();
    await ended;
  };
  const failure = await Promise.race([ready(child), ended]);
  if (failure === undefined) return { pid: child.pid!, stop };
  await stop();
  throw imageError(
    `the demo's process did not get ready: ${failure}`,
    'see its message above, or give an image with --image',
  );
}

/** Resolves to nothing when it is ready, or to what is wrong when it takes too long. */
function ready(child: ChildProcess): Promise<string | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(`not within ${READY_DEADLINE_MS} ms`), READY_DEADLINE_MS);
    child.once('message', () => {
      clearTimeout(timer);
      resolve(undefined);
    });
    child.once('exit', () => clearTimeout(timer));
  });
}
