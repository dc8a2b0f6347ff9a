// Real QEMUs that `abdm eject` and `abdm merge` move guests between, and what is to be found of a guest afterwards.
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { runState } from '#abdm/host/qemu/monitor.js';
import { type Qemu, startQemu, until } from '../qemu/qemu.js';
import { Abdm, directory } from './processes.js';

export const MIB = 2 ** 20;
export const RAM_MB = 32;
const MACHINE = ['-M', 'pc', '-m', `${RAM_MB}`, '-nodefaults', '-vga', 'std'];
/** Where the seeded content lies in a guest's memory. */
export const AT = 2 * MIB;

export interface Machine extends Qemu {
  /** The monitor that abdm is given: the test has one of its own. */
  readonly socket: string;
}

export async function start(args: string[], machine = MACHINE, program?: string): Promise<Machine> {
  const socket = join(directory(), 'qmp');
  const qemu = await startQemu([...args, '-qmp', `unix:${socket},server=on,wait=off`], machine, undefined, program);
  return Object.assign(qemu, { socket });
}

/** One with random bytes, repeated ones and zeros in its memory. */
export async function source(machine?: string[], program?: string): Promise<Machine> {
  const path = join(directory(), 'content');
  const noise = randomBytes(8 * MIB);
  writeFileSync(path, Buffer.concat([noise, Buffer.alloc(4 * MIB), noise.subarray(0, 4 * MIB)]));
  return start(['-device', `loader,file=${path},addr=${AT},force-raw=on`], machine, program);
}

export const incoming = (machine?: string[], program?: string) => start(['-incoming', 'defer'], machine, program);

/** All of its memory; it should stand still. */
export async function memoryOf(qemu: Qemu): Promise<Buffer> {
  const filename = join(directory(), 'memory');
  await qemu.qmp.execute('pmemsave', { val: 0, size: RAM_MB * MIB, filename });
  return readFileSync(filename);
}

export async function ended(qemu: Qemu): Promise<void> {
  await until(async () => qemu.process.exitCode !== null);
  expect(qemu.process.exitCode).toBe(0);
}

export class Move {
  readonly merge: Abdm;
  eject!: Abdm;

  constructor(there: Machine, ...args: string[]) {
    this.merge = new Abdm(['merge', `vm=qemu:${there.socket}`, ...args]);
  }

  static async begin(here: Machine, there: Machine, ...args: string[]): Promise<Move> {
    const move = new Move(there, '--listen', '127.0.0.1:0');
    move.eject = new Abdm(['eject', `vm=qemu:${here.socket}`, '--to', await move.merge.address(), ...args]);
    return move;
  }
}

/** The guest runs on where it was, with its settings. */
export async function stays(here: Machine): Promise<void> {
  await until(async () => (await runState(here.qmp)).running);
  expect(await here.qmp.execute('query-migrate-parameters')).toMatchObject({ 'max-bandwidth': 128 * MIB });
  expect(here.process.exitCode).toBeNull();
}
