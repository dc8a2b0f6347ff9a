// What every run starts from: a kernel, what it begins with, a key. All of it is gone at this process's end.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unavailable } from '../network/namespaces.js';
import { buildInitramfs, findKernel, missingPackages } from './guest/initramfs.js';
import type { SceneOptions } from './scene.js';

/** @throws {Error} that says what this machine lacks, and what to do about it. */
export function prepare(): Omit<SceneOptions, 'site'> {
  const packages = missingPackages();
  if (packages.length > 0) {
    const kernel = packages.includes('linux-image-cloud-amd64')
      ? '; a kernel may also be unpacked only (apt-get download, dpkg -x), and named: ABDM_TEST_KERNEL=.../boot/vmlinuz-...'
      : '';
    throw new Error(`guests need more than is here: apt install ${packages.join(' ')}${kernel}`);
  }
  const missing = unavailable();
  if (missing) throw new Error(`guests cannot move here: ${missing}`);
  const { image, folder, modules } = findKernel()!;
  if (!existsSync(folder))
    throw new Error(`guests would have no network card: the modules of ${image} are not in ${folder}`);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
  const directory = mkdtempSync(join(tmpdir(), 'abdm-bench-qemu-boot-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const initramfs = join(directory, 'initramfs');
  buildInitramfs(initramfs, directory, modules);
  const keyFile = join(directory, 'key');
  writeFileSync(keyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  return { boot: { kernel: image, initramfs }, keyFile };
}
