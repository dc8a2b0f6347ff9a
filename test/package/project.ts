// An empty project into which the package was installed as a user would: from the tarball, in a directory of its own.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

// What npm tells the scripts that it runs is meant for this repository, not for the project.
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle|config_local_prefix)|^INIT_CWD$/.test(name)),
);

export type Ran = SpawnSyncReturns<string>;

/** Runs a program to its end. */
export function attempt(cwd: string, command: string, ...args: string[]): Ran {
  return spawnSync(command, args, { cwd, env, encoding: 'utf8', timeout: 240_000 });
}

/** Runs a program that has to succeed; returns what it printed. */
export function run(cwd: string, command: string, ...args: string[]): string {
  const ran = attempt(cwd, command, ...args);
  if (ran.status === 0) return ran.stdout;
  const how = ran.error?.message ?? `ended with ${ran.status ?? ran.signal}`;
  throw new Error(`${command} ${args.join(' ')} ${how}\n${ran.stdout}${ran.stderr}`);
}

export interface Packed {
  filename: string;
  files: { path: string }[];
}

/** A directory of its own, for all tests of a file: `remove` it after them. */
export class Project {
  readonly dir = mkdtempSync(join(tmpdir(), 'abdm-project-'));
  readonly packed: Packed;
  readonly tarball: string;

  /** Packs what is built (nothing is built anew: other tests are using it) and installs it. */
  constructor() {
    try {
      const packing = run(root, 'npm', 'pack', '--ignore-scripts', '--json', '--pack-destination', this.dir);
      this.packed = JSON.parse(packing)[0];
      this.tarball = join(this.dir, this.packed.filename);
      this.write('package.json', JSON.stringify({ name: 'project', version: '1.0.0', private: true, type: 'module' }));
      run(this.dir, 'npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', this.tarball);
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  write(name: string, text: string): string {
    writeFileSync(join(this.dir, name), text);
    return name;
  }

  /** Makes a package of this repository's there in the project, too. */
  borrow(name: string): void {
    const place = join(this.dir, 'node_modules', name);
    mkdirSync(dirname(place), { recursive: true });
    if (!existsSync(place)) symlinkSync(join(root, 'node_modules', name), place);
  }

  run(command: string, ...args: string[]): string {
    return run(this.dir, command, ...args);
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}
