// The processes of a run, in a directory of its own: nodes, proxies, and whoever else is started. What was started here ends with it.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Credentials } from './keys.js';
import { Proxies, type ProxyHandle } from './proxy/proxies.js';
import type { Rule } from './proxy/rule.js';
import type { Random } from './random.js';
import { Role } from './role.js';

const END_MS = 5_000;

export class Node {
  constructor(
    readonly role: Role,
    /** Where it listens itself. */
    readonly ownAddress: string,
    readonly proxy: ProxyHandle | null,
  ) {}

  /** Where the others find it. */
  get address(): string {
    return this.proxy?.address ?? this.ownAddress;
  }
}

/** Two hosts: what is cancelled at the one is not the other's. And nobody else's roles are found. */
export type Host = 'here' | 'there';

export class Stage {
  readonly dir: string;
  readonly random: Random;
  readonly nodes: Node[] = [];
  readonly roles: Role[] = [];
  readonly credentials: Credentials | null;
  /** The multicast group of this run. */
  readonly announcements: string;
  proxies: Proxies | null = null;
  /** Those who run until they are told to end. */
  readonly #serving = new Set<Role>();
  readonly #env: NodeJS.ProcessEnv;

  /** @param credentials made for this run, in its directory: every role has them. */
  constructor(random: Random, credentials?: (directory: string) => Credentials) {
    this.random = random;
    this.dir = mkdtempSync(join(tmpdir(), 'abdm-run-'));
    for (const host of ['here', 'there']) mkdirSync(join(this.dir, host), { mode: 0o700 });
    this.credentials = credentials?.(this.dir) ?? null;
    const [group, port] = [random.below(256), 10_000 + random.below(20_000)];
    this.announcements = `239.77.${group}.${random.below(256)}:${port}`;
    // Announcements are made with the key: where there are only certificates, there are none.
    const silent = this.credentials?.security.clusterKey === null;
    this.#env = { ABDM_ANNOUNCEMENTS: silent ? 'none' : this.announcements };
  }

  /** What every role is told of keys and certificates. */
  get secured(): readonly string[] {
    return this.credentials?.args ?? [];
  }

  /** Nodes and destinations that come from now on have a proxy before them. */
  useProxies(): Proxies {
    this.proxies ??= new Proxies();
    return this.proxies;
  }

  /** Another node. */
  async addNode(memory: string, rule?: Rule): Promise<Node> {
    const args = ['intermediate', '--listen', '127.0.0.1:0', '--memory', memory, ...this.secured];
    const role = this.startServing('node', args);
    const own = await role.address();
    const proxy = this.proxies ? await this.proxies.add(own) : null;
    if (rule) await proxy!.set(rule);
    const node = new Node(role, own, proxy);
    this.nodes.push(node);
    return node;
  }

  /** An `abdm` that comes to an end by itself. */
  start(name: string, args: readonly string[], host: Host = 'here'): Role {
    const unique = `${name}${this.roles.filter((role) => role.name.startsWith(name)).length + 1}`;
    const env = { ...this.#env, XDG_RUNTIME_DIR: join(this.dir, host) };
    const role = new Role(unique, args, join(this.dir, `${unique}.log`), env);
    this.roles.push(role);
    return role;
  }

  /** One that runs until it is told to end. */
  startServing(name: string, args: readonly string[], host: Host = 'here'): Role {
    const role = this.start(name, args, host);
    this.#serving.add(role);
    return role;
  }

  /** Ends everything. Returns what did not end as it should: who still ran, and who did not stop when told to. */
  async close(): Promise<string[]> {
    const stuck: string[] = [];
    for (const role of this.roles.filter(({ over }) => !over)) {
      const serves = this.#serving.has(role);
      role.signal('SIGCONT');
      role.signal(serves ? 'SIGTERM' : 'SIGKILL');
      if (!serves) stuck.push(`${role.name} still ran`);
    }
    const timer = setTimeout(() => {
      for (const role of this.roles.filter(({ over }) => !over)) {
        stuck.push(`${role.name} did not end when told to`);
        role.signal('SIGKILL');
      }
    }, END_MS);
    await Promise.all(this.roles.map(({ ended }) => ended));
    clearTimeout(timer);
    await this.proxies?.close();
    return stuck;
  }

  /** At once, when the runner itself is ended. */
  kill(): void {
    for (const role of this.roles) role.signal('SIGKILL');
    this.remove();
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}
