// What a block costs between where it lies and the socket, and back: CPU time of this process, which puts blocks at each keeper in turn, and gets them, over
// loopback. `library` is the same by ioredis alone, without the connections of our own that store/redis/ has for blocks.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { dial } from '#abdm/host/mam/dial.js';
import { Sealer } from '#abdm/host/mam/seal.js';
import { parseStore } from '#abdm/host/store/index.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { Role } from '../faults/role.js';
import { type Spread, spread } from '../statistics.js';
import { has, Servers } from './servers.js';

/** A frame of 64 pages, most of which cannot be compressed. */
const BLOCK_BYTES = 240_000;
const BLOCKS = 512;
/** As many as are on their way in a migration. */
const PUTS = 16;
const GETS = 6;
const LEASE_MS = 120_000;
const GIB = 2 ** 30;

interface Line {
  readonly type: 'path';
  readonly keeper: string;
  readonly rounds: number;
  /** CPU seconds per GiB; median and quartiles. */
  readonly put: Spread;
  readonly get: Spread;
  /** Of the rounds: by a node of ours. */
  readonly putRatio: Spread;
  readonly getRatio: Spread;
}

interface Path {
  put(id: number, block: Uint8Array): Promise<void>;
  get(id: number, into: Uint8Array): Promise<void>;
  end(): Promise<void>;
}

/** By way of what a migration uses. */
async function keeperPath(address: string): Promise<Path> {
  const migration = randomBytes(16).toString('hex');
  const keeper = await dial(address, { migration, role: 'source', security: OPEN });
  return {
    put: async (id, block) => {
      const result = await keeper.put(id, block, [], { deadlineMs: 10_000 });
      if (!result.stored) throw new Error(result.message);
    },
    get: async (id, into) => void (await keeper.get(id, into, { deadlineMs: 10_000 })),
    end: async () => {
      await keeper.drop();
      keeper.end();
    },
  };
}

/** By way of the library alone. */
async function libraryPath(port: number): Promise<Path> {
  const redis = new Redis({ port, enableAutoPipelining: true });
  return {
    put: async (id, block) => void (await redis.set(`bench:${id}`, Buffer.from(block.buffer), 'PX', LEASE_MS, 'NX')),
    get: async (id, into) => into.set((await redis.getBuffer(`bench:${id}`))!),
    end: async () => {
      await redis.flushall();
      redis.disconnect();
    },
  };
}

async function cpuSPerGiB(atATime: number, work: (id: number) => Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  let next = 1;
  const worker = async () => {
    while (next <= BLOCKS) await work(next++);
  };
  await Promise.all(Array.from({ length: atATime }, worker));
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6 / ((BLOCKS * BLOCK_BYTES) / GIB);
}

/** @param directory for what servers and nodes need. */
export async function measurePaths(directory: string, rounds: number): Promise<Line[]> {
  const servers = new Servers(directory);
  const env = { ABDM_ANNOUNCEMENTS: 'none', XDG_RUNTIME_DIR: directory };
  const memory = String(4 * BLOCKS * BLOCK_BYTES);
  const node = new Role(
    'node',
    ['intermediate', '--listen', '127.0.0.1:0', '--memory', memory],
    join(directory, 'node.log'),
    env,
  );
  try {
    const paths = new Map<string, () => Promise<Path>>();
    const address = await node.address();
    paths.set('intermediate', () => keeperPath(address));
    const add = (name: string, url: string) => paths.set(name, () => keeperPath(parseStore(url)[0]!));
    for (const program of ['valkey-server', 'redis-server'] as const) {
      if (!has(program)) continue;
      const { port } = await servers.redis(program);
      add(program.split('-')[0]!, `valkey://127.0.0.1:${port}`);
      paths.set('library', () => libraryPath(port));
    }
    if (has('memcached')) add('memcached', `memcached://${(await servers.memcached('-M', '-m', '1024')).address}`);
    return await takeTurns(paths, rounds);
  } finally {
    node.signal('SIGTERM');
    await Promise.all([node.ended, servers.end()]);
  }
}

async function takeTurns(paths: ReadonlyMap<string, () => Promise<Path>>, rounds: number): Promise<Line[]> {
  const sealer = await Sealer.create(randomBytes(32), 1);
  const body = randomBytes(BLOCK_BYTES);
  const blocks = Array.from({ length: BLOCKS }, (_, i) => {
    const block = sealer.seal(i + 1, body);
    const bytes = block.bytes.slice();
    block.release();
    return bytes;
  });
  const rooms = Array.from({ length: GETS }, () => new Uint8Array(2 * BLOCK_BYTES));
  const names = [...paths.keys()];
  const took = new Map(names.map((name) => [name, { put: [] as number[], get: [] as number[] }]));
  // The first round is not counted: it warms up.
  for (let round = 0; round <= rounds; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(round + i) % names.length]!;
      const path = await paths.get(name)!();
      const put = await cpuSPerGiB(PUTS, (id) => path.put(id, blocks[id - 1]!));
      const get = await cpuSPerGiB(GETS, async (id) => {
        const room = rooms.pop()!;
        await path.get(id, room);
        rooms.push(room);
      });
      await path.end();
      if (round === 0) continue;
      took.get(name)!.put.push(put);
      took.get(name)!.get.push(get);
    }
  }
  const own = took.get('intermediate')!;
  return [...took].map(([keeper, { put, get }]) => ({
    type: 'path',
    keeper,
    rounds,
    put: spread(put),
    get: spread(get),
    putRatio: spread(put.map((one, i) => one / own.put[i]!)),
    getRatio: spread(get.map((one, i) => one / own.get[i]!)),
  }));
}
