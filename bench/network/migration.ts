// One migration over a shaped network, or over loopback, with processes of its own; what it took.
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Role } from '../faults/role.js';
import type { Network } from './namespaces.js';

export interface Setting {
  /** Null: loopback. */
  readonly network: Network | null;
  /** How many intermediates; 0: a direct migration. */
  readonly nodes: number;
  readonly replicas?: number;
  /** Of the cluster; null: none, which only loopback allows. */
  readonly keyFile: string | null;
  readonly image: string;
}

/** What a migration took. */
export interface Took {
  readonly exitMs: number;
  readonly totalMs: number;
  /** What left the source. */
  readonly wireBytes: number;
  readonly sourceCpuS: number;
}

const PORT = 7000;

export async function migrate({ network, nodes, replicas = 1, keyFile, image }: Setting): Promise<Took> {
  const directory = mkdtempSync(join(image, '..', 'run-'));
  const roles: Role[] = [];
  const start = (host: string, args: readonly string[]) => {
    const all = [...args, ...(keyFile ? ['--key', keyFile] : [])];
    const role = new Role(host, all, join(directory, `${host}.log`), { XDG_RUNTIME_DIR: directory }, network?.on(host));
    roles.push(role);
    return role;
  };
  const at = (host: string) => (network ? `${network.address(host)}:${PORT}` : '127.0.0.1:0');
  try {
    const memory = String(Math.max(2 ** 25, 2 * statSync(image).size));
    const names = Array.from({ length: nodes }, (_, i) => `node${i + 1}`);
    const started = names.map((name) => start(name, ['intermediate', '--listen', at(name), '--memory', memory]));
    const addresses = await Promise.all(started.map((node) => node.address()));
    const out = join(directory, 'out');
    const destination = start('destination', ['merge', `a=file:${out}`, '--listen', at('destination')]);
    const to = await destination.address();
    const via = nodes > 0 ? ['--intermediates', addresses.join(',')] : ['--direct'];
    const copies = replicas > 1 ? ['--replicas', String(replicas)] : [];
    const source = start('source', ['eject', `a=file:${image}`, '--to', to, ...via, ...copies]);
    await Promise.all([source.ended, destination.ended]);
    const [left, arrived] = [source.summary, destination.summary];
    if (left?.outcome !== 'completed' || arrived?.outcome !== 'completed') {
      const reason = left?.reason ?? arrived?.reason ?? source.events.at(-1);
      throw new Error(`a migration did not complete: ${JSON.stringify(reason)}`);
    }
    return {
      exitMs: left.exitTimeMs!,
      totalMs: arrived.totalMigrationTimeMs!,
      wireBytes: left.wireBytes.source!,
      sourceCpuS: left.cpuSeconds,
    };
  } finally {
    for (const role of roles) role.signal('SIGKILL');
    await Promise.all(roles.map(({ ended }) => ended));
    rmSync(directory, { recursive: true, force: true });
  }
}
