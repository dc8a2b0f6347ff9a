// Certificates for tests, made on the spot: as little of X.509 as TLS needs, in DER, signed with P-256.
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

const der = (tag: number, ...parts: Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  const n = body.byteLength;
  const length = n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255];
  return Buffer.concat([Uint8Array.of(tag, ...length), body]);
};
const sequence = (...parts: Uint8Array[]) => der(0x30, ...parts);
const oid = (hex: string) => der(0x06, Buffer.from(hex, 'hex'));
const ECDSA_SHA256 = sequence(oid('2a8648ce3d040302'));
const COMMON_NAME = oid('550403');
const BASIC_CONSTRAINTS = oid('551d13');

const name = (text: string) => sequence(der(0x31, sequence(COMMON_NAME, der(0x0c, Buffer.from(text)))));
const time = (ms: number) =>
  der(0x18, Buffer.from(`${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`));
const pem = (bytes: Uint8Array) =>
  `-----BEGIN CERTIFICATE-----\n${Buffer.from(bytes).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;

const DAY_MS = 86_400_000;

export interface Pair {
  /** PEM. */
  cert: string;
  /** PEM, PKCS 8. */
  key: string;
}

/** Somebody who signs certificates. */
export class Authority {
  readonly cert: string;
  readonly #name: string;
  readonly #key: KeyObject;

  constructor(label: string) {
    this.#name = label;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#key = privateKey;
    this.cert = this.#sign(label, publicKey, true, [-DAY_MS, 365 * DAY_MS]);
  }

  /** A certificate and its key. @param days when it is valid, relative to now. */
  issue(subject: string, days: readonly [number, number] = [-1, 30]): Pair {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
    return { cert: this.#sign(subject, publicKey, false, [days[0] * DAY_MS, days[1] * DAY_MS]), key };
  }

  #sign(subject: string, publicKey: KeyObject, isCa: boolean, [from, to]: readonly [number, number]): string {
    const serial = randomBytes(8);
    serial[0] = 1;
    const constraints = sequence(isCa ? der(0x01, Uint8Array.of(255)) : new Uint8Array(0));
    const signed = sequence(
      der(0xa0, der(0x02, Uint8Array.of(2))),
      der(0x02, serial),
      ECDSA_SHA256,
      name(this.#name),
      sequence(time(Date.now() + from), time(Date.now() + to)),
      name(subject),
      publicKey.export({ type: 'spki', format: 'der' }) as Buffer,
      der(0xa3, sequence(sequence(BASIC_CONSTRAINTS, der(0x01, Uint8Array.of(255)), der(0x04, constraints)))),
    );
    const signature = sign('sha256', signed, this.#key);
    return pem(sequence(signed, ECDSA_SHA256, der(0x03, Uint8Array.of(0), signature)));
  }
}
