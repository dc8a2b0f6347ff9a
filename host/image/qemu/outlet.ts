// What goes to a QEMU, in pieces, as fast as it takes them: no more than a few of them are given to its socket at a time, so that one that somebody waits
// for is next, past all that waits as well. QEMU has a second connection for that (postcopy-preempt), which is not used: in some versions
// pages on it are lost that still come when the first one has ended.

import type { Socket } from 'node:net';

/** Given to the socket at a time: enough for its speed, and taken within a millisecond. */
const GIVEN_BYTES = 128 * 1024;
const HIGH_BYTES = 8 * 1024 * 1024;
const LOW_BYTES = 4 * 1024 * 1024;

/** Bytes that belong together: nothing else is sent between them. */
export type Piece = readonly Uint8Array[];

export class Outlet {
  /** Called when little waits, after each time that something was taken. */
  onLow: () => void = () => {};
  /** Called when it is busy no more. */
  onFree: () => void = () => {};
  readonly #socket: Socket;
  readonly #urgent = new Queue();
  readonly #others = new Queue();
  #bytes = 0;
  #isBusy = false;
  #isGiving = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Much waits; from then on until little does. */
  get isBusy(): boolean {
    return this.#isBusy;
  }

  /** Little waits. */
  get isLow(): boolean {
    return this.#bytes < LOW_BYTES;
  }

  /** One behind the other; those that are urgent before all others. */
  put(piece: Piece, isUrgent: boolean): void {
    (isUrgent ? this.#urgent : this.#others).put(piece);
    this.#bytes += bytesOf(piece);
    if (this.#bytes > HIGH_BYTES) this.#isBusy = true;
    if (!this.#isGiving) this.#give();
  }

  #give(): void {
    let given = 0;
    this.#socket.cork();
    while (given < GIVEN_BYTES) {
      const piece = this.#urgent.take() ?? this.#others.take();
      if (!piece) break;
      for (const bytes of piece) this.#socket.write(bytes);
      given += bytesOf(piece);
    }
    this.#isGiving = given > 0;
    // An error is told by the socket itself.
    if (given > 0) this.#socket.write('', (error) => !error && this.#taken(given));
    this.#socket.uncork();
  }

  #taken(bytes: number): void {
    this.#bytes -= bytes;
    this.#give();
    if (!this.isLow) return;
    if (this.#isBusy) {
      this.#isBusy = false;
      this.onFree();
    }
    this.onLow();
  }
}

class Queue {
  #pieces: (Piece | undefined)[] = [];
  #from = 0;

  put(piece: Piece): void {
    this.#pieces.push(piece);
  }

  take(): Piece | undefined {
    const piece = this.#pieces[this.#from];
    if (!piece) return undefined;
    this.#pieces[this.#from++] = undefined;
    // What was taken goes when it is the larger part.
    if (this.#from * 2 > this.#pieces.length) {
      this.#pieces.splice(0, this.#from);
      this.#from = 0;
    }
    return piece;
  }
}

function bytesOf(piece: Piece): number {
  let bytes = 0;
  for (const part of piece) bytes += part.length;
  return bytes;
}
