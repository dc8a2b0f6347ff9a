// The memory of a guest (host/guest) as an image that is read while the guest runs and writes to it. The bytes come from its file, all else goes over its
// socket.

import { closeSync, openSync, readSync } from 'node:fs';
import { PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { GuestClient } from '../guest/client.js';
import { type JsonObject, need } from '../wire/json.js';
import { checkRange, imageError, layOut, type Region, reasonOf, type TrackedGuest } from './image.js';

const MAX_READ_BYTES = 1 << 30;

/** Opens the memory of the guest at `socket`, which runs on. @throws {AbdmError} IMAGE. */
export async function openGuest(socket: string): Promise<TrackedGuest> {
  const client = await GuestClient.open(socket);
  try {
    const { answer } = await client.request({ ask: 'source' });
    return new RunningGuest(client, `guest ${socket}`, answer);
  } catch (error) {
    client.close();
    throw misunderstood(socket, error);
  }
}

/** What a guest says of itself may make no sense: that is a failure of the image too. */
export function misunderstood(socket: string, error: unknown): unknown {
  if (!(error instanceof AbdmError) || error.code === 'IMAGE') return error;
  return imageError(`guest ${socket}: ${error.message}`, 'start it anew', error);
}

/** The files that a guest has named. */
export function openFile(description: string, answer: JsonObject, name: string, flags: 'r' | 'r+'): number {
  const path = need.string(answer, name, 'the answer', 4096);
  try {
    return openSync(path, flags);
  } catch (error) {
    throw imageError(`the ${name} of ${description} cannot be opened: ${reasonOf(error)}`, 'run as its user', error);
  }
}

class RunningGuest implements TrackedGuest {
  readonly description: string;
  readonly guestId: string;
  readonly regions: readonly Region[];
  readonly pages: number;
  readonly bytes: number;
  readonly #client: GuestClient;
  #file: number;

  constructor(client: GuestClient, description: string, answer: JsonObject) {
    this.#client = client;
    this.description = description;
    this.guestId = need.string(answer, 'guest', 'the answer');
    this.bytes = need.integer(answer, 'bytes', 'the answer', PAGE_BYTES);
    this.regions = layOut([{ name: 'memory', address: 0, bytes: this.bytes }]);
    this.pages = Math.ceil(this.bytes / PAGE_BYTES);
    this.#file = openFile(description, answer, 'memory', 'r');
  }

  // The guest may write to a page just while it is read here, so that half of it is old and half new. That does no harm: it writes and counts the page as
  // dirty in one go, in which it hears nobody. So a `dirty` that was answered before that write does not name the page, and the next one does, and it is
  // read again; the last one comes after `stop`. And what a `dirty` names was written before its answer: who reads it then reads all of that.
  read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    checkRange(this.description, pfn, pages, this.pages);
    if (this.#client.gone) throw this.#client.gone;
    readAll(this.description, this.#file, memory, offset, pages * PAGE_BYTES, pfn * PAGE_BYTES);
  }

  async dirty(bitmap: Uint8Array): Promise<void> {
    const { body } = await this.#client.request({ ask: 'dirty' });
    if (body.length !== Math.ceil(this.pages / 8) || bitmap.length < body.length) {
      throw imageError(`${this.description} named dirty pages that it does not have`, 'start it anew');
    }
    for (let i = 0; i < body.length; i++) bitmap[i]! |= body[i]!;
  }

  async stop(): Promise<Uint8Array> {
    return (await this.#client.request({ ask: 'stop' })).body;
  }

  async resume(): Promise<void> {
    await this.#client.request({ ask: 'resume' });
  }

  async release(): Promise<void> {
    await this.#client.request({ ask: 'release' });
  }

  abandon(): void {
    this.close();
  }

  /** A guest that runs, runs on; one that was stopped stays so: only `resume` lets it go on. */
  close(): void {
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = -1;
    this.#client.close();
  }
}

/** Reads the whole of `bytes` bytes. @throws {AbdmError} IMAGE. */
export function readAll(
  description: string,
  file: number,
  memory: Uint8Array,
  offset: number,
  bytes: number,
  from: number,
) {
  try {
    for (let done = 0; done < bytes; ) {
      const some = Math.min(bytes - done, MAX_READ_BYTES);
      const count = readSync(file, memory, offset + done, some, from + done);
      if (count === 0) throw new Error('it has become shorter');
      done += count;
    }
  } catch (error) {
    throw imageError(`cannot read the memory of ${description}: ${reasonOf(error)}`, 'start it anew', error);
  }
}
