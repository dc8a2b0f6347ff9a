// Several intermediates, in this process or in processes of their own, for tests of what they do together.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import {
  type Intermediate,
  type IntermediateEvent,
  type IntermediateOptions,
  startIntermediate,
} from '#abdm/host/intermediate/intermediate.js';
import type { Registration } from '#abdm/host/mam/bodies.js';
import type { KeeperOptions } from '#abdm/host/mam/keeper.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { MAX_FRAME_BYTES } from '#abdm/host/wire/messages.js';
import { pattern, same } from '../wire/pair.js';
import { MIGRATION } from './client.js';

const MiB = 2 ** 20;

const SERVER = `
  const { startIntermediate } = await import(${JSON.stringify(import.meta.resolve('#abdm/host/intermediate/intermediate.js'))});
  const memoryBytes = Number(process.argv[1]);
  const node = await startIntermediate({ listen: '127.0.0.1:' + process.argv[2], memoryBytes, check: () => null });
  console.log(node.address, node.id);
`;

/** An intermediate in a process of its own, to be killed and stopped. */
export class ProcessNode {
  readonly address: string;
  readonly id: string;
  readonly process: ChildProcess;

  private constructor(address: string, id: string, child: ChildProcess) {
    this.address = address;
    this.id = id;
    this.process = child;
  }

  static async start(memoryBytes = 64 * MiB, port = 0): Promise<ProcessNode> {
    const args = ['--input-type=module', '-e', SERVER, String(memoryBytes), String(port)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface({ input: child.stdout }), 'line');
    const [address, id] = String(line).split(' ');
    return new ProcessNode(address!, id!, child);
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await exited;
  }

  stop(): void {
    this.process.kill('SIGSTOP');
  }

  go(): void {
    this.process.kill('SIGCONT');
  }
}

/** All nodes and connections of one test. */
export class Cluster {
  readonly events: (IntermediateEvent & { node: string })[] = [];
  readonly #started: Intermediate[] = [];
  readonly #processes: ProcessNode[] = [];
  readonly #clients: MamNode[] = [];

  async node(options: Partial<IntermediateOptions> = {}): Promise<Intermediate> {
    let address = '';
    const node = await startIntermediate({
      listen: '127.0.0.1:0',
      memoryBytes: 64 * MiB,
      onEvent: (event) => this.events.push({ ...event, node: address }),
      check: () => null,
      ...options,
      channel: { lingerMs: 200, ...options.channel },
    });
    address = node.address;
    this.#started.push(node);
    return node;
  }

  nodes(count: number, options: Partial<IntermediateOptions> = {}): Promise<Intermediate[]> {
    return Promise.all(Array.from({ length: count }, () => this.node(options)));
  }

  async process(memoryBytes?: number): Promise<ProcessNode> {
    const node = await ProcessNode.start(memoryBytes);
    this.#processes.push(node);
    return node;
  }

  async connect({ address }: { address: string }, options: Partial<KeeperOptions> = {}): Promise<MamNode> {
    const client = await MamNode.connect(address, { migration: MIGRATION, role: 'source', ...options });
    this.#clients.push(client);
    return client;
  }

  /** Ids of all blocks that a node keeps, as it tells a destination. */
  async listed(node: { address: string }): Promise<number[]> {
    const client = await this.connect(node, { role: 'destination' });
    const all: number[] = [];
    for (let part = await client.list(0); part.length > 0; part = await client.list(part.at(-1)! + 1))
      all.push(...part);
    client.end();
    return all;
  }

  async end(): Promise<void> {
    for (const client of this.#clients.splice(0)) client.end();
    await Promise.all(this.#processes.splice(0).map((node) => node.kill()));
    await Promise.all(this.#started.splice(0).map((node) => node.close()));
  }
}

/** Puts blocks `ids`, pattern(bytes, id) each, and says what became of each. */
export function putAll(
  client: MamNode,
  ids: readonly number[],
  chain: { address: string; id: string }[],
  bytes = 9000,
) {
  return Promise.all(ids.map((id) => client.put(id, pattern(bytes, id), chain)));
}

/** Whether a node gives block `id` as `putAll` put it. */
export async function has(client: MamNode, id: number, bytes = 9000): Promise<boolean> {
  const into = new Uint8Array(MAX_FRAME_BYTES);
  const length = await client.get(id, into);
  return same(into.subarray(0, length), pattern(bytes, id));
}

export const range = (count: number, from = 1) => Array.from({ length: count }, (_, i) => from + i);

export const REGISTRATION: Registration = {
  vms: ['web'],
  replicas: 2,
  parked: false,
  leaseMs: 60_000,
  voters: [],
  token: null,
  complete: false,
  frames: 0,
};
