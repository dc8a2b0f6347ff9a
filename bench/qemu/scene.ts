// Everybody of one run: QEMUs with guests on one host, QEMUs that wait for them on another, abdm's roles, players; each a process of its own, on a host of its own.
// What is started here ends with it.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Role } from '../faults/role.js';
import { type Host, Network } from '../network/namespaces.js';
import { Lan } from './lan.js';
import { Listener } from './listener.js';
import { type Boot, type GuestPlan, Machine } from './machine.js';
import type { Heard } from './stream.js';

export const NODES = ['node1', 'node2', 'node3'] as const;
export const GUESTS = ['web', 'db'] as const;

/** The hosts, which stay from run to run. */
export class Site {
  readonly network: Network;
  readonly lan: Lan;

  /** @param limitBitsPerS of the destination's card; null: none. All others are as fast as they can. */
  constructor(limitBitsPerS: number | null) {
    const fast = ['source', 'client', ...NODES].map((name): Host => ({ name, bitsPerS: null }));
    this.network = new Network([...fast, { name: 'destination', bitsPerS: limitBitsPerS }]);
    this.lan = new Lan(this.network, GUESTS);
  }

  close(): void {
    this.network.close();
  }
}

/** A guest on its way. */
export interface Vm {
  readonly name: string;
  readonly plan: GuestPlan;
  readonly here: Machine;
  /** Null while nobody waits for it. */
  there: Machine | null;
  listener: Listener | null;
}

export interface SceneOptions {
  readonly site: Site;
  readonly boot: Boot;
  readonly keyFile: string;
}

export class Scene {
  readonly site: Site;
  readonly vms: Vm[] = [];
  readonly directory = mkdtempSync(join(tmpdir(), 'abdm-bench-qemu-'));
  readonly #boot: Boot;
  readonly #keyFile: string;
  readonly #roles: Role[] = [];

  constructor({ site, boot, keyFile }: SceneOptions) {
    this.site = site;
    this.#boot = boot;
    this.#keyFile = keyFile;
  }

  /** A guest that has filled its memory, and goes on writing to it. */
  async addGuest(plan: Omit<GuestPlan, 'attachment'>, hasCard: boolean): Promise<Vm> {
    const name = GUESTS[this.vms.length]!;
    const attached = { ...plan, attachment: hasCard ? this.site.lan.attach(name) : null };
    const here = await this.#machine('source', `${name}-here`, attached, false);
    const vm: Vm = { name, plan: attached, here, there: null, listener: null };
    this.vms.push(vm);
    await here.serial.line(/ABDM READY/);
    await here.serial.line(/ABDM PULSE/);
    return vm;
  }

  /** A QEMU that waits for it; `memoryFile`: through which its memory can be reached from outside. */
  async expect(vm: Vm, memoryFile?: string): Promise<Machine> {
    vm.there = await this.#machine('destination', `${vm.name}-there`, vm.plan, true, memoryFile);
    return vm.there;
  }

  /** A client that plays what the guest streams. */
  async play(vm: Vm, onHeard?: (heard: Heard) => void): Promise<Listener> {
    vm.listener = new Listener(this.site.lan.client(), vm.plan.attachment!.address, onHeard);
    await vm.listener.playing();
    return vm.listener;
  }

  /** An abdm on that host. */
  start(host: string, name: string, args: readonly string[]): Role {
    // As if on hosts of their own: nobody finds the others' roles.
    const runtime = join(this.directory, host);
    mkdirSync(runtime, { recursive: true, mode: 0o700 });
    const keyed = [...args, '--key', this.#keyFile];
    const log = join(this.directory, `${name}.log`);
    const role = new Role(name, keyed, log, { XDG_RUNTIME_DIR: runtime }, this.site.network.on(host));
    this.#roles.push(role);
    return role;
  }

  /** @param keepsFiles the roles' logs stay, because something was wrong. */
  async close(keepsFiles: boolean): Promise<void> {
    for (const { listener } of this.vms) listener?.kill();
    for (const role of this.#roles) role.signal('SIGKILL');
    await Promise.all(this.#roles.map(({ ended }) => ended));
    await Promise.all(this.vms.flatMap(({ here, there }) => [here.end(), there?.end()]));
    if (!keepsFiles) rmSync(this.directory, { recursive: true, force: true });
  }

  #machine(host: string, name: string, guest: GuestPlan, incoming: boolean, memoryFile?: string): Promise<Machine> {
    const launcher = this.site.network.on(host);
    return Machine.start({
      directory: this.directory,
      name,
      launcher,
      boot: this.#boot,
      guest,
      incoming,
      ...(memoryFile && { memoryFile }),
    });
  }
}
