// Who listens on a path and says again what he heard: what a client sent on a connection, and what nodes announced.
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { connect, createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Stands between a client and a node, and keeps what the client sends. */
export class SessionRecorder {
  address = '';
  /** What each connection has sent so far. */
  readonly sessions: Buffer[][] = [];
  readonly #target: { host: string; port: number };
  readonly #server: Server;

  constructor(target: string) {
    this.#target = { host: '127.0.0.1', port: Number(target.split(':')[1]) };
    this.#server = createServer((client) => {
      const session: Buffer[] = [];
      this.sessions.push(session);
      const node = connect(this.#target);
      client.on('data', (bytes: Buffer) => session.push(bytes));
      client.pipe(node).pipe(client);
      for (const [one, other] of [
        [client, node],
        [node, client],
      ] as const) {
        one.on('error', () => other.destroy());
        one.on('close', () => other.destroy());
      }
    });
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.address = `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
    return this;
  }

  /** Says a session again to the node. Resolves to what the node answered, when it has ended the connection, or has said nothing more for a while. */
  async replay(session: readonly Buffer[]): Promise<Buffer> {
    const socket = connect(this.#target);
    const heard: Buffer[] = [];
    const ended = new Promise<void>((resolve) => socket.on('close', () => resolve()));
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => heard.push(bytes));
    for (const bytes of session) socket.write(bytes);
    await Promise.race([ended, sleep(3_000)]);
    socket.destroy();
    return Buffer.concat(heard);
  }

  close(): void {
    this.#server.close();
  }
}

/** Hears the announcements of a multicast group, and can say them again. */
export class AnnouncementRecorder {
  readonly datagrams: Buffer[] = [];
  readonly #socket: UdpSocket;
  readonly #group: string;
  readonly #port: number;

  constructor(place: string) {
    const [group, port] = place.split(':') as [string, string];
    this.#group = group;
    this.#port = Number(port);
    this.#socket = createSocket({ type: 'udp4', reuseAddr: true });
    this.#socket.on('message', (datagram) => this.datagrams.push(datagram));
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#socket.bind(this.#port, resolve));
    // On every interface that nodes may announce on: loopback, and where this host's packets for the group go.
    for (const through of ['127.0.0.1', undefined]) {
      try {
        this.#socket.addMembership(this.#group, through);
      } catch {
        // No route for multicast, or the same interface.
      }
    }
    return this;
  }

  /** Says a datagram, to the group. */
  async say(datagram: Buffer): Promise<void> {
    for (const through of ['127.0.0.1', '0.0.0.0']) {
      try {
        this.#socket.setMulticastInterface(through);
        await new Promise<void>((resolve) => this.#socket.send(datagram, this.#port, this.#group, () => resolve()));
      } catch {
        // As above.
      }
    }
  }

  close(): void {
    this.#socket.close();
  }
}
