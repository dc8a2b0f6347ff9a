// Files with keys: 64 hexadecimal digits and a line end. Made once, readable by their owner only, never overwritten.

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { AbdmError } from '../../bindings/errors.js';
import { EXIT } from './exit.js';
import { generateKey } from './load.js';
import type { Output } from './output.js';

/** Makes a key and the file for it. @throws {AbdmError} USAGE if there is such a file already, or it cannot be made. */
export function createKeyFile(path: string): Uint8Array {
  const text = generateKey();
  try {
    const file = openSync(path, 'wx', 0o600);
    try {
      writeSync(file, text);
    } finally {
      closeSync(file);
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'EEXIST' ? 'it exists, and a key is never overwritten; name another file' : message;
    throw new AbdmError('USAGE', `${path} cannot be made: ${why}`, { cause });
  }
  return Buffer.from(text.trim(), 'hex');
}

/** @throws {AbdmError} USAGE if it cannot be read, or has no key in it. */
export function readKeyFile(path: string): Uint8Array {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch (cause) {
    throw new AbdmError('USAGE', `the key ${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  if (!/^[0-9a-f]{64}\r?\n?$/i.test(text))
    throw new AbdmError('USAGE', `${path} is no key: a key is 64 hexadecimal digits`);
  return Buffer.from(text.trim(), 'hex');
}

/** abdm keygen: a new key in a file, or on stdout. */
export async function keygen(output: Output, path: string | undefined, { json }: { json?: boolean }): Promise<number> {
  if (path !== undefined) {
    createKeyFile(path);
    output.event({ type: 'key', path } as { type: string }, `${path}: whoever has this file is one of the cluster`);
  } else {
    const key = generateKey();
    if (json) output.event({ type: 'key', key: key.trim() } as { type: string });
    else process.stdout.write(key);
  }
  return EXIT.completed;
}
