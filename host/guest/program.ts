// A guest as a process: itself, its socket, and how it ends.

import type { AbdmError } from '../../bindings/errors.js';
import type { GuestEvent } from './events.js';
import { Guest } from './guest.js';
import { GuestServer } from './server.js';
import type { Workload } from './workload.js';

export interface GuestProgramOptions {
  readonly socket: string;
  /** The directory for the file that its memory is. */
  readonly backing: string;
  /** Null: it waits for a migration. */
  readonly workload: Workload | null;
  readonly emit: (event: GuestEvent) => void;
}

/** How it ended. */
export interface GuestEnding {
  readonly wrongPages: number;
  /** Its memory could not be used any more. */
  readonly error: AbdmError | null;
}

export interface GuestProgram {
  /** When it has ended: asked to, or because something was wrong. */
  readonly done: Promise<GuestEnding>;
  end(): void;
}

/** Starts a guest. @throws {AbdmError} IMAGE if there is no room for it, or no place for its socket. */
export async function startGuest({ socket, backing, workload, emit }: GuestProgramOptions): Promise<GuestProgram> {
  let ended!: (ending: GuestEnding) => void;
  const done = new Promise<GuestEnding>((resolve) => {
    ended = resolve;
  });
  let server: GuestServer | null = null;
  let isOver = false;
  const end = (error: AbdmError | null = null) => {
    if (isOver) return;
    isOver = true;
    server?.close();
    const summary = guest.end();
    emit(summary);
    ended({ wrongPages: summary.wrongPages, error });
  };
  // Not in the middle of the operation that found it.
  const guest = new Guest(workload, { backing, emit, onBroken: (error) => setImmediate(() => end(error)) });
  server = await GuestServer.listen(socket, guest, end);
  emit({ type: 'listening', socket, guestId: guest.id });
  guest.begin();
  return { done, end: () => end() };
}
