// HOST:PORT, as people type it and as we print it. An IPv6 address stands in brackets, else its colons could not be told from the port's.

import { isIPv6 } from 'node:net';
import { AbdmError } from '../../bindings/errors.js';

/** Where somebody listens. */
export interface Address {
  /** A name, an IPv4 address, or an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
}

/**
 * @param minPort 0 where somebody listens (any free port), 1 where somebody connects.
 * @throws {AbdmError} `USAGE` with what is wrong and what it should look like.
 */
export function parseAddress(text: string, minPort: 0 | 1 = 0): Address {
  const bracketed = /^\[([^\]]*)\]:(\d{1,5})$/.exec(text);
  const plain = /^([^:[\]\s/@]+):(\d{1,5})$/.exec(text);
  const host = bracketed?.[1] ?? plain?.[1];
  const port = Number(bracketed?.[2] ?? plain?.[2]);
  if (bracketed && !isIPv6(host ?? '')) throw bad(text, 'what stands in brackets is not an IPv6 address');
  if (!bracketed && isIPv6(text)) throw bad(text, 'an IPv6 address needs brackets and a port');
  if (host === undefined) throw bad(text, 'this is not HOST:PORT');
  if (host.length > 253) throw bad(`${text.slice(0, 40)}...`, 'the name is too long');
  if (port > 65535 || port < minPort) throw bad(text, `the port is not in ${minPort}..65535`);
  return { host, port };
}

/** The scheme of a store's address, such as `valkey` of valkey://10.0.0.7:6379; null: it is none. */
export function storeScheme(text: string): string | null {
  return /^([a-z][a-z0-9+.-]{0,31}):\/\//.exec(text)?.[1] ?? null;
}

/**
 * Checks what says where blocks are kept: HOST:PORT, or the address of a store, with nobody's password in it.
 * @throws {AbdmError} `USAGE` with what is wrong.
 */
export function checkKeeperAddress(text: string): void {
  if (storeScheme(text) === null) parseAddress(text, 1);
  else if (!/^[!-?A-~]{1,300}$/.test(text)) {
    throw new AbdmError('USAGE', `the address of a store is printable, has no '@' and at most 300 characters`);
  }
}

/** The inverse of {@link parseAddress}. */
export function formatAddress(address: Address): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Whether what is sent there cannot leave this machine: 127.0.0.0/8, ::1 and `localhost`. Other names are not looked up. */
export function isLoopback(host: string): boolean {
  return (
    /^(::ffff:)?127(\.\d{1,3}){3}$/i.test(host) || /^(0*:){2,7}0*1$/.test(host) || host.toLowerCase() === 'localhost'
  );
}

function bad(text: string, why: string): AbdmError {
  return new AbdmError('USAGE', `address '${text}': ${why}; write 10.0.0.7:7000, a.example:7000 or [::1]:7000`);
}
