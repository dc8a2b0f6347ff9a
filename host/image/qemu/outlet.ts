// What goes to a QEMU, in pieces, as fast as it takes them: no more than a few of them are given to its socket at a time, so that a page that somebody waits
// for is next, past all that waits as well. QEMU has a second connection for that (postcopy-preempt), which is not used: in some versions
// pages on it are lost that still come when the first one has ended.

import type { Socket } from 'node:net';

/** Given to the socket at a time: enough for its speed, and taken within a millisecond. */
const GIVEN_BYTES = 128 * 1024;
const HIGH_BYTES = 8 * 1024 * 1024;
const LOW_BYTES = 4 * 1024 * 1024;

/** Bytes that belong together: nothing else is sent between them. */
export interface Piece {
  readonly parts: readonly Uint8Array[];
  /** All pages in it are some of [first, end). */
  readonly first: number;
  readonly end: number;
}

export class Outlet {
  /** Called with what nobody needs any more: the socket has taken it. */
  onSent: (bytes: Uint8Array) => void = () => {};
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

  /** Somebody waits for this page: if it is among those that wait here, it is urgent. */
  hurry(pfn: number): void {
    const piece = this.#others.pick(pfn);
    if (piece) this.#urgent.put(piece);
  }

  #give(): void {
    let given = 0;
    const parts: Uint8Array[] = [];
    this.#socket.cork();
    while (given < GIVEN_BYTES) {
      const piece = this.#urgent.take() ?? this.#others.take();
      if (!piece) break;
      for (const bytes of piece.parts) this.#socket.write(bytes);
      parts.push(...piece.parts);
      given += bytesOf(piece);
    }
    this.#isGiving = given > 0;
    // An error is told by the socket itself.
    if (given > 0) this.#socket.write('', (error) => !error && this.#taken(given, parts));
    this.#socket.uncork();
  }

  #taken(bytes: number, parts: readonly Uint8Array[]): void {
    this.#bytes -= bytes;
    for (const part of parts) this.onSent(part);
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
  readonly #pieces: (Piece | null)[] = [];
  #from = 0;

  put(piece: Piece): void {
    this.#pieces.push(piece);
  }

  take(): Piece | null {
    while (this.#from < this.#pieces.length) {
      const piece = this.#pieces[this.#from]!;
      this.#pieces[this.#from++] = null;
      // What was taken goes when it is the larger part.
      if (this.#from * 2 > this.#pieces.length) {
        this.#pieces.splice(0, this.#from);
        this.#from = 0;
      }
      if (piece) return piece;
    }
    return null;
  }

  /** Takes the piece that has this page, if there is one. */
  pick(pfn: number): Piece | null {
    const at = this.#pieces.findIndex((piece) => piece !== null && piece.first <= pfn && pfn < piece.end);
    if (at < 0) return null;
    const piece = this.#pieces[at]!;
    this.#pieces[at] = null;
    return piece;
  }
}

function bytesOf({ parts }: Piece): number {
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  return bytes;
}
