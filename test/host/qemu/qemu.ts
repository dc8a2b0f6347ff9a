// Real QEMUs for tests: without a kernel, 4 MB, so that all of one moves in milliseconds.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import type { RamBlock } from '#abdm/host/qemu/format.js';
import {
  migrate,
  migrateIncoming,
  migrationState,
  setCapabilities,
  setParameters,
  startPostCopy,
} from '#abdm/host/qemu/monitor.js';
import { QmpClient } from '#abdm/host/qemu/qmp.js';
import { type ReturnPathHandler, ReturnPathParser, returnPath } from '#abdm/host/qemu/return-path.js';
import { type StreamHandler, StreamParser } from '#abdm/host/qemu/stream.js';
import { skipped } from '../../skipped.js';
import { Digest } from './events.js';

/** The system's. */
const PROGRAM = 'qemu-system-x86_64';
export const SMALL = ['-M', 'pc', '-m', '4', '-nodefaults', '-vga', 'none'];
export const CAPABILITIES = { 'return-path': true, 'postcopy-ram': true };

export function needsQemu(skip: (note: string) => void): void {
  if (spawnSync(PROGRAM, ['--version']).error) skipped(skip, `there is no ${PROGRAM}`);
}

/** The program of a QEMU 10 that need not be installed: what it reads lies beside it, as in its package. */
export function needsQemu10(skip: (note: string) => void): string {
  const program = process.env.ABDM_TEST_QEMU_10;
  if (!program) skipped(skip, 'ABDM_TEST_QEMU_10 does not name a qemu-system-x86_64 of version 10');
  return program!;
}

export interface Qemu {
  readonly qmp: QmpClient;
  readonly directory: string;
  readonly process: ChildProcess;
  /** Ends it, and removes what it has made. */
  end(): Promise<void>;
}

/** Starts one; it ends with the test, or by `end`. */
export async function startQemu(
  args: string[],
  machine = SMALL,
  end: (end: () => Promise<void>) => void = onTestFinished,
  program = PROGRAM,
): Promise<Qemu> {
  const directory = mkdtempSync(join(tmpdir(), 'abdm-qemu-'));
  const path = join(directory, 'qmp');
  const common = ['-accel', 'tcg', '-display', 'none', '-monitor', 'none', '-qmp', `unix:${path},server=on,wait=off`];
  const all = [...dataOf(program), ...machine, ...common, ...args];
  const child = spawn(program, all, { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let qmp: QmpClient | null = null;
  const stop = async () => {
    qmp?.close();
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  end(stop);
  while (!existsSync(path)) {
    if (child.exitCode !== null) throw new Error('QEMU did not start');
    await sleep(10);
  }
  for (;;) {
    try {
      qmp = await QmpClient.open(path);
      return { qmp, directory, process: child, end: stop };
    } catch (error) {
      if (child.exitCode !== null || !/ECONNREFUSED/.test(String(error))) throw error;
      await sleep(10);
    }
  }
}

/** The system's finds its firmware by itself; another one would take that too, which is of another version. */
function dataOf(program: string): string[] {
  if (program === PROGRAM) return [];
  return ['qemu', 'seabios'].flatMap((name) => ['-L', join(dirname(program), '..', 'share', name)]);
}

/** Waits until `what` holds. */
export async function until(what: () => Promise<boolean>, limitMs = 30_000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!(await what())) {
    if (Date.now() > end) throw new Error(`it does not come to hold: ${what}`);
    await sleep(10);
  }
}

/** Takes all that a QEMU sends, which then has `completed`. */
export async function drain(qemu: Qemu, postCopy: boolean): Promise<Buffer> {
  const chunks: Buffer[] = [];
  await receive(qemu, postCopy, (socket) => {
    socket.on('data', (data) => chunks.push(data));
    const handler = new Digest();
    handler.onPing = (value) => void socket.write(returnPath.pong(value));
    handler.onEnd = () => void socket.write(returnPath.shut(0));
    return handler;
  });
  return Buffer.concat(chunks);
}

/** Lets a QEMU send, until it has `completed`; `handle` says who gets what it sends, and answers it. */
export async function receive(qemu: Qemu, postCopy: boolean, handle: (socket: Socket) => StreamHandler): Promise<void> {
  const path = join(qemu.directory, 'out');
  let failure: unknown = null;
  const server = createServer((socket) => {
    const parser = new StreamParser(handle(socket));
    const guarded = (work: () => void) => {
      try {
        work();
      } catch (error) {
        failure ??= error;
        socket.destroy();
      }
    };
    socket.on('data', (data) => {
      guarded(() => parser.feed(data));
    });
    socket.on('error', () => {});
    socket.on('end', () => guarded(() => parser.end()));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await setCapabilities(qemu.qmp, { 'return-path': true, 'postcopy-ram': postCopy });
    // Slow until it was told of post-copy, or it would be done before.
    await setParameters(qemu.qmp, { 'max-bandwidth': postCopy ? 100_000 : 2 ** 30 });
    await migrate(qemu.qmp, `unix:${path}`);
    if (postCopy) {
      await until(async () => (await migrationState(qemu.qmp)).status === 'active');
      await startPostCopy(qemu.qmp);
    }
    await until(async () => {
      if (failure) throw failure;
      const { status, reason } = await migrationState(qemu.qmp);
      if (status === 'failed') throw failure ?? new Error(`QEMU: ${reason}`);
      return status === 'completed';
    });
  } finally {
    server.close();
  }
}

/** A stream of a QEMU that ran, recorded now. */
export async function record(postCopy: boolean, machine = SMALL): Promise<Buffer> {
  const ends: (() => Promise<void>)[] = [];
  try {
    return await drain(await startQemu([], machine, (end) => ends.push(end)), postCopy);
  } finally {
    for (const end of ends) await end();
  }
}

export interface Arrival {
  readonly socket: Socket;
  /** Who is told of requests from now on. */
  onRequest(listener: ReturnPathHandler['onRequest']): void;
  /** Resolves to what SHUT said. */
  readonly shut: Promise<number>;
}

/** A connection to a QEMU that waits with `-incoming defer`, and what comes back on it; it says nothing before it was told of its blocks. */
export async function arriveAt(
  qemu: Qemu,
  blocks: () => readonly RamBlock[],
  capabilities: object = CAPABILITIES,
): Promise<Arrival> {
  const path = join(qemu.directory, 'in');
  await setCapabilities(qemu.qmp, { ...capabilities });
  await migrateIncoming(qemu.qmp, `unix:${path}`);
  const socket = connect(path);
  let listener: ReturnPathHandler['onRequest'] = () => {};
  const shut = new Promise<number>((resolve, reject) => {
    const handler: ReturnPathHandler = {
      onShut: resolve,
      onPong: () => {},
      onRequest: (...request) => listener(...request),
      onSwitchoverAck: () => {},
    };
    let parser: ReturnPathParser | null = null;
    socket.on('data', (data) => {
      try {
        parser ??= new ReturnPathParser(handler, blocks());
        parser.feed(data);
      } catch (error) {
        reject(error);
      }
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the destination has closed the connection')));
  });
  onTestFinished(() => void socket.destroy());
  // Awaited later, or not at all.
  shut.catch(() => {});
  const onRequest: Arrival['onRequest'] = (other) => {
    listener = other;
  };
  return { socket, onRequest, shut };
}
