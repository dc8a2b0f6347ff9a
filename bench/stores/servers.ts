// Real servers of the stores that frames may be kept at, each with a directory of its own; ended by whoever started them.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket, connect as tcp } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether a program is installed here. */
export function has(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => existsSync(join(directory, program)));
}

/** Two programs that speak one protocol. */
export type RedisProgram = 'valkey-server' | 'redis-server';

/** Where servers run. */
export interface Site {
  readonly host: string;
  /** What comes before a command so that it runs there. */
  readonly launcher: readonly string[];
}

const HERE: Site = { host: '127.0.0.1', launcher: [] };

/** A process that listens on a port. */
export class Server {
  readonly port: number;
  readonly #site: Site;
  readonly #command: readonly string[];
  #process: ChildProcess | null = null;

  constructor(site: Site, port: number, command: readonly string[]) {
    this.#site = site;
    this.port = port;
    this.#command = [...site.launcher, ...command];
  }

  /** HOST:PORT */
  get address(): string {
    return `${this.#site.host}:${this.port}`;
  }

  /** It runs. */
  get lives(): boolean {
    return this.#process !== null && this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Starts it, again if it was killed: what it had is gone, but for what it knows of its cluster. */
  async start(): Promise<this> {
    const [program, ...options] = this.#command as [string, ...string[]];
    this.#process = spawn(program, options, { stdio: 'ignore' });
    for (let left = 100; !(await this.#listens()); left--) {
      if (!this.lives || left === 0) throw new Error(`${this.#command.join(' ')} does not run`);
      await sleep(50);
    }
    return this;
  }

  /** Ends it at once, as a crash would. */
  async kill(): Promise<void> {
    if (!this.lives) return;
    const gone = once(this.#process!, 'exit');
    this.#process!.kill('SIGKILL');
    await gone;
  }

  /** It does nothing any more, and keeps what it has. */
  stop(): void {
    this.#process!.kill('SIGSTOP');
  }

  /** It goes on. */
  resume(): void {
    this.#process!.kill('SIGCONT');
  }

  async #listens(): Promise<boolean> {
    const [launcher, ...on] = this.#site.launcher;
    if (launcher === undefined) return answers(this.port);
    return execFileSync(launcher, [...on, 'ss', '-Hltn', `sport = :${this.port}`]).byteLength > 0;
  }
}

/** A cluster's servers. */
export interface ClusterServers {
  readonly primaries: readonly Server[];
  readonly replicas: readonly Server[];
}

const SLOTS = 16_384;
const PRIMARIES = 3;

export class Servers {
  readonly #started: Server[] = [];
  readonly #directories: string[] = [];
  readonly #base: string;
  readonly #site: Site;

  /** @param base where their directories are made. */
  constructor(base = tmpdir(), site = HERE) {
    this.#base = base;
    this.#site = site;
  }

  async redis(program: RedisProgram, ...options: string[]): Promise<Server> {
    return this.#redisAt(program, await freePort(), ...options);
  }

  /** Over TLS only, with what is in these files. */
  async redisTls(program: RedisProgram, cert: string, key: string, ca: string): Promise<Server> {
    const port = await freePort();
    const tls = ['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', ca, '--tls-auth-clients', 'no'];
    return this.#redisAt(program, port, '--port', '0', '--tls-port', String(port), ...tls);
  }

  async memcached(...options: string[]): Promise<Server> {
    const port = await freePort();
    const user = process.getuid?.() === 0 ? ['-u', 'root'] : [];
    return this.#start(port, ['memcached', '-l', this.#site.host, '-p', String(port), ...user, ...options]);
  }

  /** Three primaries, with so many replicas each. */
  async cluster(program: RedisProgram, replicasEach = 1): Promise<ClusterServers> {
    const clustered = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', '--repl-diskless-sync-delay', '0'];
    const ports = await clusterPorts(PRIMARIES * (1 + replicasEach));
    const servers = await Promise.all(ports.map((port) => this.#redisAt(program, port, ...clustered)));
    const [primaries, replicas] = [servers.slice(0, PRIMARIES), servers.slice(PRIMARIES)];
    await introduce(primaries, replicas);
    return { primaries, replicas };
  }

  async end(): Promise<void> {
    await Promise.all(this.#started.splice(0).map((server) => server.kill()));
    for (const directory of this.#directories.splice(0)) rmSync(directory, { recursive: true, force: true });
  }

  #redisAt(program: RedisProgram, port: number, ...options: string[]): Promise<Server> {
    const directory = mkdtempSync(join(this.#base, 'abdm-redis-'));
    this.#directories.push(directory);
    const { host } = this.#site;
    const open = host === HERE.host ? [] : ['--protected-mode', 'no'];
    const always = ['--port', String(port), '--bind', host, ...open, '--dir', directory, '--save', ''];
    return this.#start(port, [program, ...always, ...options]);
  }

  #start(port: number, command: readonly string[]): Promise<Server> {
    const server = new Server(this.#site, port, command);
    this.#started.push(server);
    return server.start();
  }
}

/** Makes a cluster of servers that know nothing of each other, and waits until it is one. */
async function introduce(primaries: readonly Server[], replicas: readonly Server[]): Promise<void> {
  const all = [...primaries, ...replicas];
  const [first] = primaries as [Server];
  for (const [i, { port }] of primaries.entries()) {
    const [from, end] = [i, i + 1].map((n) => Math.floor((n * SLOTS) / primaries.length)) as [number, number];
    cli(port, 'CLUSTER', 'ADDSLOTSRANGE', String(from), String(end - 1));
  }
  for (const [i, { port }] of all.entries()) {
    cli(port, 'CLUSTER', 'SET-CONFIG-EPOCH', String(i + 1));
    if (i > 0) cli(port, 'CLUSTER', 'MEET', '127.0.0.1', String(first.port));
  }
  const known = ({ port }: Server) => Number(/cluster_known_nodes:(\d+)/.exec(cli(port, 'CLUSTER', 'INFO'))?.[1]);
  await until(() => all.every((server) => known(server) === all.length));
  for (const [i, { port }] of replicas.entries()) {
    const id = cli(primaries[i % primaries.length]!.port, 'CLUSTER', 'MYID');
    // It is heard of before it can be followed.
    await until(() => cli(port, 'CLUSTER', 'REPLICATE', id) === 'OK');
  }
  const inSync = ({ port }: Server) => cli(port, 'INFO', 'replication').match(/state=online/g)?.length ?? 0;
  const each = replicas.length / primaries.length;
  const ok = ({ port }: Server) => /cluster_state:ok/.test(cli(port, 'CLUSTER', 'INFO'));
  await until(() => primaries.every((server) => inSync(server) === each) && all.every(ok));
}

/** Each server's bus is at its port + 10000, and both lie below those that the system gives to whoever asks for any. */
async function clusterPorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = 10_000 + Math.floor(Math.random() * 12_000);
    if ((await isFree(port)) && (await isFree(port + 10_000))) ports.add(port);
  }
  return [...ports];
}

async function until(holds: () => boolean): Promise<void> {
  for (let left = 300; !holds(); left--) {
    if (left === 0) throw new Error('the servers do not become a cluster');
    await sleep(100);
  }
}

/** Either speaks to both. */
const client = () => (has('valkey-cli') ? 'valkey-cli' : 'redis-cli');

/** What a server of Valkey or Redis answers. */
export function cli(port: number, ...command: string[]): string {
  return execFileSync(client(), ['-p', String(port), ...command], { encoding: 'utf8' }).trim();
}

/** What it answers to many commands, a line each. */
export function cliAll(port: number, commands: readonly string[]): string[] {
  const said = execFileSync(client(), ['-p', String(port)], { input: `${commands.join('\n')}\n`, encoding: 'utf8' });
  return said.trim().split('\n');
}

/** How many keys a server of Valkey or Redis has. */
export function keysOf(port: number): number {
  return Number(cli(port, 'DBSIZE').replace(/\D/g, ''));
}

/** How many values a memcached has, of those that have not expired. */
export async function itemsOf(port: number): Promise<number> {
  const text = await new Promise<string>((resolve, reject) => {
    let said = '';
    const socket: Socket = tcp(port, '127.0.0.1', () => socket.write('lru_crawler metadump all\r\n'));
    socket.on('data', (chunk) => {
      said += chunk;
      if (said.endsWith('END\r\n')) socket.destroy();
    });
    socket.on('close', () => resolve(said));
    socket.on('error', reject);
  });
  return text.split('\n').filter((line) => line.startsWith('key=')).length;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listens = once(server.listen(port, '127.0.0.1'), 'listening');
  const isIt = await listens.then(
    () => true,
    () => false,
  );
  if (isIt) await new Promise((resolve) => server.close(resolve));
  return isIt;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = tcp(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
