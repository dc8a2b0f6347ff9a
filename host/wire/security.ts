// Who may speak to us, and who may listen: decided once, when a role is started, and handed to everything that connects or listens.

import { hkdfSync } from 'node:crypto';

/** How connections are made private. With neither a key nor certificates everything stays on loopback. */
export interface Security {
  /** The cluster's secret, 32 bytes: whoever has it is one of us. */
  readonly clusterKey: Uint8Array | null;
  /** Certificates instead of, or beside, the key: PEM, both ends are verified. */
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string } | null;
}

/** No key, no certificates: loopback only. */
export const OPEN: Security = { clusterKey: null, tls: null };

/** Whether connections are private, and frames sealed. */
export function isSecured({ clusterKey, tls }: Security): boolean {
  return clusterKey !== null || tls !== null;
}

/** A key of 32 bytes of `secret` for one purpose: HKDF-SHA256. Who learns one learns neither the secret nor the keys of other labels. */
export function deriveKey(secret: Uint8Array, label: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), label, 32));
}
