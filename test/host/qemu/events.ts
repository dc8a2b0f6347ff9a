// What a stream brings, for tests: as a digest of all of it in its order, as the memory that it leaves behind, and passed on to a writer.
import { createHash, type Hash } from 'node:crypto';
import type { Configuration, DeviceState, RamBlock } from '#abdm/host/qemu/format.js';
import { type StreamHandler, StreamParser } from '#abdm/host/qemu/stream.js';
import { StreamWriter } from '#abdm/host/qemu/writer.js';

/** Everything that matters to a guest. */
export class Digest implements StreamHandler {
  readonly #hash: Hash = createHash('sha256');
  pages = 0;
  zeros = 0;
  #ended = false;

  get value(): string {
    return this.#hash.copy().digest('hex') + (this.#ended ? ' ended' : '');
  }
  #say(...what: unknown[]): void {
    this.#hash.update(`${JSON.stringify(what)}\n`);
  }
  onConfiguration({ machine, targetPageBits, uuid }: Configuration): void {
    this.#say('configuration', machine, targetPageBits, uuid && [...uuid]);
  }
  onReturnPath(): void {}
  onPing(_value: number): void {}
  onBlocks(blocks: readonly RamBlock[], postCopy: boolean): void {
    this.#say('blocks', blocks, postCopy);
  }
  onPage(block: number, offset: number, bytes: Uint8Array, at: number): void {
    this.pages++;
    this.#say('page', block, offset);
    this.#hash.update(bytes.subarray(at, at + 4096));
  }
  onZero(block: number, offset: number): void {
    this.zeros++;
    this.#say('zero', block, offset);
  }
  onDiscard(block: number, start: number, bytes: number): void {
    this.#say('discard', block, start, bytes);
  }
  onDeviceState({ sections }: DeviceState, postCopy: boolean): void {
    this.#say('state', sections.length, postCopy);
    this.#hash.update(sections);
  }
  onEnd(): void {
    this.#ended = true;
  }
}

/** Writes again what it is told, at once; `keepPages`: no more pages than that. */
export class Relay implements StreamHandler {
  readonly sent: Uint8Array[] = [];
  writer: StreamWriter | null = null;
  blocks: readonly RamBlock[] = [];
  #configuration: Configuration | null = null;
  #returnPath = false;
  #postCopy = false;
  #kept = 0;

  constructor(readonly keepPages = Number.POSITIVE_INFINITY) {}

  get bytes(): Buffer {
    return Buffer.concat(this.sent);
  }
  send(bytes: Uint8Array): void {
    this.sent.push(bytes);
  }
  onConfiguration(configuration: Configuration): void {
    this.#configuration = configuration;
  }
  onReturnPath(): void {
    this.#returnPath = true;
  }
  onPing(_value: number): void {}
  onBlocks(blocks: readonly RamBlock[], postCopy: boolean): void {
    const beginning = {
      configuration: this.#configuration!,
      blocks,
      postCopy,
      returnPath: this.#returnPath || postCopy,
    };
    this.blocks = blocks;
    this.writer = new StreamWriter((bytes) => this.send(bytes), beginning);
  }
  onPage(block: number, offset: number, bytes: Uint8Array, at: number): void {
    if (this.#kept++ < this.keepPages) this.writer!.page(block, offset, bytes, at);
  }
  onZero(block: number, offset: number): void {
    if (this.#kept++ < this.keepPages) this.writer!.zero(block, offset);
  }
  onDiscard(block: number, start: number, bytes: number): void {
    this.writer!.discard(block, [start, bytes]);
  }
  onDeviceState(state: DeviceState, postCopy: boolean): void {
    this.#postCopy = postCopy;
    this.#kept = 0;
    if (postCopy) this.writer!.runNow(state);
    else this.writer!.runAfter(state);
  }
  onEnd(): void {
    if (this.#postCopy) this.writer!.end();
  }
}

/** The whole guest, as it stands at the end of a stream. */
export class Drained implements StreamHandler {
  configuration: Configuration | null = null;
  blocks: readonly RamBlock[] = [];
  state: DeviceState | null = null;
  postCopy = false;
  readonly pings: number[] = [];
  readonly pages: Map<number, Uint8Array | null>[] = [];

  onConfiguration(configuration: Configuration): void {
    this.configuration = configuration;
  }
  onReturnPath(): void {}
  onPing(value: number): void {
    this.pings.push(value);
  }
  onBlocks(blocks: readonly RamBlock[]): void {
    this.blocks = blocks;
    for (const _ of blocks) this.pages.push(new Map());
  }
  onPage(block: number, offset: number, bytes: Uint8Array, at: number): void {
    this.pages[block]!.set(offset, Uint8Array.from(bytes.subarray(at, at + 4096)));
  }
  onZero(block: number, offset: number): void {
    this.pages[block]!.set(offset, null);
  }
  onDiscard(block: number, start: number, bytes: number): void {
    for (let at = start; at < start + bytes; at += 4096) this.pages[block]!.delete(at);
  }
  onDeviceState(state: DeviceState, postCopy: boolean): void {
    this.state = state;
    this.postCopy = postCopy;
  }
  onEnd(): void {}

  /** The stream that brings this guest to a destination, by whichever way. */
  write(send: (bytes: Uint8Array) => void, postCopy: boolean): void {
    const { configuration, blocks, state } = this;
    const writer = new StreamWriter(send, { configuration: configuration!, blocks, returnPath: true, postCopy });
    if (postCopy) {
      for (const [block, { bytes }] of blocks.entries()) writer.discard(block, [0, bytes]);
      writer.runNow(state!);
    }
    for (const [block, pages] of this.pages.entries()) {
      for (const [offset, page] of pages) {
        if (page) writer.page(block, offset, page, 0);
        else writer.zero(block, offset);
      }
    }
    if (postCopy) writer.end();
    else writer.runAfter(state!);
  }
}

/** Parses a whole stream, in chunks of sizes that `sizeOf` says. */
export function parse<H extends StreamHandler>(stream: Uint8Array, handler: H, sizeOf = () => stream.length): H {
  const parser = new StreamParser(handler);
  for (let at = 0; at < stream.length; ) {
    // As a socket gives it, and overwritten once it was fed: nobody may have kept it.
    const chunk = Buffer.from(stream.subarray(at, at + sizeOf()));
    parser.feed(chunk);
    at += chunk.length;
    chunk.fill(0xee);
  }
  parser.end();
  return handler;
}

export function digestOf(stream: Uint8Array, sizeOf?: () => number): string {
  return parse(stream, new Digest(), sizeOf).value;
}
