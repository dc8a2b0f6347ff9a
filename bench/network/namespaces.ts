// A network in a box: hosts that are network namespaces, each with a network card of its own speed, on one switch. Linux, root, `ip` and `tc`.
//
//   source            node1             destination        namespaces abdm-PID-N-NAME
//   eth0 10.77.0.1    eth0 10.77.0.2    eth0 10.77.0.6     tbf: what the host may send
//      |                 |                 |
//      p1 ------ br0 ---- p2 ------------- p6               namespace abdm-PID-N-switch; tbf on each port: what the host may be sent
//
// Nothing of it is in the machine's own namespace, and all of it goes with its namespaces: at `close`, at this process's end, and, if that was
// killed, when the next network is made.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

export interface Host {
  readonly name: string;
  /** Of its card, in each direction: Ethernet frames and all. Null: as fast as it can. */
  readonly bitsPerS: number | null;
}

const PREFIX = 'abdm-';
/** What a token bucket may let through at once: a millisecond, but not less than a few frames of the largest size that a card takes. */
const burstBytes = (bitsPerS: number) => Math.max(128 * 1024, Math.ceil(bitsPerS / 8 / 1000));
/** What waits in front of the bucket before frames are dropped. */
const QUEUE_MS = 20;

const open = new Set<Network>();
let made = 0;
process.on('exit', () => {
  for (const network of open) network.close();
});

/** Why there can be no such network here; null if there can. */
export function unavailable(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux';
  if (process.geteuid?.() !== 0) return 'network namespaces need root';
  try {
    run('ip', 'netns', 'list');
    run('tc', '-V');
    return null;
  } catch (error) {
    return `ip and tc are needed (Debian: apt install iproute2): ${(error as Error).message}`;
  }
}

export class Network {
  /** The algorithm of every connection: a figure that depends on it must say it. */
  readonly congestionControl: string;
  readonly #prefix: string;
  readonly #addresses = new Map<string, string>();

  /**
   * @param congestionControl set on every route; BBR, the default of some systems, distorts what is measured in namespaces.
   * @throws {Error} if `ip` or `tc` refuse.
   */
  constructor(hosts: readonly Host[], congestionControl = 'cubic') {
    if (made === 0) removeStale();
    this.congestionControl = congestionControl;
    this.#prefix = `${PREFIX}${process.pid}-${made++}-`;
    open.add(this);
    try {
      const hub = this.namespace('switch');
      run('ip', 'netns', 'add', hub);
      run('ip', '-n', hub, 'link', 'add', 'br0', 'type', 'bridge');
      run('ip', '-n', hub, 'link', 'set', 'br0', 'up');
      for (const [i, host] of hosts.entries()) this.#add(host, i + 1, hub);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The IPv4 address of a host. */
  address(name: string): string {
    return this.#addresses.get(name)!;
  }

  /** What comes before a command so that it runs on that host. */
  on(name: string): string[] {
    return ['ip', 'netns', 'exec', this.namespace(name)];
  }

  namespace(name: string): string {
    return this.#prefix + name;
  }

  /** What left a host by its card so far: Ethernet frames and all. */
  sentBytes(name: string): number {
    const [card] = JSON.parse(run('ip', '-n', this.namespace(name), '-s', '-j', 'link', 'show', 'eth0'));
    return card.stats64.tx.bytes;
  }

  /** Removes all of it. Processes in it should have ended. */
  close(): void {
    open.delete(this);
    for (const name of namespaces()) if (name.startsWith(this.#prefix)) run('ip', 'netns', 'delete', name);
  }

  #add({ name, bitsPerS }: Host, number: number, hub: string): void {
    const host = this.namespace(name);
    const port = `p${number}`;
    const address = `10.77.0.${number}`;
    run('ip', 'netns', 'add', host);
    run('ip', '-n', host, 'link', 'set', 'lo', 'up');
    run('ip', '-n', hub, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', host);
    run('ip', '-n', hub, 'link', 'set', port, 'master', 'br0', 'up');
    run('ip', '-n', host, 'address', 'add', `${address}/24`, 'dev', 'eth0');
    run('ip', '-n', host, 'link', 'set', 'eth0', 'up');
    const { congestionControl } = this;
    run(
      'ip',
      '-n',
      host,
      'route',
      'replace',
      '10.77.0.0/24',
      'dev',
      'eth0',
      'src',
      address,
      'congctl',
      congestionControl,
    );
    // For announcements.
    run('ip', '-n', host, 'route', 'add', '224.0.0.0/4', 'dev', 'eth0');
    if (bitsPerS !== null) {
      shape(host, 'eth0', bitsPerS);
      shape(hub, port, bitsPerS);
    }
    this.#addresses.set(name, address);
  }
}

function shape(namespace: string, device: string, bitsPerS: number): void {
  const limit = burstBytes(bitsPerS) + Math.ceil((bitsPerS / 8) * (QUEUE_MS / 1000));
  const bucket = ['rate', `${bitsPerS}bit`, 'burst', `${burstBytes(bitsPerS)}`, 'limit', `${limit}`];
  run('tc', '-n', namespace, 'qdisc', 'add', 'dev', device, 'root', 'tbf', ...bucket);
}

function namespaces(): string[] {
  return run('ip', 'netns', 'list')
    .split('\n')
    .map((line) => line.split(' ')[0]!)
    .filter((name) => name.startsWith(PREFIX));
}

/** Of processes that were killed before they could. */
function removeStale(): void {
  for (const name of namespaces()) {
    const pid = name.slice(PREFIX.length).split('-')[0]!;
    if (!existsSync(`/proc/${pid}`)) run('ip', 'netns', 'delete', name);
  }
}

/** @throws {Error} with what the command said. */
export function run(command: string, ...args: string[]): string {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    throw new Error(`${command} ${args.join(' ')}: ${stderr?.trim() || (error as Error).message}`);
  }
}

/** The congestion control that connections have where nobody says otherwise. */
export function defaultCongestionControl(): string {
  return readFileSync('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8').trim();
}
