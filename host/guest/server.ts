// A guest's socket. Anybody of the same user may ask; one at a time may migrate it, as long as the connection lasts.

import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { Guest } from './guest.js';
import { Lines } from './lines.js';
import { bodyBytes, type Request, readRequest } from './protocol.js';

const MAX_CONNECTIONS = 16;
/** Requests of one connection that wait for the one before. */
const MAX_QUEUED = 64;
/** What a socket's address has room for (sun_path, less its last zero), on every system that we know. */
const MAX_PATH_BYTES = 103;

interface Reply {
  readonly answer?: object;
  readonly body?: Uint8Array;
}

export class GuestServer {
  readonly #guest: Guest;
  readonly #quit: () => void;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Who migrates the guest. */
  #migrator: { readonly socket: Socket; readonly as: 'source' | 'sink' } | null = null;

  private constructor(guest: Guest, quit: () => void, server: Server) {
    this.#guest = guest;
    this.#quit = quit;
    this.#server = server;
  }

  /** @param quit asked for. @throws {AbdmError} IMAGE if it cannot listen there, or another guest does. */
  static async listen(path: string, guest: Guest, quit: () => void): Promise<GuestServer> {
    if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
      throw new AbdmError('IMAGE', `a guest cannot listen at ${path}: the name is too long for a socket`);
    }
    if (await isAnswered(path)) throw new AbdmError('IMAGE', `a guest is at ${path} already`);
    // Left by one that was killed.
    rmSync(path, { force: true });
    const server = createServer();
    server.maxConnections = MAX_CONNECTIONS;
    // The memory of the guest is no secret for whoever may connect: its user, and nobody else.
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('listening', resolve);
        server.once('error', (cause) => {
          reject(new AbdmError('IMAGE', `a guest cannot listen at ${path}: ${cause.message}`, { cause }));
        });
        server.listen(path);
      });
    } finally {
      process.umask(mask);
    }
    const guests = new GuestServer(guest, quit, server);
    server.on('connection', (socket) => guests.#onConnection(socket));
    return guests;
  }

  /** Node removes the socket's name. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    let queued = 0;
    let last: Promise<void> = Promise.resolve();
    const lines = new Lines(socket, {
      bodyBytes: bodyBytes.ofRequest,
      onMessage: (message, body) => {
        const request = readRequest(message);
        if (++queued > MAX_QUEUED) throw new AbdmError('PROTOCOL', 'too many requests at a time');
        last = last.then(async () => {
          const { answer, body: bytes } = await this.#answer(request, body, socket, lines);
          if (answer) lines.send(answer, bytes);
          queued--;
        });
      },
      onError: (error) => {
        lines.send(refusal(error));
        socket.end(() => socket.destroy());
      },
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (this.#migrator?.socket !== socket) return;
      // The guest stays as it is. What came before the end is there all the same.
      this.#migrator = null;
      this.#guest.onFault = () => {};
      this.#guest.wake();
    });
  }

  async #answer(request: Request, body: Uint8Array, socket: Socket, lines: Lines): Promise<Reply> {
    try {
      if (socket.destroyed) return {};
      if (!('ask' in request)) {
        this.#onlyFor(socket, 'sink');
        this.#guest.wake();
        return {};
      }
      const { answer = {}, body: bytes } = await this.#do(request, body, socket, lines);
      return { answer: { ok: true, ...answer }, ...(bytes && { body: bytes }) };
    } catch (error) {
      return { answer: refusal(error) };
    }
  }

  async #do(
    request: Extract<Request, { ask: unknown }>,
    body: Uint8Array,
    socket: Socket,
    lines: Lines,
  ): Promise<Reply> {
    const guest = this.#guest;
    switch (request.ask) {
      case 'status':
        return { answer: { ...guest.status(), migrator: this.#migrator !== null } };
      case 'verify':
        return { answer: await guest.verify() };
      case 'quit':
        setImmediate(this.#quit);
        return {};
      case 'stop':
        this.#notWhileMigrating(socket);
        guest.stop();
        return this.#migrator ? { body: guest.executionState() } : {};
      case 'resume':
        this.#notWhileMigrating(socket);
        guest.resume();
        return {};
      case 'source':
        this.#isFree();
        return { answer: this.#become('source', socket, guest.beSource()) };
      case 'dirty':
        this.#onlyFor(socket, 'source');
        return { body: guest.takeDirty() };
      case 'release':
        this.#onlyFor(socket, 'source');
        guest.release();
        return {};
      case 'sink': {
        this.#isFree();
        const answer = this.#become('sink', socket, guest.beSink(request.bytes, request.keep));
        guest.onFault = (pfns) => lines.send({ fault: pfns });
        guest.wake();
        // What was waited for before is still waited for: said after the answer.
        setImmediate(() => {
          const waiting = guest.waiting();
          if (waiting.length > 0) guest.onFault(waiting);
        });
        return { answer };
      }
      default:
        this.#onlyFor(socket, 'sink');
        if (request.ask === 'load') guest.load(body);
        else guest[request.ask]();
        return {};
    }
  }

  #become<T>(as: 'source' | 'sink', socket: Socket, answer: T): T {
    this.#migrator = { socket, as };
    return answer;
  }

  #isFree(): void {
    if (this.#migrator) throw refuse('somebody else is migrating the guest');
  }

  #onlyFor(socket: Socket, as: 'source' | 'sink'): void {
    if (this.#migrator?.socket === socket && this.#migrator.as === as) return;
    throw refuse(`only who has said \`${as}\` may ask that`);
  }

  /** Whoever stops a guest behind a migration's back, or lets it go on, would make two of it. */
  #notWhileMigrating(socket: Socket): void {
    if (!this.#migrator) return;
    if (this.#migrator.socket !== socket) throw refuse('the guest is being migrated: abdm cancel ends that');
    this.#onlyFor(socket, 'source');
  }
}

function refuse(what: string): AbdmError {
  return new AbdmError('IMAGE', what);
}

function refusal(error: unknown): object {
  const { code, message } = asAbdmError(error);
  return { ok: false, code, message };
}

/** Whether somebody listens at a socket. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
}
