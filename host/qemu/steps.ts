// Cuts bytes that come in chunks of any size into pieces of the sizes that are asked for, one after the other. A piece that lies whole in a chunk is
// handed out where it lies; only one that chunks divide is copied.

/** Gets the piece that was asked for: bytes[at] and what follows, valid during the call only. It asks for the next one, or gets one of the same size. */
export type Step = (bytes: Uint8Array, at: number) => void;
/** Gets bytes [at, end), valid during the call only. */
export type Part = (bytes: Uint8Array, at: number, end: number) => void;

/** A piece is at most this long: a page. */
export const MAX_PIECE_BYTES = 4096;

export class Steps {
  #step: Step;
  #need: number;
  /** Gets what comes, however little; null: pieces are asked for. */
  #part: Part | null = null;
  #partBytes = 0;
  readonly #held = new Uint8Array(MAX_PIECE_BYTES);
  #heldBytes = 0;

  constructor(bytes: number, step: Step) {
    this.#need = bytes;
    this.#step = step;
  }

  /** A piece has begun and is not complete. */
  get midway(): boolean {
    return this.#heldBytes > 0 || this.#part !== null;
  }

  /** The next piece: 1 to MAX_PIECE_BYTES. */
  next(bytes: number, step: Step): void {
    this.#need = bytes;
    this.#step = step;
  }

  /** The next bytes, as they come; once these are all, `then` says what is next. `bytes` may be Infinity. */
  through(bytes: number, part: Part, then: () => void = () => {}): void {
    this.#partBytes = bytes;
    this.#part = (from, at, end) => {
      part(from, at, end);
      if (this.#partBytes > 0) return;
      this.#part = null;
      then();
    };
  }

  feed(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      const from = at;
      if (this.#part !== null) {
        at = Math.min(chunk.length, at + this.#partBytes);
        this.#partBytes -= at - from;
        this.#part(chunk, from, at);
      } else if (this.#heldBytes === 0 && chunk.length - at >= this.#need) {
        at += this.#need;
        this.#step(chunk, from);
      } else {
        at = Math.min(chunk.length, at + this.#need - this.#heldBytes);
        this.#held.set(chunk.subarray(from, at), this.#heldBytes);
        this.#heldBytes += at - from;
        if (this.#heldBytes < this.#need) return;
        this.#heldBytes = 0;
        this.#step(this.#held, 0);
      }
    }
  }
}
