// One listening port in front of one target: every connection to it becomes one to the target, and its bytes pass under the proxy's rule.
//
//   client                        proxy                        target
//     --- up --->  [splitter] [rule] [rate] ---------------->
//     <-------------------- [rate] [rule] [splitter]  <--- down ---
//
// A peer that is gone takes the other one's connection with it in the same way: an end for an end, a reset for a reset.

import { connect, createServer, type Server, type Socket } from 'node:net';
import { MessageType } from '#abdm/host/wire/messages.js';
import { bodyOf, type Message, MessageSplitter } from './messages.js';
import type { Direction, Rule, Tamper } from './rule.js';
import { pretend, Tamperer } from './tamper.js';

/** What all proxies of a process count together. */
export interface Totals {
  frames: number;
  tampered: number;
  resets: number;
  /** The connection is reset when `frames` is this. */
  resetAt: number | null;
  /** Who answers GET with something else, and how: the one whose turn it is after so many honest answers. */
  lie: { readonly how: Tamper; honest: number; liar: TcpProxy | null } | null;
}

export class TcpProxy {
  readonly #host: string;
  readonly #port: number;
  readonly #totals: Totals;
  readonly #tamperer = new Tamperer();
  #rule: Rule = {};
  /** Of each connection that stands: how to reset it. */
  readonly #resets = new Set<() => void>();
  #server: Server | null = null;
  /** When the link is free again, by direction: milliseconds of performance.now. */
  readonly #freeAt: Record<Direction, number> = { up: 0, down: 0 };

  constructor(target: string, totals: Totals) {
    const colon = target.lastIndexOf(':');
    this.#host = target.slice(0, colon);
    this.#port = Number(target.slice(colon + 1));
    this.#totals = totals;
  }

  get rule(): Rule {
    return this.#rule;
  }

  set rule(rule: Rule) {
    this.#rule = rule;
    if (rule.cut) for (const reset of this.#resets) reset();
  }

  /** Listens on a free port of loopback; resolves to its address. */
  listen(): Promise<string> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client));
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => resolve(`127.0.0.1:${(server.address() as { port: number }).port}`));
    });
  }

  /** Takes no more connections. */
  close(): void {
    this.#server?.close();
  }

  #accept(client: Socket): void {
    if (this.#rule.cut) {
      client.on('error', () => {});
      client.resetAndDestroy();
      return;
    }
    const target = connect({ host: this.#host, port: this.#port, allowHalfOpen: true, noDelay: true });
    const reset = () => {
      client.resetAndDestroy();
      target.resetAndDestroy();
    };
    for (const socket of [client, target]) socket.on('error', reset);
    this.#resets.add(reset);
    client.on('close', () => {
      this.#resets.delete(reset);
      target.destroy();
    });
    target.on('close', () => client.destroy());
    this.#pump('up', client, target, reset);
    this.#pump('down', target, client, reset);
  }

  #pump(direction: Direction, from: Socket, to: Socket, reset: () => void): void {
    const splitter = new MessageSplitter();
    let raw = false;
    from.on('data', async (chunk: Buffer) => {
      // One chunk at a time: the next one is read when this one has passed.
      from.pause();
      while (this.#rule.frozen && !from.destroyed) await later(20);
      if (this.#rule.deaf !== direction) {
        await this.#pace(direction, chunk.length);
        // TLS is none of our business: it begins with a byte that no message has.
        raw ||= chunk[0] === 0x16 && from.bytesRead === chunk.length;
        if (raw) to.write(chunk);
        else for (const message of splitter.push(chunk)) this.#pass(direction, message, to, reset);
        if (to.writableNeedDrain)
          await new Promise<void>((resolve) => to.once('drain', resolve).once('close', resolve));
      }
      from.resume();
    });
    from.on('end', () => {
      if (this.#rule.deaf === direction) return;
      to.end(splitter.rest());
    });
  }

  #pass(direction: Direction, message: Message, to: Socket, reset: () => void): void {
    const totals = this.#totals;
    to.write(this.#edited(direction, message));
    if (message.type !== MessageType.PUT && message.type !== MessageType.FRAME) return;
    if (++totals.frames !== totals.resetAt) return;
    totals.resets++;
    // What was written has a moment to arrive: the boundary is behind the frame, not within it.
    setTimeout(reset, 5);
  }

  #edited(direction: Direction, message: Message): Buffer {
    const { remembered, freeBytes } = this.#rule;
    if (direction === 'down' && freeBytes !== undefined) return pretend(message, freeBytes);
    if (!remembered) return message.bytes;
    if (message.type === MessageType.HELLO) this.#tamperer.hello(bodyOf(message));
    else if (message.type === MessageType.PUT) this.#tamperer.remember(message);
    else if (message.type === MessageType.FRAME) return this.#answer(message);
    return message.bytes;
  }

  #answer(message: Message): Buffer {
    const { lie } = this.#totals;
    if (lie === null) return message.bytes;
    if (lie.liar === null && lie.honest-- <= 0) lie.liar = this;
    const changed = lie.liar === this ? this.#tamperer.change(message, lie.how) : null;
    if (changed) this.#totals.tampered++;
    return changed ?? message.bytes;
  }

  /** Until the link has carried so many bytes more. */
  async #pace(direction: Direction, bytes: number): Promise<void> {
    const { bytesPerS } = this.#rule;
    if (bytesPerS === undefined) return;
    const now = performance.now();
    this.#freeAt[direction] = Math.max(now, this.#freeAt[direction]) + (bytes / bytesPerS) * 1000;
    await later(this.#freeAt[direction] - now);
  }
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
