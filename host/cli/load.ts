// Stands in for host/wire/security.ts until that reads files.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { AbdmError } from '../../bindings/errors.js';
import type { Security } from '../wire/security.js';

/** A new key of the cluster: 64 hexadecimal digits and a line end. */
export function generateKey(): string {
  return `${randomBytes(32).toString('hex')}\n`;
}

/** @throws {AbdmError} USAGE if a file cannot be read, or is not what it should be. */
export function loadSecurity(files: {
  keyFile?: string;
  tlsCert?: string;
  tlsKey?: string;
  tlsCa?: string;
}): Security & { warnings: readonly string[] } {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8');
    } catch (cause) {
      throw new AbdmError('USAGE', `${path} cannot be read: ${(cause as Error).message}`, { cause });
    }
  };
  const { keyFile, tlsCert, tlsKey, tlsCa } = files;
  const hex = keyFile === undefined ? null : read(keyFile).trim();
  if (hex !== null && !/^[0-9a-f]{64}$/.test(hex)) throw new AbdmError('USAGE', `${keyFile} is no key`);
  const tls = [tlsCert, tlsKey, tlsCa];
  if (tls.some(Boolean) && !tls.every(Boolean)) throw new AbdmError('USAGE', 'certificates need all of their files');
  const [cert, key, ca] = tls.every(Boolean) ? tls.map((path) => read(path!)) : [];
  const clusterKey = hex === null ? null : Buffer.from(hex, 'hex');
  return { clusterKey, tls: cert ? { cert, key: key!, ca: ca! } : null, warnings: [] };
}
