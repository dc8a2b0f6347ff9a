// Where migrations run: networks, files in memory, and the processes of each run. All of it is gone at every end of this process but that by SIGKILL; the
// logs of a run that failed stay.
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PAGE_BYTES } from 'abdm';
import { formatBytes } from '#abdm/host/cli/sizes.js';
import { Role } from '../faults/role.js';
import { type Host, Network } from '../network/namespaces.js';
import { createRecipe } from '../pages.js';
import { keepMemory } from '../reservoir.js';
import type { Setting } from './point.js';

/** Duplicates are found within so many pages. */
const WINDOW_PAGES = 2048;
/** The recipe's supplies go round if they have fewer: enough that they need not often. */
const SUPPLY_PAGES = 65_536;

/** The processes' own, the mix and what the kernel has of files and sockets come on top of the largest run's memory. */
const MORE = 1.5;

const running = new Set<Role>();

export class World {
  /** In memory, where there is such a place: no disk is measured. */
  readonly memory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `abdm-figures-${process.pid}-`));
  readonly logs = mkdtempSync(join(tmpdir(), 'abdm-figures-logs-'));
  readonly keyFile = join(this.memory, 'key');
  /** Of runs that failed: they stay. */
  #hasLogs = false;
  readonly #networks = new Map<string, Network>();
  #mix: { readonly path: string; readonly bytes: number } | null = null;
  #runs = 0;

  constructor() {
    process.on('exit', () => {
      for (const role of running) role.signal('SIGKILL');
      rmSync(this.memory, { recursive: true, force: true });
      if (!this.#hasLogs) rmSync(this.logs, { recursive: true, force: true });
    });
    writeFileSync(this.keyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  }

  /**
   * Makes sure of the memory of guests and nodes, here all on one machine.
   * @throws {Error} if it would not fit.
   */
  takeRoom(settings: readonly Setting[]): void {
    const { bavail, bsize } = statfsSync(this.memory);
    const free = Math.min(bavail * bsize, process.availableMemory());
    // At its source, where it goes, and what nodes keep or the content is read from.
    const needed = Math.max(...settings.map(({ vms, vmBytes }) => 3 * vms * vmBytes));
    if (needed > free) {
      throw new Error(
        `the largest run needs ${formatBytes(needed)} of memory, ${formatBytes(free)} are free: take a smaller --size`,
      );
    }
    keepMemory(needed * MORE);
  }

  /** Hosts with cards as fast as these. Networks of one figure stay until `closeNetworks`. */
  network({ source, nodes, destination }: Pick<Setting, 'source' | 'nodes' | 'destination'>): Network {
    const name = [source, ...nodes, destination].join();
    const known = this.#networks.get(name);
    if (known) return known;
    const hosts: Host[] = nodes.map((bitsPerS, i) => ({ name: nodeName(i), bitsPerS }));
    hosts.push({ name: 'source', bitsPerS: source }, { name: 'destination', bitsPerS: destination });
    const network = new Network(hosts);
    this.#networks.set(name, network);
    return network;
  }

  closeNetworks(): void {
    for (const network of this.#networks.values()) network.close();
    this.#networks.clear();
  }

  /** A file with the mix of the other benchmarks, at least so large. */
  async mix(bytes: number): Promise<string> {
    if (this.#mix && this.#mix.bytes >= bytes) return this.#mix.path;
    const path = join(this.memory, 'mix');
    const pages = Math.ceil(bytes / PAGE_BYTES);
    const recipe = await createRecipe(Math.min(pages, SUPPLY_PAGES), WINDOW_PAGES);
    const file = openSync(path, 'w');
    for (const window of recipe.windows(Math.ceil(pages / WINDOW_PAGES))) writeSync(file, window);
    closeSync(file);
    this.#mix = { path, bytes };
    return path;
  }

  /** The processes of another run. */
  run(name: string, network: Network): Processes {
    const unique = `${++this.#runs}`;
    const [memory, logs] = [
      join(this.memory, unique),
      join(this.logs, `${unique} ${name}`.replaceAll(/[^\w.]+/g, '-')),
    ];
    for (const directory of [memory, logs]) mkdirSync(directory, { mode: 0o700 });
    return new Processes(network, memory, logs, this.keyFile);
  }

  keepLogs(): void {
    this.#hasLogs = true;
  }
}

export const nodeName = (i: number) => `node${i + 1}`;

/** All of one run; what is started here ends with it. */
export class Processes {
  readonly network: Network;
  /** For sockets and the memory of guests. */
  readonly memory: string;
  readonly logs: string;
  readonly #keyFile: string;
  readonly #roles: Role[] = [];

  constructor(network: Network, memory: string, logs: string, keyFile: string) {
    this.network = network;
    this.memory = memory;
    this.logs = logs;
    this.#keyFile = keyFile;
  }

  /** One that others reach, or that reaches them. */
  start(host: string, name: string, args: readonly string[]): Role {
    return this.#start(host, name, [...args, '--key', this.#keyFile]);
  }

  /** A guest, or who asks one. */
  guest(host: string, name: string, args: readonly string[]): Role {
    return this.#start(host, name, ['guest', ...args]);
  }

  async close(): Promise<void> {
    for (const role of this.#roles) role.signal('SIGKILL');
    await Promise.all(this.#roles.map(({ ended }) => ended));
    for (const role of this.#roles) running.delete(role);
    rmSync(this.memory, { recursive: true, force: true });
  }

  removeLogs(): void {
    rmSync(this.logs, { recursive: true, force: true });
  }

  #start(host: string, name: string, args: readonly string[]): Role {
    // As if on hosts of their own: nobody finds the others' roles.
    const runtime = join(this.memory, host);
    mkdirSync(runtime, { recursive: true, mode: 0o700 });
    const env = { XDG_RUNTIME_DIR: runtime };
    const role = new Role(name, args, join(this.logs, `${name}.log`), env, this.network.on(host));
    this.#roles.push(role);
    running.add(role);
    return role;
  }
}
