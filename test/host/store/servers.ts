// Real servers of the stores that frames may be kept at, each with a directory of its own; ended with the test that started them.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket, connect as tcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether a program is installed here. */
export function has(program: string): boolean {
  try {
    execFileSync('which', [program], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** A process that listens on a port of 127.0.0.1. */
export interface Server {
  readonly port: number;
  readonly process: ChildProcess;
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>;
}

export class Servers {
  readonly #running = new Set<Server>();
  readonly #directories: string[] = [];

  async redis(...options: string[]): Promise<Server> {
    const port = await freePort();
    return this.redisAt(port, ...options);
  }

  /** Over TLS only, with what is in these files. */
  async redisTls(cert: string, key: string, ca: string): Promise<Server> {
    const port = await freePort();
    const tls = ['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', ca, '--tls-auth-clients', 'no'];
    return this.redisAt(port, '--port', '0', '--tls-port', String(port), ...tls);
  }

  redisAt(port: number, ...options: string[]): Promise<Server> {
    const directory = mkdtempSync(join(tmpdir(), 'abdm-redis-'));
    this.#directories.push(directory);
    const always = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', ''];
    return this.#start('redis-server', port, [...always, ...options]);
  }

  async memcached(...options: string[]): Promise<Server> {
    return this.memcachedAt(await freePort(), ...options);
  }

  memcachedAt(port: number, ...options: string[]): Promise<Server> {
    const user = process.getuid?.() === 0 ? ['-u', 'root'] : [];
    return this.#start('memcached', port, ['-l', '127.0.0.1', '-p', String(port), ...user, ...options]);
  }

  /** Three primaries with a replica each: the first three servers are the primaries. */
  async cluster(...options: string[]): Promise<Server[]> {
    const clustered = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', '--repl-diskless-sync-delay', '0'];
    const servers: Server[] = [];
    while (servers.length < 6) {
      // Its bus is at the port + 10000, and both lie below those that the system gives to whoever asks for any.
      const port = 10_000 + Math.floor(Math.random() * 12_000);
      if (!(await isFree(port)) || !(await isFree(port + 10_000))) continue;
      servers.push(await this.redisAt(port, ...clustered, ...options));
    }
    const addresses = servers.map(({ port }) => `127.0.0.1:${port}`);
    execFileSync('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-replicas', '1', '--cluster-yes']);
    for (;;) {
      const infos = servers.map(({ port }) => cli(port, 'INFO', 'replication'));
      const primaries = infos.filter((info) => /role:master[\s\S]*connected_slaves:1/.test(info));
      const ok = servers.every(({ port }) => /cluster_state:ok/.test(cli(port, 'CLUSTER', 'INFO')));
      if (primaries.length === 3 && ok) break;
      await sleep(100);
    }
    return servers;
  }

  async end(): Promise<void> {
    await Promise.all([...this.#running].map((server) => server.kill()));
    for (const directory of this.#directories.splice(0)) rmSync(directory, { recursive: true, force: true });
  }

  async #start(program: string, port: number, options: readonly string[]): Promise<Server> {
    const child = spawn(program, options, { stdio: 'ignore' });
    const server: Server = {
      port,
      process: child,
      kill: async () => {
        this.#running.delete(server);
        if (child.exitCode !== null || child.signalCode !== null) return;
        const gone = once(child, 'exit');
        child.kill('SIGKILL');
        await gone;
      },
    };
    this.#running.add(server);
    for (let left = 100; ; left--) {
      if (child.exitCode !== null || left === 0) throw new Error(`${program} ${options.join(' ')} does not run`);
      if (await answers(port)) return server;
      await sleep(50);
    }
  }
}

/** What redis-cli says. */
export function cli(port: number, ...command: string[]): string {
  return execFileSync('redis-cli', ['-p', String(port), ...command], { encoding: 'utf8' }).trim();
}

/** How many keys a server has. */
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
