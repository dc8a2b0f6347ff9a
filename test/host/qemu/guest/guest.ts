// A real guest for tests: a kernel, and bench/qemu/guest as all that runs. What it says comes by its serial line.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildInitramfs } from '../../../../bench/qemu/guest/initramfs.js';
import { skipped } from '../../../skipped.js';
import { tempDir } from '../../temp.js';
import { needsQemu } from '../qemu.js';

/** No multiple of 256 KiB: see bench/qemu/machine.ts. */
const GUEST_BYTES = 256 * 2 ** 20 + 8192;
/** Of a kernel with a serial console that needs no modules to begin; linux-image-cloud-amd64 of Debian is one. */
const kernel = process.env.ABDM_TEST_KERNEL;

export function needsGuest(skip: (note: string) => void): void {
  needsQemu(skip);
  if (!kernel || !existsSync(kernel)) skipped(skip, 'ABDM_TEST_KERNEL does not name a kernel');
  if (spawnSync('gcc', ['--version']).error) skipped(skip, 'there is no gcc');
}

export interface Guest {
  /** For both QEMUs, each with a serial line of its own. */
  machine(serial: string): string[];
  /** A file for what a guest says. */
  serial(name: string): string;
}

/** @param fillMb how much memory it fills and checks. */
export function buildGuest(fillMb: number): Guest {
  const directory = tempDir();
  const initramfs = join(directory, 'initramfs');
  buildInitramfs(initramfs, directory);
  const append = `console=ttyS0 quiet panic=-1 abdm_mb=${fillMb}`;
  return {
    machine: (serial) => [
      ...['-M', 'pc', '-m', `${GUEST_BYTES}B`, '-nodefaults', '-vga', 'none', '-serial', `file:${serial}`],
      ...['-kernel', kernel!, '-initrd', initramfs, '-append', append],
    ],
    serial: (name) => join(directory, name),
  };
}

/** What it has said of itself so far. */
export function saidOn(serial: string): { boots: number; rounds: number; fails: number } {
  const text = existsSync(serial) ? readFileSync(serial, 'latin1') : '';
  const count = (what: RegExp) => [...text.matchAll(what)].length;
  return { boots: count(/ABDM BOOT/g), rounds: count(/VERIFY OK/g), fails: count(/FAIL|panic|Oops/g) };
}
