// Guests as their users run them: processes of their own, each with a socket in a directory of the test's.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { GuestClient } from '#abdm/host/guest/client.js';
import type { Workload } from '#abdm/host/guest/workload.js';
import type { GuestSink, TrackedGuest } from '#abdm/host/image/image.js';
import { openSource, parseImage, sinkOpener } from '#abdm/host/image/parse.js';
import type { JsonObject } from '#abdm/host/wire/json.js';
import { Abdm, directory } from '../cli/processes.js';

export const MIB = 1 << 20;

/** Some guest of 16 MiB, but for what is said of it. */
export function workload(of: Partial<Workload> = {}): Workload {
  return {
    memoryBytes: 16 * MIB,
    workingSetBytes: of.memoryBytes ?? 16 * MIB,
    pattern: 'uniform',
    operationsPerS: 1000,
    writeShare: 0.5,
    vcpus: 4,
    seed: 1,
    content: 'random',
    commonShare: 0,
    ...of,
  };
}

export class GuestProcess {
  readonly abdm: Abdm;
  readonly socket = join(directory(), 'guest.sock');

  constructor(...args: string[]) {
    this.abdm = new Abdm(['guest', '--socket', this.socket, ...args]);
  }

  /** A guest that runs; quick, and writing much. */
  static async running(...args: string[]): Promise<GuestProcess> {
    const made = new GuestProcess('--memory', '16M', '--ops', '5000', '--writes', '0.5', ...args);
    await made.is('running');
    return made;
  }

  static async waiting(...args: string[]): Promise<GuestProcess> {
    const made = new GuestProcess('--incoming', ...args);
    await made.is('waiting');
    return made;
  }

  /** Has been, or becomes. */
  async is(state: string): Promise<void> {
    await this.abdm.event((event) => event.type === 'state' && event.state === state);
  }

  /** As `guest:SOCKET` on a command line. */
  async source(): Promise<TrackedGuest> {
    return (await openSource(parseImage(`vm=guest:${this.socket}`))) as TrackedGuest;
  }

  async sink(bytes = 16 * MIB, left?: 'keep'): Promise<GuestSink> {
    return (await sinkOpener(parseImage(`vm=guest:${this.socket}`))({ bytes, regions: [] }, left)) as GuestSink;
  }

  async ask(ask: 'status' | 'verify' | 'stop' | 'resume' | 'quit'): Promise<JsonObject> {
    const client = await GuestClient.open(this.socket);
    try {
      return (await client.request({ ask })).answer;
    } finally {
      client.close();
    }
  }

  /** Waits until it has done so many operations more. */
  async works(operations = 500): Promise<void> {
    const enough = Number((await this.ask('status')).operation) + operations;
    await expect.poll(async () => (await this.ask('status')).operation, { timeout: 20_000 }).toBeGreaterThan(enough);
  }

  /** Its memory, as it is. */
  async memory(): Promise<Buffer> {
    const { memory, memoryBytes } = await this.ask('status');
    const file = openSync(memory as string, 'r');
    const bytes = Buffer.alloc(memoryBytes as number);
    for (let at = 0; at < bytes.length; ) at += readSync(file, bytes, at, bytes.length - at, at);
    closeSync(file);
    return bytes;
  }

  /** Writes to its memory behind its back. */
  async plant(position: number, bytes: Uint8Array): Promise<void> {
    const file = openSync((await this.ask('status')).memory as string, 'r+');
    writeSync(file, bytes, 0, bytes.length, position);
    closeSync(file);
  }
}
