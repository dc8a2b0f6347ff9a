// A guest's kernel and what it begins with, made when it is needed: init.c and stream.c, and the modules of its network card.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../../root.js';

/** Of virtio-net, each behind those that it needs. A kernel that has one of them built in does not need its file. */
const MODULES = [
  'drivers/virtio/virtio_ring.ko',
  'drivers/virtio/virtio.ko',
  'drivers/virtio/virtio_pci_modern_dev.ko',
  'drivers/virtio/virtio_pci_legacy_dev.ko',
  'drivers/virtio/virtio_pci.ko',
  'net/core/failover.ko',
  'drivers/net/net_failover.ko',
  'drivers/net/virtio_net.ko',
];

export interface Kernel {
  readonly image: string;
  /** Where its modules are, if it has any. */
  readonly folder: string;
  /** Files of it, in the order in which they are inserted. */
  readonly modules: readonly string[];
}

/** The kernel that ABDM_TEST_KERNEL names, or the newest of this machine; its modules lie beside /boot, where its package puts them. Null if there is none. */
export function findKernel(): Kernel | null {
  const named = process.env.ABDM_TEST_KERNEL;
  const image = named ?? newest('/boot');
  if (!image || !existsSync(image)) return null;
  const version = basename(image).replace(/^vmlinuz-/, '');
  const folder = join(dirname(image), '..', 'lib/modules', version, 'kernel');
  return { image, folder, modules: MODULES.map((name) => join(folder, name)).filter((file) => existsSync(file)) };
}

function newest(folder: string): string | null {
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith('vmlinuz-')) : [];
  const last = names.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  return last ? join(folder, last) : null;
}

/** What the machine lacks that a guest is made of, as Debian's packages with what they are for. */
export function missingPackages(): string[] {
  const lacks = (program: string) => spawnSync(program, ['--version']).error !== undefined;
  return [
    ...(lacks('qemu-system-x86_64') ? ['qemu-system-x86'] : []),
    ...(lacks('gcc') || !existsSync('/usr/include/stdio.h') ? ['gcc libc6-dev'] : []),
    ...(findKernel() ? [] : ['linux-image-cloud-amd64']),
  ];
}

/** Writes what a kernel begins with to `path`; `directory` is for what that takes. */
export function buildInitramfs(path: string, directory: string, modules: readonly string[] = []): void {
  const init = join(directory, 'init');
  const sources = ['init.c', 'stream.c'].map((name) => fileURLToPath(new URL(`bench/qemu/guest/${name}`, ROOT)));
  execFileSync('gcc', ['-O2', '-static', '-pthread', '-o', init, ...sources]);
  const inserted = modules.map((file, i) => ({ name: `module${i}`, mode: 0o100644, bytes: readFileSync(file) }));
  writeFileSync(path, cpio([{ name: 'init', mode: 0o100755, bytes: readFileSync(init) }, ...inserted]));
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
