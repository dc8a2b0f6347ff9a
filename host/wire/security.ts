// Who may speak to us, and who may listen: decided once, when a role is started, and handed to everything that connects or listens.

import { createPrivateKey, hkdfSync, randomBytes, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { AbdmError } from '../../bindings/errors.js';

/** How connections are made private. With neither a key nor certificates everything stays on loopback. */
export interface Security {
  /** The cluster's secret, 32 bytes: whoever has it is one of us. */
  readonly clusterKey: Uint8Array | null;
  /**
   * Certificates, PEM: both ends are verified against `ca`, and every certificate that it has signed is one of us, whatever names stand in it.
   * Connections then use these; a key beside them serves what is not a connection.
   */
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string } | null;
}

/** What was read, and what the operator should be told of it. */
export interface LoadedSecurity extends Security {
  readonly warnings: readonly string[];
}

/** The files of {@link loadSecurity}; certificates are given all three or not at all. */
export interface SecurityFiles {
  /** The cluster's key, as {@link generateKey} makes it. */
  readonly keyFile?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  /** Who signs certificates of this cluster, and of nobody else. */
  readonly tlsCa?: string;
}

/** No key, no certificates: loopback only. */
export const OPEN: Security = { clusterKey: null, tls: null };

const KEY_BYTES = 32;
/** No file that is meant here is longer. */
const MAX_FILE_BYTES = 1024 * 1024;

/** Whether connections are private, and frames sealed. */
export function isSecured({ clusterKey, tls }: Security): boolean {
  return clusterKey !== null || tls !== null;
}

/** A new cluster key, as the file that `--key` names holds it: 64 hexadecimal digits and a newline. Write it with mode 0600. */
export function generateKey(): string {
  return `${randomBytes(KEY_BYTES).toString('hex')}\n`;
}

/**
 * Reads the cluster's key and the certificates, and looks whether they can be what they are said to be.
 * @throws {AbdmError} `USAGE` naming the file, what is wrong with it, and what to do.
 */
export function loadSecurity({ keyFile, tlsCert, tlsKey, tlsCa }: SecurityFiles): LoadedSecurity {
  const warnings: string[] = [];
  const clusterKey = keyFile === undefined ? null : readClusterKey(keyFile, warnings);
  const given = [tlsCert, tlsKey, tlsCa].filter((file) => file !== undefined);
  if (given.length === 0) return { clusterKey, tls: null, warnings };
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    throw new AbdmError('USAGE', '--tls-cert, --tls-key and --tls-ca belong together: give all three, or none');
  }
  const tls = { cert: read(tlsCert), key: readSecret(tlsKey, warnings), ca: read(tlsCa) };
  checkPair(tls, { tlsCert, tlsKey, tlsCa });
  return { clusterKey, tls, warnings };
}

/** A key of 32 bytes of `secret` for one purpose: HKDF-SHA256. Who learns one learns neither the secret nor the keys of other labels. */
export function deriveKey(secret: Uint8Array, label: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), label, KEY_BYTES));
}

/** The cluster's key for one purpose; null where there is no cluster key. The key itself is used for nothing. */
export function subKey({ clusterKey }: Security, label: string): Uint8Array | null {
  return clusterKey === null ? null : deriveKey(clusterKey, label);
}

function readClusterKey(path: string, warnings: string[]): Uint8Array {
  const text = readSecret(path, warnings).trim();
  if (/^[0-9a-f]{64}$/i.test(text)) return new Uint8Array(Buffer.from(text, 'hex'));
  const found = /^[0-9a-f]*$/i.test(text) ? `${text.length} hexadecimal digits, not 64` : 'something else';
  throw new AbdmError(
    'USAGE',
    `the key file ${path} holds ${found}: make one with 'abdm keygen' and give it to every node`,
  );
}

function checkPair(
  tls: NonNullable<Security['tls']>,
  files: Required<Pick<SecurityFiles, 'tlsCert' | 'tlsKey' | 'tlsCa'>>,
) {
  const certificate = parse(files.tlsCert, 'certificate', () => new X509Certificate(tls.cert));
  const key = parse(files.tlsKey, 'private key without a passphrase', () => createPrivateKey(tls.key));
  parse(files.tlsCa, "certificate of the cluster's CA", () => new X509Certificate(tls.ca));
  if (!certificate.checkPrivateKey(key)) {
    throw new AbdmError('USAGE', `${files.tlsKey} is not the key of the certificate in ${files.tlsCert}`);
  }
  const now = Date.now();
  if (Date.parse(certificate.validTo) < now || Date.parse(certificate.validFrom) > now) {
    const { validFrom, validTo } = certificate;
    const text = `is valid from ${validFrom} to ${validTo}, not now: nobody would let us in; renew it, or set the clock`;
    throw new AbdmError('USAGE', `the certificate in ${files.tlsCert} ${text}`);
  }
}

function parse<T>(path: string, what: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new AbdmError('USAGE', `${path} does not hold a ${what} in PEM`, { cause });
  }
}

function readSecret(path: string, warnings: string[]): string {
  const text = read(path);
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) !== 0 && process.platform !== 'win32') {
    warnings.push(`${path} can be read by others (mode ${mode.toString(8)}): chmod 600 ${path}`);
  }
  return text;
}

function read(path: string): string {
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) throw new Error(`it has ${size} bytes, too many for a key or a certificate`);
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : cause;
    throw new AbdmError('USAGE', `cannot read ${path}: ${why}`, { cause });
  }
}
