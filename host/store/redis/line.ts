// Connections for blocks, one to each server of Valkey or Redis, and what its replicas have of what was written there.
//
//   SET 1, SET 2, SET 3   ->            WAIT answers for everything that was written before it on its connection, and lets nothing through behind it
//   WAIT 1                ->            until then: so one stands for all that came while the one before it was waited for
//                         <-  3 x OK, 1
//   SET 4, WAIT 1         ->

import { AbdmError } from '../../../bindings/errors.js';
import { type Address, formatAddress } from '../../wire/address.js';
import type { StoreAddress } from '../address.js';
import type { ReadTarget } from '../engine.js';
import { Pipe } from '../pipe.js';
import { command, type Reply, ReplyError, resp } from './resp.js';

/** How long replicas may take to confirm a write. */
export const CONFIRM_MS = 1_000;

export class BlockLine {
  readonly #pipe: Pipe<Reply>;
  #confirming: Promise<unknown> = Promise.resolve();
  #next: Promise<Reply> | null = null;

  constructor(pipe: Pipe<Reply>) {
    this.#pipe = pipe;
  }

  get open(): boolean {
    return this.#pipe.open;
  }

  /** @param asking the server is just being given what this is about. @throws {AbdmError} PEER_GONE. */
  ask(parts: readonly (string | Uint8Array)[], asking: boolean, target?: ReadTarget): Promise<Reply> {
    if (asking) void this.#pipe.ask(command('ASKING')).catch(() => {});
    return this.#pipe.ask(parts, target);
  }

  /** How many replicas have all that was written here before; it is enough to have heard of so many. @throws {AbdmError} PEER_GONE. */
  confirm(replicas: number): Promise<Reply> {
    this.#next ??= this.#confirming.then(() => {
      this.#next = null;
      const confirmed = this.#pipe.ask(command('WAIT', String(replicas), String(CONFIRM_MS)));
      this.#confirming = confirmed.catch(() => {});
      return confirmed;
    });
    return this.#next;
  }

  close(): void {
    this.#pipe.close();
  }
}

export class BlockLines {
  readonly #address: StoreAddress;
  readonly #timeoutMs: number;
  readonly #lines = new Map<string, Promise<BlockLine>>();
  #closed = false;

  constructor(address: StoreAddress, timeoutMs: number) {
    this.#address = address;
    this.#timeoutMs = timeoutMs;
  }

  /** One that is open, when somebody is let in there. @throws {AbdmError} PEER_GONE, UNAUTHENTICATED. */
  async to(server: Address): Promise<BlockLine> {
    const name = formatAddress(server);
    const known = this.#lines.get(name);
    const line = known && (await known.catch(() => null));
    if (line?.open) return line;
    // Somebody else may have been faster.
    if (known && this.#lines.get(name) !== known) return this.#lines.get(name)!;
    const made = this.#open(server);
    this.#lines.set(name, made);
    made.catch(() => {});
    const opened = await made;
    if (this.#closed) opened.close();
    return opened;
  }

  close(): void {
    this.#closed = true;
    for (const line of this.#lines.values()) {
      line.then(
        (one) => one.close(),
        () => {},
      );
    }
  }

  async #open(server: Address): Promise<BlockLine> {
    const { tls, login, database } = this.#address;
    const pipe = new Pipe(server, tls, resp, this.#timeoutMs);
    const asked: Promise<Reply>[] = [];
    if (login) asked.push(pipe.ask(command('AUTH', ...(login.user ? [login.user] : []), login.password)));
    if (database > 0) asked.push(pipe.ask(command('SELECT', String(database))));
    asked.push(pipe.ask(command('PING')));
    for (const reply of await Promise.all(asked)) {
      if (!(reply instanceof ReplyError)) continue;
      pipe.close('it was not let in');
      throw new AbdmError('UNAUTHENTICATED', `${pipe.name}: ${reply.text}`);
    }
    return new BlockLine(pipe);
  }
}
