// A running role's control socket: answers `abdm status`, `rate` and `cancel` from other processes of the same user. It keeps no process alive.

import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { openControlDirectory, socketPath } from './directory.js';
import { type Ending, encodeLine, MAX_REQUEST_BYTES, type Request, readLine, readRequest } from './messages.js';

/** What a role shows of itself, and what may be done to it. */
export interface ControlledRole {
  readonly role: 'eject' | 'merge' | 'intermediate';
  /** What people call it by: its VMs, or where it listens. */
  readonly names: readonly string[];
  /** Anything that JSON takes. */
  status(): object;
  /** Begins to end it. @throws {AbdmError} USAGE if that would lose something now. */
  cancel?(reason: string): void;
  /** Null: no limit. */
  setRate?(bytesPerS: number | null): void;
}

const MAX_CONNECTIONS = 32;
/** A request must be complete within this. */
const REQUEST_MS = 5_000;

export class ControlServer {
  readonly #role: ControlledRole;
  readonly #server: Server;
  readonly #path: string;
  readonly #sockets = new Set<Socket>();
  /** Those who have cancelled it and wait until it is over. */
  readonly #cancelling = new Set<Socket>();

  private constructor(role: ControlledRole, server: Server, path: string) {
    this.#role = role;
    this.#server = server;
    this.#path = path;
  }

  /** Opens the socket of this process. @throws {AbdmError} USAGE if it has no place where it would be safe. */
  static async open(role: ControlledRole): Promise<ControlServer> {
    const path = socketPath(openControlDirectory(true)!, process.pid);
    // Whatever is there was left by a process that had this number before.
    rmSync(path, { force: true });
    const server = createServer();
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once('listening', resolve);
      server.once('error', (cause) => reject(new AbdmError('USAGE', `cannot listen at ${path}: ${cause.message}`)));
      server.listen(path);
    });
    server.unref();
    // Also when it is ended in a hurry.
    process.once('exit', () => rmSync(path, { force: true }));
    const control = new ControlServer(role, server, path);
    server.on('connection', (socket) => control.#onConnection(socket));
    server.on('error', () => {});
    return control;
  }

  /** Removes the socket; those who cancelled are told how it ended. */
  close(ending: Ending | null = null): void {
    this.#server.close();
    rmSync(this.#path, { force: true });
    for (const socket of this.#sockets) {
      if (ending && this.#cancelling.has(socket)) answer(socket, { ok: true, ...ending });
      else socket.destroy();
    }
  }

  async #onConnection(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.unref();
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#cancelling.delete(socket);
    });
    socket.on('error', () => {});
    socket.setTimeout(REQUEST_MS, () => socket.destroy());
    try {
      const request = readRequest(await readLine(socket, MAX_REQUEST_BYTES));
      socket.setTimeout(0);
      const said = this.#do(request, socket);
      if (said) answer(socket, { ok: true, ...said });
    } catch (error) {
      const { code, message } = asAbdmError(error);
      answer(socket, { ok: false, code, message });
    }
  }

  /** What to answer; null: later. */
  #do(request: Request, socket: Socket): object | null {
    const { role, names } = this.#role;
    const refuse = (what: string) => new AbdmError('USAGE', `abdm ${role} ${names.join(', ')} ${what}`);
    switch (request.ask) {
      case 'status':
        return { role, pid: process.pid, names, status: this.#role.status() };
      case 'rate':
        if (!this.#role.setRate) throw refuse('has no rate limit');
        this.#role.setRate(request.bytesPerS);
        return {};
      case 'cancel':
        if (!this.#role.cancel) throw refuse(`is no migration: end it with kill ${process.pid}`);
        this.#role.cancel(request.reason);
        this.#cancelling.add(socket);
        return null;
    }
  }
}

function answer(socket: Socket, said: object): void {
  socket.end(encodeLine(said), () => socket.destroy());
}
