// Where a QEMU is told to send to: a socket of our own, in a directory that nobody else can enter. One connection is taken, and what comes on it is
// handed on as it lies.

import { chmodSync, chownSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { takeOver } from '../../wire/takeover.js';
import { imageError, reasonOf } from '../image.js';

/** A unix socket hands over about as much at once. */
const BUFFER_BYTES = 256 * 1024;

export interface InletHandler {
  /** Valid during the call only. */
  onBytes(bytes: Uint8Array): void;
  /** The connection has ended, by whoever. */
  onClosed(): void;
}

export class Inlet {
  /** As QEMU wants to have it. */
  readonly uri: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #handler: InletHandler;
  #socket: Socket | null = null;
  #isHeld = false;

  private constructor(directory: string, path: string, server: Server, handler: InletHandler) {
    this.uri = `unix:${path}`;
    this.#directory = directory;
    this.#server = server;
    this.#handler = handler;
    server.on('connection', this.#onConnection);
    server.on('error', () => {});
  }

  /** @param qmpPath whose owner is to come in. @throws {AbdmError} IMAGE. */
  static async open(qmpPath: string, handler: InletHandler): Promise<Inlet> {
    let directory: string | null = null;
    // Nothing may be read before it is known where to.
    const server = createServer({ pauseOnConnect: true });
    try {
      directory = mkdtempSync(join(tmpdir(), 'abdm-'));
      const path = join(directory, 'migration');
      await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
      letIn(qmpPath, directory, path);
      return new Inlet(directory, path, server, handler);
    } catch (cause) {
      server.close();
      if (directory !== null) rmSync(directory, { recursive: true, force: true });
      const hint = 'TMPDIR says in which directory; run as the user of that QEMU, or as root';
      throw imageError(`cannot make a socket for QEMU: ${reasonOf(cause)}`, hint, cause);
    }
  }

  /** While it is held, nothing is read: QEMU has to wait. */
  hold(isHeld: boolean): void {
    if (this.#isHeld === isHeld) return;
    this.#isHeld = isHeld;
    if (isHeld) this.#socket?.pause();
    else this.#socket?.resume();
  }

  /** Answers on the same connection. */
  send(bytes: Uint8Array): void {
    this.#socket?.write(bytes);
  }

  /** Lets go of the connection; what was sent before arrives. */
  close(): void {
    this.#remove();
    this.#socket?.destroy();
  }

  #remove(): void {
    this.#server.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #onConnection = (accepted: Socket): void => {
    if (this.#socket) return void accepted.destroy();
    // Nobody else is to come: so nothing is left behind, however this process ends.
    this.#remove();
    const callback = (count: number, buffer: Uint8Array) => {
      this.#handler.onBytes(buffer.subarray(0, count));
      return !this.#isHeld;
    };
    const own = takeOver(accepted, { buffer: new Uint8Array(BUFFER_BYTES), callback });
    const socket = own ?? accepted.on('data', (bytes) => this.#handler.onBytes(bytes));
    this.#socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => this.#handler.onClosed());
    if (this.#isHeld) socket.pause();
    else socket.resume();
  };
}

/** A QEMU need not run as the same user. */
function letIn(qmpPath: string, directory: string, path: string): void {
  chmodSync(path, 0o600);
  const { uid, gid } = statSync(qmpPath);
  if (uid === process.getuid?.()) return;
  for (const name of [path, directory]) chownSync(name, uid, gid);
}
