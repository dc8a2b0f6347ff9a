// Someone who looks like a QEMU that waits for a guest: takes the stream in as it is described, answers what it is asked, and can be told to do
// what a real one does seldom.
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { RamBlock } from '#abdm/host/qemu/format.js';
import { returnPath } from '#abdm/host/qemu/return-path.js';
import { StreamParser } from '#abdm/host/qemu/stream.js';
import { Drained } from '../../qemu/events.js';
import { tempDir } from '../../temp.js';

const GREETING = { QMP: { version: { qemu: { micro: 1, minor: 2, major: 7 }, package: '' }, capabilities: [] } };

interface Arguments {
  readonly uri?: string;
  readonly capabilities?: readonly { readonly capability: string; readonly state: boolean }[];
}

export class FakeQemu extends Drained {
  readonly path = join(tempDir(), 'qmp');
  /** What it was asked, in its order. */
  readonly asked: string[] = [];
  /** What comes once the guest has its state, in its order: block, offset. */
  readonly late: [number, number][] = [];
  /** Says no to a command, with this reason. */
  readonly refuses = new Map<string, string>();
  /** By name: on or off. */
  readonly capabilities = new Map<string, boolean>();
  status = 'inmigrate';
  stream: Socket | null = null;
  readonly #sockets = new Set<Socket>();

  async begin(): Promise<this> {
    await this.#listen(this.path, (socket) => {
      socket.write(`${JSON.stringify(GREETING)}\n`);
      let text = '';
      socket.on('data', (data) => {
        const lines = (text + data).split('\n');
        text = lines.pop()!;
        for (const line of lines) this.#command(socket, JSON.parse(line));
      });
    });
    return this;
  }

  /** QEMU waits for these bytes. */
  request(block: number, start: number, bytes: number): void {
    this.stream!.write(returnPath.request(this.blocks[block] as RamBlock, start, bytes));
  }

  override onPing(value: number): void {
    super.onPing(value);
    if (value === 3) this.status = 'paused';
    this.stream!.write(returnPath.pong(value));
  }
  override onPage(block: number, offset: number, bytes: Uint8Array, at: number): void {
    this.#note(block, offset);
    super.onPage(block, offset, bytes, at);
  }
  override onZero(block: number, offset: number): void {
    this.#note(block, offset);
    super.onZero(block, offset);
  }
  override onEnd(): void {
    this.stream!.write(returnPath.shut(0));
  }

  #note(block: number, offset: number): void {
    if (!this.state) return;
    // What a real one does to a page that it has.
    if (this.pages[block]!.has(offset)) throw new Error(`page ${offset} of block ${block} came twice`);
    this.late.push([block, offset]);
  }

  #command(
    socket: Socket,
    { execute, arguments: args, id }: { execute: string; arguments?: Arguments; id: number },
  ): void {
    this.asked.push(execute);
    const answer = (body: object) => void socket.write(`${JSON.stringify({ ...body, id })}\n`);
    const desc = this.refuses.get(execute);
    if (desc) return answer({ error: { class: 'GenericError', desc } });
    if (execute === 'query-status')
      return answer({ return: { status: this.status, running: this.status === 'running' } });
    if (execute === 'query-migrate-capabilities') {
      return answer({ return: [...this.capabilities].map(([capability, state]) => ({ capability, state })) });
    }
    for (const { capability, state } of args?.capabilities ?? []) this.capabilities.set(capability, state);
    if (execute === 'query-migrate') return answer({ return: { status: 'failed', 'error-desc': 'its reason' } });
    if (execute === 'quit') return void socket.destroy();
    if (execute === 'cont') this.status = 'running';
    if (execute !== 'migrate-incoming') return answer({ return: {} });
    void this.#listen(args!.uri!.slice('unix:'.length), (stream) => {
      this.stream = stream;
      const parser = new StreamParser(this);
      stream.on('data', (data) => {
        try {
          parser.feed(data);
        } catch (error) {
          stream.destroy(error as Error);
        }
      });
    }).then(() => answer({ return: {} }));
  }

  async #listen(path: string, onSocket: (socket: Socket) => void): Promise<void> {
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      onSocket(socket);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    onTestFinished(() => {
      for (const socket of this.#sockets) socket.destroy();
      server.close();
    });
  }
}
