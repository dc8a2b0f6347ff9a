// A way to a listener that goes through somebody's hands: he sees what each connection is, records what passes, and may do with it what he likes.
import { once } from 'node:events';
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net';
import { formatAddress, parseAddress } from '#abdm/host/wire/address.js';

export type Kind = 'tls' | 'plain';
/** One passing piece: what goes on instead of it; null: nothing. `passed`: bytes of this direction before it. */
export type Meddle = (piece: Buffer, at: { connection: number; passed: number; there: boolean }) => Buffer | null;

export class Way {
  address = '';
  /** By kind, how many connections there were. */
  readonly connections = { tls: 0, plain: 0 };
  /** Done to what passes on plain connections. */
  meddle: Meddle = (piece) => piece;
  readonly #passed: Record<Kind, { there: Buffer[]; back: Buffer[] }[]> = { tls: [], plain: [] };
  readonly #open = new Map<Socket, { kind: Kind | null; node: Socket }>();
  readonly #server: Server;

  private constructor(to: string) {
    this.#server = createServer((client) => this.#onConnection(client, netConnect(parseAddress(to))));
  }

  static async to(address: string): Promise<Way> {
    const way = new Way(address);
    await once(way.#server.listen(0, '127.0.0.1'), 'listening');
    way.address = formatAddress({ host: '127.0.0.1', port: (way.#server.address() as { port: number }).port });
    return way;
  }

  /** All that has passed on connections of this kind, one after the other. */
  heard(kind: Kind): Buffer {
    return Buffer.concat(this.#passed[kind].flatMap(({ there, back }) => [...there, ...back]));
  }

  /** What clients said on each connection of this kind. */
  said(kind: Kind): Buffer[] {
    return this.#passed[kind].map(({ there }) => Buffer.concat(there));
  }

  /** Breaks all connections of this kind. */
  reset(kind: Kind): void {
    for (const [client, { kind: other, node }] of this.#open) {
      if (kind !== other) continue;
      client.resetAndDestroy();
      node.resetAndDestroy();
    }
  }

  async close(): Promise<void> {
    for (const [client, { node }] of this.#open) {
      client.destroy();
      node.destroy();
    }
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #onConnection(client: Socket, node: Socket): void {
    const one = { kind: null as Kind | null, node };
    this.#open.set(client, one);
    let recorded: { there: Buffer[]; back: Buffer[] } | undefined;
    let connection = 0;
    const pass = (from: Socket, on: Socket, there: boolean) => {
      let passed = 0;
      from.on('error', () => on.destroy());
      from.on('end', () => on.end());
      from.on('close', () => {
        on.destroy();
        this.#open.delete(client);
      });
      from.on('data', (piece: Buffer) => {
        if (one.kind === null) {
          one.kind = piece[0] === 0x16 ? 'tls' : 'plain';
          connection = this.connections[one.kind]++;
          recorded = { there: [], back: [] };
          this.#passed[one.kind].push(recorded);
        }
        recorded![there ? 'there' : 'back'].push(Buffer.from(piece));
        const sent = one.kind === 'plain' ? this.meddle(piece, { connection, passed, there }) : piece;
        passed += piece.byteLength;
        if (sent !== null && !on.write(sent)) {
          from.pause();
          on.once('drain', () => from.resume());
        }
      });
    };
    pass(client, node, true);
    pass(node, client, false);
  }
}

/** Somebody who lets `bytes` bytes pass that clients say on each of the first `connections` connections, then changes, takes out or repeats a piece, by turns. */
export function disturbing(connections: number, bytes: number): Meddle {
  const done = new Set<number>();
  return (piece, { connection, passed, there }) => {
    if (connection >= connections || !there || passed < bytes || done.has(connection)) return piece;
    done.add(connection);
    if (connection % 3 === 0) {
      const changed = Buffer.from(piece);
      changed[changed.byteLength >> 1]! ^= 1;
      return changed;
    }
    return connection % 3 === 1 ? null : Buffer.concat([piece, piece]);
  };
}
