// What all commands that speak to other hosts take: who secures their connections, and where they hear of each other.

import { parseAddress } from '../wire/address.js';
import { checkReach } from '../wire/connect.js';
import { isSecured, loadSecurity, type Security } from '../wire/security.js';
import type { Output } from './output.js';

export interface ClusterFlags {
  /** The file with the cluster's key. */
  readonly key?: string;
  /** Files with PEM: this host's certificate, its key, and who signs them. */
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  /** HOST:PORT of those who are spoken to. */
  readonly to?: string;
  readonly intermediates?: string[];
  /** Addresses of stores, without passwords. */
  readonly store?: string[];
  /** Where announcements go to and come from; empty: nowhere. */
  readonly announcements?: readonly string[];
}

/** The nodes and stores that are named; undefined: none is. */
export function namedKeepers({ intermediates, store }: ClusterFlags): string[] | undefined {
  return intermediates || store ? [...(intermediates ?? []), ...(store ?? [])] : undefined;
}

/**
 * Reads the files, and says what follows from having none.
 * @throws {AbdmError} USAGE if one is wrong or missing; or if there is none, and somebody is to be spoken to who is not on this host.
 */
export function openSecurity(output: Output, flags: ClusterFlags): Security {
  const { key, tlsCert, tlsKey, tlsCa, to, intermediates = [] } = flags;
  const { warnings, ...security } = loadSecurity({
    ...(key !== undefined && { keyFile: key }),
    ...(tlsCert !== undefined && { tlsCert }),
    ...(tlsKey !== undefined && { tlsKey }),
    ...(tlsCa !== undefined && { tlsCa }),
  });
  for (const warning of warnings) output.notice(warning);
  for (const address of [...intermediates, ...(to === undefined ? [] : [to])])
    checkReach(parseAddress(address), security);
  if (!isSecured(security)) {
    output.notice('no --key and no certificates: everything stays on this host, on loopback (abdm keygen makes a key)');
  }
  return security;
}
