// The client library (ioredis), which is loaded only here, and only when such a store is named: it finds a cluster's servers, follows them when they
// change, and proves who we are.

import type { Cluster, Redis, RedisOptions } from 'ioredis';
import { AbdmError } from '../../../bindings/errors.js';
import { formatAddress } from '../../wire/address.js';
import type { StoreAddress } from '../address.js';
import type { EngineOptions } from '../engine.js';

const RETRY_MS = 100;
/** A command that is not answered for so long is asked again, perhaps of another server. */
const SILENT_MS = 5_000;

type Login = Pick<RedisOptions, 'connectTimeout' | 'commandTimeout' | 'tls' | 'username' | 'password'>;

/** One server, or a cluster of them. */
export interface Client {
  readonly redis: Redis | Cluster;
  readonly cluster: Cluster | null;
}

/** @throws {AbdmError} USAGE, UNAUTHENTICATED, PEER_UNREACHABLE. */
export async function connect(address: StoreAddress, options: EngineOptions): Promise<Client> {
  const library = await load();
  const single = await connectSingle(library, address, options);
  try {
    const info = parseInfo(await single.info());
    if (info.get('cluster_enabled') !== '1') {
      if (address.hosts.length > 1) throw usage(address, 'it names more than one server, and they are no cluster');
      if (info.get('role') !== 'master') throw usage(address, 'this server is a replica: name its primary');
      return { redis: single, cluster: null };
    }
    if (address.database !== 0) throw usage(address, 'a cluster has no other database than 0');
  } catch (error) {
    single.disconnect();
    throw error instanceof AbdmError ? error : told(address, error);
  }
  single.disconnect();
  const cluster = new library.Cluster([...address.hosts], {
    lazyConnect: true,
    // Commands that go out together are not redirected one by one: while slots move, some of them would be asked in vain again and again.
    enableAutoPipelining: false,
    clusterRetryStrategy: () => RETRY_MS,
    retryDelayOnFailover: RETRY_MS,
    slotsRefreshTimeout: options.timeoutMs,
    redisOptions: redisOptions(address, options),
  });
  await ready(cluster, address, options);
  return { redis: cluster, cluster };
}

/** What INFO says, by its names. */
export function parseInfo(text: string): Map<string, string> {
  const info = new Map<string, string>();
  for (const line of text.split('\r\n')) {
    const at = line.indexOf(':');
    if (at > 0) info.set(line.slice(0, at), line.slice(at + 1));
  }
  return info;
}

/** What a failure of the library means. */
export function told(address: StoreAddress, cause: unknown): AbdmError {
  const message = cause instanceof Error ? cause.message : String(cause);
  if (/\b(NOAUTH|WRONGPASS|NOPERM)\b|invalid password|without any password/.test(message)) {
    const hint = 'give a user and password that may use keys that begin with abdm:, in --store or ABDM_STORE';
    return new AbdmError('UNAUTHENTICATED', `${address.text} does not let us in: ${message}; ${hint}`);
  }
  if (/certificate/i.test(message)) {
    const hint = 'name the CA that has signed it in NODE_EXTRA_CA_CERTS';
    return new AbdmError('UNAUTHENTICATED', `${address.text} is not trusted: ${message}; ${hint}`);
  }
  return new AbdmError('PEER_UNREACHABLE', `${address.text}: ${message}`);
}

export function usage({ text }: StoreAddress, why: string): AbdmError {
  return new AbdmError('USAGE', `${text}: ${why}`);
}

async function load() {
  try {
    return await import('ioredis');
  } catch (cause) {
    throw new AbdmError('USAGE', 'stores of Valkey and Redis need the package ioredis: npm install ioredis', { cause });
  }
}

type Library = Awaited<ReturnType<typeof load>>;

/** The first that answers. */
async function connectSingle(library: Library, address: StoreAddress, options: EngineOptions): Promise<Redis> {
  let why: unknown;
  for (const host of address.hosts) {
    const redis = new library.Redis({
      ...redisOptions(address, options),
      ...host,
      db: address.database,
      lazyConnect: true,
      enableAutoPipelining: true,
      retryStrategy: () => RETRY_MS,
      maxRetriesPerRequest: null,
    });
    try {
      await ready(redis, address, options);
      return redis;
    } catch (error) {
      why = error;
    }
    if (options.signal?.aborted) break;
  }
  throw why;
}

async function ready(client: Redis | Cluster, address: StoreAddress, { timeoutMs, signal }: EngineOptions) {
  let last: unknown = null;
  const over = new AbortController();
  const where = address.hosts.map(formatAddress).join(', ');
  const stopped = new Promise<never>((_, reject) => {
    // Without a listener the library writes to the console; later failures are those of commands.
    client.on('error', (error: unknown) => {
      last = error;
      // It would be tried again and again.
      if (told(address, error).code === 'UNAUTHENTICATED') reject(error);
    });
    const late = () => reject(new Error(`${where} has not answered within ${timeoutMs} ms`));
    const timer = setTimeout(late, timeoutMs);
    over.signal.addEventListener('abort', () => clearTimeout(timer));
    signal?.addEventListener('abort', () => reject(signal.reason), { signal: over.signal });
  });
  try {
    await Promise.race([client.connect(), stopped]);
  } catch (error) {
    client.disconnect();
    if (error instanceof AbdmError) throw error;
    throw told(address, last ?? error);
  } finally {
    over.abort();
  }
}

function redisOptions({ tls, login }: StoreAddress, { timeoutMs }: EngineOptions): Login {
  return {
    connectTimeout: timeoutMs,
    commandTimeout: SILENT_MS,
    ...(tls && { tls: {} }),
    ...(login?.user && { username: login.user }),
    ...(login && { password: login.password }),
  };
}
