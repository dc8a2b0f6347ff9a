// Stores, as people name them to abdm, on servers of our own: each is what it is with `left` values in it.
import { type ClusterServers, cli, itemsOf, keysOf, type RedisProgram, type Server, type Servers } from './servers.js';

/** A store, what is left in it, and its servers. */
export interface Store {
  /** As `--store` takes them. */
  readonly urls: readonly string[];
  readonly servers: readonly Server[];
  /** Values that those of its servers have that run. */
  left(): Promise<number>;
}

/** Primaries, each with a replica. */
export interface ClusterStore extends Store, ClusterServers {}

const at = (servers: readonly Server[]) => servers.map(({ port }) => `127.0.0.1:${port}`).join();
const living = (servers: readonly Server[]) => servers.filter(({ lives }) => lives);
const sum = (counts: readonly number[]) => counts.reduce((all, one) => all + one, 0);

/** One server of Valkey or Redis. */
export async function single(servers: Servers, program: RedisProgram, ...options: string[]): Promise<Store> {
  const server = await servers.redis(program, ...options);
  return { urls: [`valkey://${at([server])}`], left: async () => keysOf(server.port), servers: [server] };
}

/** Three primaries of Valkey, with so many replicas each. */
export async function cluster(servers: Servers, replicasEach = 1): Promise<ClusterStore> {
  const { primaries, replicas } = await servers.cluster('valkey-server', replicasEach);
  const all = [...primaries, ...replicas];
  const holdsSlots = ({ port }: Server) => /role:master/.test(cli(port, 'INFO', 'replication'));
  const left = async () =>
    sum(
      living(all)
        .filter(holdsSlots)
        .map(({ port }) => keysOf(port)),
    );
  return { urls: [`redis://${at(all)}`], left, servers: all, primaries, replicas };
}

/** Three of them. */
export async function memcached(servers: Servers): Promise<Store> {
  const all = await Promise.all([1, 2, 3].map(() => servers.memcached('-M', '-m', '1024')));
  const left = async () => sum(await Promise.all(living(all).map(({ port }) => itemsOf(port))));
  return { urls: [`memcached://${at(all)}`], left, servers: all };
}
