// What all commands that speak to other hosts take: who secures their connections, and where they hear of each other.

import { isSecured, type Security } from '../wire/security.js';
import { loadSecurity } from './load.js';
import type { Output } from './output.js';

export interface ClusterFlags {
  /** The file with the cluster's key. */
  readonly key?: string;
  /** Files with PEM: this host's certificate, its key, and who signs them. */
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  /** Where announcements go to and come from; empty: nowhere. */
  readonly announcements?: readonly string[];
}

/** Reads the files, and says what follows from having none. @throws {AbdmError} USAGE if one is wrong or missing. */
export function openSecurity(output: Output, { key, tlsCert, tlsKey, tlsCa }: ClusterFlags): Security {
  const { warnings, ...security } = loadSecurity({
    ...(key !== undefined && { keyFile: key }),
    ...(tlsCert !== undefined && { tlsCert }),
    ...(tlsKey !== undefined && { tlsKey }),
    ...(tlsCa !== undefined && { tlsCa }),
  });
  for (const warning of warnings) output.notice(warning);
  if (!isSecured(security)) {
    output.notice('no --key and no certificates: everything stays on this host, on loopback (abdm keygen makes a key)');
  }
  return security;
}
