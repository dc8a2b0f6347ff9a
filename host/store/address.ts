// Where a store is, as people type it, and as it is printed, recorded and told to others: without anybody's password.
//
//   valkey://HOST:PORT,HOST:PORT/DB          one server, or some of a cluster's; redis:// is the same
//   valkeys://USER:PASSWORD@HOST:PORT        over TLS; rediss:// is the same
//   memcached://HOST:PORT                    one server; more of them are stores of their own
//
// Passwords stay in this process: each host is given them by itself.

import { AbdmError } from '../../bindings/errors.js';
import { type Address, formatAddress, parseAddress, storeScheme } from '../wire/address.js';

/** A user, and what proves that it is him. */
export interface Login {
  readonly user: string;
  readonly password: string;
}

/** A store's address, taken apart. */
export interface StoreAddress {
  readonly text: string;
  readonly scheme: string;
  readonly tls: boolean;
  readonly hosts: readonly Address[];
  /** The number of its database. */
  readonly database: number;
  readonly login: Login | null;
}

const PORTS: Readonly<Record<string, number>> = {
  redis: 6379,
  valkey: 6379,
  rediss: 6379,
  valkeys: 6379,
  memcached: 11211,
};
const TLS: ReadonlySet<string> = new Set(['rediss', 'valkeys']);
export const SCHEMES: readonly string[] = Object.keys(PORTS);

/** By the address without them. */
const logins = new Map<string, Login>();

/**
 * What people write, as addresses under which the stores are used from now on: one, or one for each memcached.
 * @throws {AbdmError} USAGE.
 */
export function parseStore(text: string): string[] {
  const scheme = storeScheme(text);
  // Of our own drivers only; how others' addresses look is theirs to say.
  if (scheme === null || !(scheme in PORTS)) {
    if (scheme !== null) return [text];
    throw bad('this does not begin with the kind of a store');
  }
  const rest = text.slice(scheme.length + 3);
  const at = rest.lastIndexOf('@');
  const [, hosts, database] = /^([^/]*)(?:\/(\d{1,6}))?\/?$/.exec(rest.slice(at + 1)) ?? [];
  if (!hosts) throw bad('it names no host');
  if (database !== undefined && scheme === 'memcached') throw bad('memcached has no databases');
  const parsed = hosts.split(',').map((host) => {
    const bare = /^\[[^\]]*\]$|^[^:[\]]+$/.test(host);
    return formatAddress(parseAddress(bare ? `${host}:${PORTS[scheme]}` : host, 1));
  });
  const lists = scheme === 'memcached' ? parsed.map((host) => [host]) : [parsed];
  const addresses = lists.map((list) => `${scheme}://${list.join(',')}${database ? `/${database}` : ''}`);
  if (at >= 0) {
    const [user, ...password] = rest.slice(0, at).split(':');
    for (const address of addresses) logins.set(address, decoded(user!, password.join(':')));
  }
  return addresses;
}

/** The inverse of `parseStore`, of one of its addresses. @throws {AbdmError} USAGE. */
export function storeAddress(text: string): StoreAddress {
  const [, scheme, hosts, database] = /^([a-z]+):\/\/([^/@]+)(?:\/(\d{1,6}))?$/.exec(text) ?? [];
  if (scheme === undefined || !(scheme in PORTS)) throw bad(`'${text}' is not one that is known here`);
  return {
    text,
    scheme,
    tls: TLS.has(scheme),
    hosts: hosts!.split(',').map((host) => parseAddress(host, 1)),
    database: Number(database ?? 0),
    login: logins.get(text) ?? null,
  };
}

function decoded(user: string, password: string): Login {
  try {
    return { user: decodeURIComponent(user), password: decodeURIComponent(password) };
  } catch {
    throw bad('in a user or password a % must be written as %25');
  }
}

// Never what was typed: there may be a password in it.
function bad(why: string): AbdmError {
  const examples = 'valkey://10.0.0.7:6379, rediss://user:password@a.example, memcached://a,b,c';
  return new AbdmError('USAGE', `address of a store: ${why}; write ${examples}`);
}
