// A QEMU that waits for a guest (-incoming defer), as a conversation: its monitor, the connection on which it takes the stream in, and what it answers there.
//
//   open      it is asked whether it waits, is told to take post-copy and not to run by itself, listens in a directory of ours, and is connected to
//   ended     by its death, or once it lets go of one of the connections: `onGone` says why, what that means (`hint`), and all that is waited for fails

import { chownSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../../bindings/errors.js';
import type { RamBlock } from '../../qemu/format.js';
import {
  capabilities,
  migrateIncoming,
  migrationState,
  runState,
  setCapabilities,
  stopGuest,
} from '../../qemu/monitor.js';
import { QmpClient } from '../../qemu/qmp.js';
import { ReturnPathParser } from '../../qemu/return-path.js';
import { printable } from '../../wire/json.js';
import { imageError, reasonOf } from '../image.js';
import { Outlet } from './outlet.js';

const ANEW = 'start it anew with -incoming defer, and run the same command again';
/** They change what it expects, or are not for post-copy. */
const NOT_THESE = [
  ...['multifd', 'mapped-ram', 'compress', 'xbzrle', 'block', 'dirty-bitmaps', 'x-colo', 'x-ignore-shared'],
  ...['postcopy-preempt', 'background-snapshot', 'rdma-pin-all'],
];
/** QEMU has no answer while its main thread waits for a page, and pages come from afar. */
const PATIENT_MS = 120_000;
/** QEMU ends within milliseconds; one that waits for a page that never comes does not. */
const QUIT_MS = 5_000;
/** For why a connection has ended there may be no answer. */
const WHY_MS = 2_000;

interface Waiting {
  readonly for: string;
  resolve(): void;
  reject(error: AbdmError): void;
}

export class Incoming {
  /** QEMU waits for these bytes of a block. */
  onRequest: (block: number, start: number, bytes: number) => void = () => {};
  /** What it means if it ends from now on, and what to do: the end of a message. */
  hint = ANEW;
  readonly outlet: Outlet;
  readonly qmp: QmpClient;
  readonly #path: string;
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #onGone: ((error: AbdmError) => void) | null = null;
  #gone: AbdmError | null = null;
  #isShut = false;
  #isClosed = false;

  private constructor(path: string, qmp: QmpClient, socket: Socket, blocks: readonly RamBlock[]) {
    this.#path = path;
    this.qmp = qmp;
    this.#socket = socket;
    this.outlet = new Outlet(socket);
    const answers = new ReturnPathParser(
      {
        onPong: (value) => this.#answered(`pong ${value}`),
        onShut: (value) => this.#shut(value),
        onRequest: (block, start, bytes) => this.onRequest(block, start, bytes),
        onSwitchoverAck: () => {},
      },
      blocks,
    );
    socket.on('data', (data) => {
      try {
        answers.feed(data);
      } catch (error) {
        this.#end(reasonOf(error), error);
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => void this.#lost());
    qmp.onGone = (error) => this.#end('has ended, or its monitor has: why, it may have printed', error);
  }

  /** @throws {AbdmError} IMAGE; a QEMU that could not be connected to is as it was, but for its capabilities. */
  static async open(path: string, blocks: readonly RamBlock[]): Promise<Incoming> {
    const qmp = await QmpClient.open(path);
    try {
      await prepare(qmp, path);
      return new Incoming(path, qmp, await connection(qmp, path), blocks);
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  /** Why it cannot be gone on with, if it cannot. */
  get gone(): AbdmError | null {
    return this.#gone;
  }

  /** Called once, at once if it is gone already. */
  set onGone(onGone: (error: AbdmError) => void) {
    this.#onGone = onGone;
    if (this.#gone) onGone(this.#gone);
  }

  /** Resolves when it answers that PING; ask before it is sent. @throws {AbdmError} IMAGE. */
  pong(value: number): Promise<void> {
    return this.#wait(`pong ${value}`);
  }

  /** Resolves when it has said that it has everything; ask before the end is sent. @throws {AbdmError} IMAGE. */
  shut(): Promise<void> {
    return this.#wait('shut');
  }

  /** From now on it is asked what it may answer late. */
  bePatient(): void {
    this.qmp.answerMs = PATIENT_MS;
  }

  /** It has everything: the connection is not needed any more. */
  closeStream(): void {
    this.#isShut = true;
    this.#socket.destroy();
  }

  /** Ends QEMU, as far as it can be asked to. What waits for an answer fails. */
  async quit(): Promise<void> {
    this.#failAll(this.#letGo);
    const ended = new Promise<void>((resolve) => {
      this.qmp.onGone = () => resolve();
    });
    this.#isClosed = true;
    const asked = this.qmp.execute('quit').then(
      () => ended,
      () => {},
    );
    await Promise.race([asked, sleep(QUIT_MS, undefined, { ref: false })]);
  }

  /** Lets go of it. What waits for an answer fails. */
  close(): void {
    this.#isClosed = true;
    this.qmp.close();
    this.closeStream();
    this.#failAll(this.#letGo);
  }

  get #letGo(): AbdmError {
    return imageError(this.#says('was let go of'), ANEW);
  }

  #wait(what: string): Promise<void> {
    const answer = new Promise<void>((resolve, reject) => {
      if (this.#gone) return reject(this.#gone);
      const timer = setTimeout(() => reject(imageError(this.#says('does not answer'), this.hint)), PATIENT_MS);
      const done = (settle: () => void) => {
        clearTimeout(timer);
        settle();
      };
      this.#waiting.push({
        for: what,
        resolve: () => done(resolve),
        reject: (error) => done(() => reject(error)),
      });
    });
    // It may fail before anybody looks.
    answer.catch(() => {});
    return answer;
  }

  #answered(what: string): boolean {
    const at = this.#waiting.findIndex((waiting) => waiting.for === what);
    if (at < 0) return false;
    this.#waiting.splice(at, 1)[0]!.resolve();
    return true;
  }

  #shut(value: number): void {
    if (value === 0 && this.#answered('shut')) this.#isShut = true;
    else void this.#lost();
  }

  /** The stream has ended, or is about to (a QEMU 10 says so before): it may say why, if it is there to say so. */
  async #lost(): Promise<void> {
    if (this.#isShut) return;
    const state = await Promise.race([migrationState(this.qmp).catch(() => null), sleep(WHY_MS, null, { ref: false })]);
    const reason = state && [state.status, state.reason].filter(Boolean).join(': ');
    this.#end(state ? `has let go of the migration (${printable(reason!)})` : 'has ended: why, it may have printed');
  }

  #end(what: string, cause?: unknown): void {
    if (this.#gone || this.#isClosed) return;
    this.#gone = imageError(this.#says(what), this.hint, cause);
    this.#failAll(this.#gone);
    this.#onGone?.(this.#gone);
  }

  #failAll(error: AbdmError): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  #says(what: string): string {
    return `QEMU at ${this.#path} ${what}`;
  }
}

/** Whether it waits, and for post-copy. */
async function prepare(qmp: QmpClient, path: string): Promise<void> {
  const { status } = await runState(qmp);
  if (status !== 'inmigrate') {
    throw imageError(`QEMU at ${path} does not wait for a guest (it is "${printable(status)}")`, ANEW);
  }
  const has = await capabilities(qmp);
  const off = NOT_THESE.filter((name) => has.get(name)).map((name) => [name, false]);
  try {
    await setCapabilities(qmp, { ...Object.fromEntries(off), 'postcopy-ram': true });
  } catch (error) {
    const hint =
      'start it with -incoming defer, and where its kernel lets it use userfaultfd: as root, or with vm.unprivileged_userfaultfd = 1; what is missing it has printed';
    throw imageError(asAbdmError(error).message, hint, error);
  }
}

/** It listens where nobody else can connect, and does not begin the guest by itself once it is loaded. */
async function connection(qmp: QmpClient, qmpPath: string): Promise<Socket> {
  let directory: string | null = null;
  try {
    directory = mkdtempSync(join(tmpdir(), 'abdm-'));
    // It may run as another user than we do: the one whose monitor this is.
    const { uid, gid } = statSync(qmpPath);
    if (process.geteuid!() === 0 && uid !== 0) chownSync(directory, uid, gid);
    const path = join(directory, 'incoming');
    await migrateIncoming(qmp, `unix:${path}`);
    await stopGuest(qmp);
    return await connected(path);
  } catch (error) {
    const what = error instanceof AbdmError ? error.message : `cannot connect to QEMU: ${reasonOf(error)}`;
    throw imageError(what, `${ANEW}, as the user of that QEMU or as root`, error);
  } finally {
    // What is connected needs no name any more.
    if (directory !== null) rmSync(directory, { recursive: true, force: true });
  }
}

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}
