// Keys and certificates of a cluster, and of strangers to it. Certificates are made with openssl.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Security } from '#abdm/host/wire/security.js';

/** How roles are told who they are, and how the runner itself is one of them. */
export interface Credentials {
  readonly args: readonly string[];
  readonly security: Security;
}

/** A cluster key in a file of its own. */
export function makeKey(directory: string, name: string): Credentials {
  const path = join(directory, `${name}.key`);
  const key = randomBytes(32);
  writeFileSync(path, `${key.toString('hex')}\n`, { mode: 0o600 });
  return { args: ['--key', path], security: { clusterKey: key, tls: null } };
}

/** Who signs the certificates of a cluster. */
export class Authority {
  readonly #path: string;

  constructor(directory: string, name: string) {
    this.#path = join(directory, name);
    const files = ['-keyout', `${this.#path}.key`, '-out', `${this.#path}.pem`];
    openssl('req', '-x509', ...NEW_KEY, ...files, '-subj', `/CN=${name}`, '-days', '2');
  }

  /** A certificate that is good for so many days from now. */
  issue(name: string, days: number): Credentials {
    const own = `${this.#path}-${name}`;
    openssl('req', ...NEW_KEY, '-keyout', `${own}.key`, '-out', `${own}.csr`, '-subj', `/CN=${name}`);
    const by = ['-CA', `${this.#path}.pem`, '-CAkey', `${this.#path}.key`, '-CAcreateserial'];
    openssl('x509', '-req', '-in', `${own}.csr`, ...by, '-days', String(days), '-out', `${own}.pem`);
    const [cert, key, ca] = [`${own}.pem`, `${own}.key`, `${this.#path}.pem`] as const;
    const read = (path: string) => readFileSync(path, 'utf8');
    return {
      args: ['--tls-cert', cert, '--tls-key', key, '--tls-ca', ca],
      security: { clusterKey: null, tls: { cert: read(cert), key: read(key), ca: read(ca) } },
    };
  }
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
