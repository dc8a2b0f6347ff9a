// The scene of most failures: a directory with an image in it, a destination that writes beside it, and what must be left when all has gone wrong.
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { MamNode } from '#abdm/host/mam/node.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { seededPages } from '../../pages.js';
import { Abdm, directory } from './processes.js';

/** 16 MiB that neither compress nor repeat. */
const IMAGE = seededPages(41, 4096, ['random']);

export class Scene {
  readonly dir = directory();
  readonly image = join(this.dir, 'in');
  readonly out = join(this.dir, 'out');

  constructor() {
    writeFileSync(this.image, IMAGE);
  }

  async startMerge(...args: string[]): Promise<{ destination: Abdm; to: string }> {
    const destination = new Abdm(['merge', `a=file:${this.out}`, '--listen', '127.0.0.1:0', ...args]);
    return { destination, to: await destination.address() };
  }

  startEject(to: string, ...args: string[]): Abdm {
    return new Abdm(['eject', `a=file:${this.image}`, '--to', to, ...args]);
  }

  /** Nothing was made of a migration that failed. */
  expectNoOutput(): void {
    expect(readdirSync(this.dir)).toEqual(['in']);
  }
}

/** Bytes of frames that an intermediate keeps. */
export async function keptBytes(address: string, memoryBytes: number, security = OPEN): Promise<number> {
  const node = await MamNode.connect(address, { migration: 'f'.repeat(32), role: 'source', security });
  node.end();
  return memoryBytes - node.freeBytes;
}
