// A real guest for tests: a kernel, and init.c as all that runs. What it says comes by its serial line.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { skipped } from '../../../skipped.js';
import { tempDir } from '../../temp.js';
import { needsQemu } from '../qemu.js';

const GUEST_MB = 256;
const SOURCE = fileURLToPath(new URL('init.c', import.meta.url));
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
  const init = join(directory, 'init');
  execFileSync('gcc', ['-O2', '-static', '-o', init, SOURCE]);
  const initramfs = join(directory, 'initramfs');
  writeFileSync(initramfs, cpio([{ name: 'init', mode: 0o100755, bytes: readFileSync(init) }]));
  const append = `console=ttyS0 quiet panic=-1 abdm_mb=${fillMb}`;
  return {
    machine: (serial) => [
      ...['-M', 'pc', '-m', `${GUEST_MB}`, '-nodefaults', '-vga', 'none', '-serial', `file:${serial}`],
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

/** An archive in the format newc, which kernels unpack. Source: Documentation/driver-api/early-userspace/buffer-format.rst. */
function cpio(files: readonly { name: string; mode: number; bytes: Uint8Array }[]): Buffer {
  const hex = (value: number) => value.toString(16).padStart(8, '0');
  const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
  const entries = [...files, { name: 'TRAILER!!!', mode: 0, bytes: new Uint8Array() }].map(
    ({ name, mode, bytes }, i) => {
      // inode, mode, uid, gid, links, time, size, devices (4), length of the name, checksum
      const fields = [i + 1, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length + 1, 0];
      const head = pad(Buffer.from(`070701${fields.map(hex).join('')}${name}\0`, 'latin1'));
      return Buffer.concat([head, pad(Buffer.from(bytes))]);
    },
  );
  return Buffer.concat(entries);
}
