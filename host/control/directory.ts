// Where running roles can be reached: a unix socket each, named by its process, in a directory that only its owner can enter. Who gets in may
// cancel migrations, so a directory that somebody else made, or can write to, is not used.

import { lstatSync, mkdirSync, type Stats } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AbdmError } from '../../bindings/errors.js';

/** What a socket's address has room for (sun_path, less its last zero), on every system that we know. */
const MAX_PATH_BYTES = 103;

/** XDG_RUNTIME_DIR/abdm; where there is none, /tmp/abdm-UID. */
export function controlDirectory(): string {
  const runtime = process.env.XDG_RUNTIME_DIR;
  return runtime ? join(runtime, 'abdm') : join(tmpdir(), `abdm-${process.getuid?.() ?? 'user'}`);
}

/** The directory if it is there, and made if `make`; else null. @throws {AbdmError} USAGE if it cannot be trusted or used. */
export function openControlDirectory(make: boolean): string | null {
  const path = controlDirectory();
  try {
    if (make) mkdirSync(path, { recursive: true, mode: 0o700 });
    const wrong = distrust(lstatSync(path));
    if (wrong) throw unusable(path, wrong);
  } catch (cause) {
    if (cause instanceof AbdmError) throw cause;
    if (!make && (cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw unusable(path, (cause as Error).message);
  }
  return path;
}

/** @throws {AbdmError} USAGE if the system could not take it. */
export function socketPath(directory: string, pid: number): string {
  const path = join(directory, `${pid}.sock`);
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) throw unusable(directory, 'its name is too long for a socket in it');
  return path;
}

function distrust(stats: Stats): string | null {
  if (!stats.isDirectory()) return 'it is no directory';
  if (stats.uid !== process.getuid?.()) return `it belongs to user ${stats.uid}`;
  const mode = stats.mode & 0o777;
  return (mode & 0o077) === 0 ? null : `others may enter it: its mode is ${mode.toString(8)}, and must be 700`;
}

function unusable(path: string, why: string): AbdmError {
  return new AbdmError(
    'USAGE',
    `${path} cannot be used for control sockets: ${why}; mend that, or set XDG_RUNTIME_DIR`,
  );
}
