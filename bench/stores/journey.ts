// One VM that is parked at whoever keeps frames, and taken in when its source has ended; what that took.
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Role } from '../faults/role.js';
import type { Network } from '../network/namespaces.js';
import { Servers } from './servers.js';

/** Who keeps the frames: one of ours, or one server of a store. */
export const SIDES = ['intermediate', 'valkey', 'redis', 'memcached'] as const;
export type Side = (typeof SIDES)[number];

export interface Took {
  readonly exitMs: number;
  readonly mergeMs: number;
  readonly sourceCpuS: number;
  readonly destinationCpuS: number;
}

/** On hosts `source`, `store` and `destination`. @throws {Error} unless it completes. */
export async function journey(network: Network, side: Side, image: string, keyFile: string): Promise<Took> {
  const directory = mkdtempSync(join(image, '..', 'run-'));
  const roles: Role[] = [];
  const start = (host: string, args: readonly string[]) => {
    const log = join(directory, `${host}.log`);
    const role = new Role(host, [...args, '--key', keyFile], log, { XDG_RUNTIME_DIR: directory }, network.on(host));
    roles.push(role);
    return role;
  };
  const completed = async (host: string, args: readonly string[]) => {
    const role = start(host, args);
    await role.ended;
    if (role.summary?.outcome === 'completed') return role.summary;
    throw new Error(`it did not complete: ${JSON.stringify(role.summary?.reason ?? role.events.at(-1))}`);
  };
  const servers = new Servers(directory, { host: network.address('store'), launcher: network.on('store') });
  try {
    const room = Math.max(2 ** 27, 2 * statSync(image).size);
    const keeper = await keeperOf(side, room, servers, (args) => start('store', args), network.address('store'));
    const both = ['--vm-key', join(directory, 'vm.key'), ...keeper];
    const left = await completed('source', ['eject', `a=file:${image}`, '--park', '--compress', 'none', ...both]);
    const arrived = await completed('destination', ['merge', `a=file:${join(directory, 'out')}`, '--parked', ...both]);
    return {
      exitMs: left.exitTimeMs!,
      mergeMs: arrived.totalMigrationTimeMs!,
      sourceCpuS: left.cpuSeconds,
      destinationCpuS: arrived.cpuSeconds,
    };
  } finally {
    for (const role of roles) role.signal('SIGKILL');
    await Promise.all([servers.end(), ...roles.map(({ ended }) => ended)]);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Starts it, and says what the others are told of it. */
async function keeperOf(
  side: Side,
  room: number,
  servers: Servers,
  start: (args: readonly string[]) => Role,
  host: string,
): Promise<string[]> {
  if (side === 'intermediate') {
    const node = start(['intermediate', '--listen', `${host}:7000`, '--memory', String(room)]);
    return ['--intermediates', await node.address()];
  }
  if (side === 'memcached') {
    const { address } = await servers.memcached('-M', '-m', String(Math.ceil(room / 2 ** 20)));
    return ['--store', `memcached://${address}`];
  }
  return ['--store', `valkey://${(await servers.redis(`${side}-server`)).address}`];
}
