// TLS 1.3 as all our connections use it, by Node: with the cluster's key as pre-shared key, or with certificates on both sides.
//
// What makes a peer one of us: that it has the key; or that its certificate was signed by the cluster's own CA and is valid now. Names in certificates
// are not compared with anything: nodes are found by their addresses, which come and go. So the CA must sign for this cluster only.

import { constants } from 'node:crypto';
import { connect, createServer, type Server, type TLSSocket } from 'node:tls';
import { AbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress } from './address.js';
import { type Security, subKey } from './security.js';

const VERSION = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const;
/** A session cannot be resumed: each connection proves anew that its ends are members, and still are. */
const NO_RESUMPTION = { secureOptions: constants.SSL_OP_NO_TICKET } as const;
const IDENTITY = 'abdm';
const LABEL = 'abdm tls psk';
/** Keys of 32 bytes go with SHA-256 only. */
const PSK_SUITE = 'TLS_AES_128_GCM_SHA256';

/**
 * A server that never listens: emit `connection` with a socket to have its TLS spoken. With certificates `secureConnection` comes also for a client
 * whose certificate is not believed, so that it can be told: look at `authorized`.
 */
export function tlsServer(security: Security): Server {
  const { tls } = security;
  if (tls !== null)
    return createServer({ ...VERSION, ...NO_RESUMPTION, ...tls, requestCert: true, rejectUnauthorized: false });
  const psk = Buffer.from(pskOf(security));
  return createServer({
    ...VERSION,
    ...NO_RESUMPTION,
    ciphers: PSK_SUITE,
    pskCallback: (_, identity) => (identity === IDENTITY ? psk : null),
  });
}

/** A TLS connection that is being made; `secureConnect` comes when the server is known to be one of us. */
export function tlsConnect({ host, port }: Address, security: Security): TLSSocket {
  const { tls } = security;
  if (tls !== null) {
    return connect({ ...VERSION, ...tls, host, port, checkServerIdentity: () => undefined });
  }
  const psk = Buffer.from(pskOf(security));
  return connect({
    ...VERSION,
    host,
    port,
    ciphers: PSK_SUITE,
    pskCallback: () => ({ psk, identity: IDENTITY }),
    // A server that knows the key shows no certificate. None that is shown is believed: without this, one that any public CA has signed would be.
    ca: [],
    checkServerIdentity: () => new Error('the server did not use the cluster key'),
  });
}

/** Why TLS with `peer` came to nothing; null if that was the network's fault, not that of who spoke. */
export function tlsFailure(peer: string, cause: unknown): AbdmError | null {
  if (!(cause instanceof Error) || 'syscall' in cause) return null;
  const code = 'code' in cause ? String(cause.code) : '';
  if (code === 'ECONNRESET' || code === 'EPIPE') return null;
  const text = `${peer} and we do not take each other for members of one cluster: ${reason(code, cause.message)} (${code})`;
  return new AbdmError('UNAUTHENTICATED', text, { cause });
}

/** Why a client's certificate is not believed. @param code what Node calls it. */
export function certificateRefusal(code: string): AbdmError {
  return new AbdmError('UNAUTHENTICATED', `your certificate is not believed here: ${reason(code, '')} (${code})`);
}

/** Why who spoke plain words to a listener that wants TLS is not let in. */
export function plainRefusal(address: Address): AbdmError {
  const text = `${formatAddress(address)} takes members of its cluster only: give --key, or --tls-cert, --tls-key and --tls-ca`;
  return new AbdmError('UNAUTHENTICATED', text);
}

const REASONS: readonly (readonly [RegExp, string])[] = [
  [/BINDER/, 'the cluster keys differ: give the same --key to both'],
  [
    /WRONG_VERSION|PACKET_LENGTH|UNEXPECTED_MESSAGE|RECORD_TYPE/,
    'one of them does not speak TLS: was it started without --key?',
  ],
  [/EXPIRED/, 'the certificate has expired: renew it'],
  [/NOT_YET_VALID/, 'the certificate is not valid yet: compare the clocks'],
  [
    /ISSUER_CERT|LEAF_SIGNATURE|SELF_SIGNED|UNTRUSTED/,
    'there is no certificate, or another CA signed it: compare --tls-ca',
  ],
  [/HTTP_REQUEST/, 'this is HTTP'],
];

function reason(code: string, message: string): string {
  const known = REASONS.find(([pattern]) => pattern.test(code));
  if (known) return known[1];
  return code.includes('ALERT') ? 'compare --key, or the certificates and --tls-ca, of both' : message;
}

function pskOf(security: Security): Uint8Array {
  const psk = subKey(security, LABEL);
  if (psk === null) throw new AbdmError('INTERNAL', 'TLS without a key');
  return psk;
}
