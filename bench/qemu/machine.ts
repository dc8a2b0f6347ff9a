// One QEMU on a host, with a guest or waiting for one: a monitor for abdm and one for us, its serial line, its end.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '#abdm/host/qemu/qmp.js';
import type { Attachment } from './lan.js';
import { now, Serial } from './serial.js';

const MIB = 2 ** 20;
/** Of a guest's memory: what its kernel takes, and init's own. */
const KERNEL_BYTES = 112 * MIB;

/**
 * Its memory is so much larger than it should be. Without KVM a QEMU before 9.0 does not notice what a guest writes to memory that was sent already, if the size of
 * that is a multiple of 256 KiB (cpu_physical_memory_sync_dirty_bitmap): stock pre-copy too would damage every busy guest.
 */
const ODD_BYTES = 8192;

/** What a guest is and does: see guest/init.c. */
export interface GuestPlan {
  readonly bytes: number;
  /** It writes to so many pages, so often a second. */
  readonly setPages: number;
  readonly pagesPerS: number;
  readonly noise: boolean;
  /** Guests of different seeds have so many of 100 pages in common. */
  readonly seed: number;
  readonly commonPercent: number;
  /** Null: without a network card. */
  readonly attachment: Attachment | null;
}

/** What all guests are started with. */
export interface Boot {
  readonly kernel: string;
  readonly initramfs: string;
}

/** How it says that something has happened to it. */
interface Happened {
  readonly event: string;
  readonly status: unknown;
  readonly atMs: number;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export interface MachineOptions {
  /** For its sockets. */
  readonly directory: string;
  readonly name: string;
  /** What comes before the command. */
  readonly launcher: readonly string[];
  readonly boot: Boot;
  readonly guest: GuestPlan;
  readonly incoming: boolean;
  /** A file that is its memory; null: none. */
  readonly memoryFile?: string;
}

export class Machine {
  readonly name: string;
  /** For abdm. */
  readonly monitor: string;
  readonly serial: Serial;
  /** Resolves to when it had ended. */
  readonly ended: Promise<number>;
  readonly qmp: QmpClient;
  readonly #child: ChildProcess;
  readonly #happened: Happened[] = [];
  #wakes: (() => void)[] = [];

  private constructor(name: string, monitor: string, child: ChildProcess, qmp: QmpClient, ended: Promise<number>) {
    this.name = name;
    this.monitor = monitor;
    this.qmp = qmp;
    this.ended = ended;
    this.#child = child;
    this.serial = new Serial(child.stdout!, child.stdin!);
    qmp.onEvent = (event, { status }) => {
      this.#happened.push({ event, status, atMs: now() });
      this.#wake();
    };
    void ended.then(() => this.#wake());
  }

  static async start(options: MachineOptions): Promise<Machine> {
    const { directory, name, launcher } = options;
    const [monitor, ours] = [join(directory, `${name}.qmp`), join(directory, `${name}.watch`)];
    const sockets = [monitor, ours].flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]);
    const command = [...launcher, 'qemu-system-x86_64', ...argsOf(options), ...sockets];
    const child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
    running.add(child);
    const ended = once(child, 'exit').then(() => {
      running.delete(child);
      return now();
    });
    const qmp = await monitorOf(child, ours);
    const machine = new Machine(name, monitor, child, qmp, ended);
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    return machine;
  }

  get isOver(): boolean {
    return !running.has(this.#child);
  }

  /** When this happened first; of MIGRATION, to this status. @throws {Error} if it ends, or its migration fails, before. */
  async happened(event: string, status?: string): Promise<number> {
    for (;;) {
      const found = this.#happened.find(
        (one) => one.event === event && (status === undefined || one.status === status),
      );
      if (found) return found.atMs;
      const failed = this.#happened.find((one) => one.event === 'MIGRATION' && one.status === 'failed');
      if (failed || this.isOver) {
        throw new Error(
          `QEMU (${this.name}) ${failed ? 'says that its migration failed' : 'ended'} before ${status ?? event}`,
        );
      }
      await new Promise<void>((resolve) => this.#wakes.push(resolve));
    }
  }

  async end(): Promise<void> {
    this.qmp.close();
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }
}

/** Its monitor, as soon as it has one. */
async function monitorOf(child: ChildProcess, path: string): Promise<QmpClient> {
  for (;;) {
    if (child.exitCode !== null) throw new Error('QEMU did not start');
    try {
      if (existsSync(path)) return await QmpClient.open(path);
    } catch (error) {
      if (!/ECONNREFUSED/.test(String(error))) throw error;
    }
    await sleep(20);
  }
}

function argsOf({ boot, guest, incoming, memoryFile }: MachineOptions): string[] {
  const { bytes, setPages, pagesPerS, noise, seed, commonPercent, attachment } = guest;
  const ramBytes = bytes + ODD_BYTES;
  const append = ['console=ttyS0', 'quiet', 'panic=-1', `abdm_mb=${(bytes - KERNEL_BYTES) / MIB}`, 'abdm_pulse=32'];
  append.push(`abdm_set=${setPages}`, `abdm_rate=${pagesPerS}`, ...(noise ? ['abdm_noise=1'] : []));
  append.push(`abdm_seed=${seed}`, `abdm_common=${commonPercent}`);
  if (attachment) append.push(`abdm_ip=${attachment.address}`);
  const card = attachment && [
    ...['-netdev', `tap,id=lan,ifname=${attachment.tap},script=no,downscript=no`],
    ...['-device', `virtio-net-pci,netdev=lan,mac=${attachment.mac},romfile=`],
  ];
  // Its name is the one that the block has anyway.
  const file = memoryFile && [
    ...['-object', `memory-backend-file,id=pc.ram,mem-path=${memoryFile},share=on,size=${ramBytes}`],
    ...['-machine', 'memory-backend=pc.ram'],
  ];
  return [
    ...['-M', 'pc', '-accel', 'tcg', '-m', `${ramBytes}B`, '-nodefaults', '-vga', 'none', '-display', 'none'],
    ...['-chardev', 'stdio,id=line,signal=off', '-serial', 'chardev:line'],
    ...['-kernel', boot.kernel, '-initrd', boot.initramfs, '-append', append.join(' ')],
    ...(card ?? []),
    ...(file ?? []),
    ...(incoming ? ['-incoming', 'defer'] : []),
  ];
}
