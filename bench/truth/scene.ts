// Everybody of a run: guests at both ends, nodes, the source and the destination, each in a process of its own.
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES } from 'abdm';
import { writeImage } from '../faults/image.js';
import type { ProxyHandle } from '../faults/proxy/proxies.js';
import { Random } from '../faults/random.js';
import type { Event, Role } from '../faults/role.js';
import { type Node, Stage } from '../faults/stage.js';
import type { GuestState } from './history.js';
import type { GuestPlan, Plan } from './plan.js';

/** Enough for all that leaves, on a single one. */
const NODE_MEMORY = '512M';
/** What the source said before it ended has arrived by then. */
const HEAR_MS = 1_000;

/** The guests of one VM. */
export interface Vm {
  readonly plan: GuestPlan;
  readonly here: Role;
  /** At the destination; another takes its place only if the first one was killed. */
  readonly there: Role[];
  readonly hereSocket: string;
  readonly thereSocket: string;
}

/** A destination has heard what comes. */
export function isImages({ type }: Event): boolean {
  return type === 'images';
}

export function isState(state: GuestState): (event: Event) => boolean {
  return (event) => event.type === 'state' && event.state === state;
}

export class LiveScene extends Stage {
  readonly plan: Plan;
  readonly vms: Vm[] = [];
  source!: Role;
  destination: Role | null = null;
  /** Before the destination, where the link is to be cut. */
  link: ProxyHandle | null = null;
  /** Roles that we have killed: milliseconds since 1970. */
  readonly killedAtMs = new Map<Role, number>();
  #listen = '127.0.0.1:0';

  constructor(plan: Plan) {
    super(new Random('live', plan.seed));
    this.plan = plan;
    for (const name of ['guests', 'memory']) mkdirSync(join(this.dir, name));
  }

  /** Everybody but the source, and the destination of what is parked. */
  async open(): Promise<this> {
    const { nodes, guests, way, blow } = this.plan;
    const largest = Math.max(...guests.map(({ memoryBytes }) => memoryBytes));
    if (guests.some(({ content }) => content === 'mixed'))
      writeImage(this.#mixed, largest / PAGE_BYTES, 'truth', this.plan.seed);
    await Promise.all([
      ...Array.from({ length: nodes }, () => this.addNode(NODE_MEMORY)),
      ...guests.map((guest) => this.#addVm(guest)),
    ]);
    // The proxy is before the destination only: nodes were there before it.
    if (blow.kill === 'link-cut') this.useProxies();
    // In the order in which they were started, whoever was there first.
    this.nodes.sort((a, b) => a.role.name.localeCompare(b.role.name));
    if (way !== 'parked') await this.startDestination();
    return this;
  }

  get living(): readonly Node[] {
    return this.nodes.filter(({ role }) => !this.killedAtMs.has(role));
  }

  startSource(): Role {
    const { mode, way, replicas, sourceRate, maxDowntimeMs, rounds } = this.plan;
    const images = this.vms.map(({ plan, hereSocket }) => `${plan.name}=guest:${hereSocket}`);
    const to = this.link?.address ?? this.#listen;
    this.source = this.start('source', [
      'eject',
      ...images,
      ...['--mode', mode],
      ...(way === 'parked' ? ['--park', '--vm-key', this.#vmKey] : ['--to', to]),
      ...(way === 'direct' ? ['--direct'] : [...this.#intermediates, '--replicas', String(replicas)]),
      ...(sourceRate === null ? [] : ['--rate', String(sourceRate)]),
      ...(maxDowntimeMs === null ? [] : ['--max-downtime', `${maxDowntimeMs}ms`]),
      ...(rounds === null ? [] : ['--rounds', String(rounds)]),
    ]);
    return this.source;
  }

  /** A destination, or the same one again where it was. */
  async startDestination(): Promise<void> {
    const { way, destinationRate } = this.plan;
    const images = this.vms.map(({ plan, thereSocket }) => `${plan.name}=guest:${thereSocket}`);
    const rate = destinationRate === null ? [] : ['--rate', String(destinationRate)];
    const from =
      way === 'parked' ? ['--parked', '--vm-key', this.#vmKey, ...this.#intermediates] : ['--listen', this.#listen];
    this.destination = this.start('destination', ['merge', ...images, ...from, ...rate], 'there');
    if (way === 'parked') return;
    this.#listen = await this.destination.address();
    if (this.proxies) this.link ??= await this.proxies.add(this.#listen);
  }

  /** A guest that waits at the destination, in place of one that was killed. */
  async startIncoming(socket: string): Promise<Role> {
    const role = this.startServing('guest-there', this.#guest(socket, ['--incoming']), 'there');
    await role.event(({ type }) => type === 'listening');
    return role;
  }

  killed(role: Role): boolean {
    return this.killedAtMs.has(role);
  }

  /** At once, and for good. */
  async slay(role: Role): Promise<void> {
    if (role.over) return;
    this.killedAtMs.set(role, Date.now());
    role.signal('SIGKILL');
    await role.ended;
  }

  /** Some VM, if not all of them, waits at the nodes for a destination. */
  get isParked(): boolean {
    const { way } = this.plan;
    return way === 'parked' && (this.source.summary?.vms.some(({ outcome }) => outcome === 'completed') ?? false);
  }

  /** Until the destination has ended, after the source. One that listens, and has heard of nothing that comes, would wait for ever: it is told to stop. */
  async destinationEnded(): Promise<void> {
    const { destination, plan } = this;
    if (!destination) return;
    const heard = plan.way === 'parked' || (await Promise.race([destination.event(isImages), sleep(HEAR_MS)]));
    if (!heard) destination.signal('SIGTERM');
    await destination.ended;
  }

  /** Asks a guest, as its operator does. Null if it did not answer. */
  async ask(socket: string, what: 'verify' | 'resume' | 'quit'): Promise<Event | null> {
    const role = this.start(what, ['guest', '--socket', socket, '--ask', what]);
    await role.ended;
    // Pages that are wrong are an answer too, whatever the exit code.
    return role.events.find(({ type }) => type === what) ?? null;
  }

  /** What lies where guests, their memory and their states were, when all of them have ended. */
  leftBehind(): string[] {
    return ['guests', 'memory'].flatMap((name) => readdirSync(join(this.dir, name)).map((one) => join(name, one)));
  }

  async #addVm(plan: GuestPlan): Promise<void> {
    const hereSocket = join(this.dir, 'guests', `${plan.name}-here`);
    const thereSocket = join(this.dir, 'guests', `${plan.name}-there`);
    const here = this.startServing('guest-here', this.#guest(hereSocket, this.#workload(plan)));
    // In the order of the plan, whoever is there first.
    const vm: Vm = { plan, here, there: [], hereSocket, thereSocket };
    this.vms.push(vm);
    vm.there.push(await this.startIncoming(thereSocket));
    if (!(await here.event(isState('running')))) throw new Error(`${here.name} does not run`);
  }

  #guest(socket: string, more: readonly string[]): string[] {
    return ['guest', '--socket', socket, '--backing', join(this.dir, 'memory'), ...more];
  }

  #workload(plan: GuestPlan): string[] {
    const { seed, memoryBytes, workingSetBytes, pattern, opsPerS, writes, vcpus, content, common } = plan;
    return [
      ...['--memory', String(memoryBytes)],
      ...['--seed', String(seed)],
      ...['--working-set', String(workingSetBytes)],
      ...['--pattern', pattern],
      ...['--ops', String(opsPerS)],
      ...['--writes', String(writes)],
      ...['--vcpus', String(vcpus)],
      ...['--content', content === 'mixed' ? this.#mixed : content],
      ...(common > 0 ? ['--common', String(common)] : []),
    ];
  }

  get #mixed(): string {
    return join(this.dir, 'mixed');
  }

  get #vmKey(): string {
    return join(this.dir, 'vmkey');
  }

  get #intermediates(): readonly string[] {
    return ['--intermediates', this.nodes.map(({ address }) => address).join(',')];
  }
}
