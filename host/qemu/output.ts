// Bytes on their way out: put one behind the other into buffers that are handed on when they are full, or at `flush`.

/** As much as one write to a socket should be. */
const BUFFER_BYTES = 256 * 1024;
/** Buffers that are kept for the next bytes: new ones cost more than what is put into them, as the system has to find and clear their memory. */
const SPARE_BUFFERS = 64;

export class Output {
  readonly #send: (bytes: Uint8Array) => void;
  #buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #spare: Buffer[] = [];
  /** How much that was handed on of each buffer was not released. */
  readonly #lent = new WeakMap<ArrayBufferLike, number>();
  /** Where the bytes begin that were not handed on. */
  #from = 0;
  #at = 0;

  /** @param send gets bytes that are its own, until it releases them. */
  constructor(send: (bytes: Uint8Array) => void) {
    this.#send = send;
  }

  u8(value: number): void {
    this.#room(1);
    this.#at = this.#buffer.writeUInt8(value, this.#at);
  }

  u16(value: number): void {
    this.#room(2);
    this.#at = this.#buffer.writeUInt16BE(value, this.#at);
  }

  u32(value: number): void {
    this.#room(4);
    this.#at = this.#buffer.writeUInt32BE(value, this.#at);
  }

  /** Below 2^53. */
  u64(value: number): void {
    this.#room(8);
    this.#at = this.#buffer.writeUInt32BE(Math.floor(value / 2 ** 32), this.#at);
    this.#at = this.#buffer.writeUInt32BE(value % 2 ** 32, this.#at);
  }

  /** bytes[at, end), copied. */
  bytes(bytes: Uint8Array, at = 0, end = bytes.length): void {
    for (let from = at; from < end; ) {
      this.#room(1);
      const to = Math.min(end, from + BUFFER_BYTES - this.#at);
      this.#buffer.set(bytes.subarray(from, to), this.#at);
      this.#at += to - from;
      from = to;
    }
  }

  /** A name of at most 255 characters of ASCII, behind its length in a byte. */
  name(name: string): void {
    this.u8(name.length);
    this.bytes(Buffer.from(name, 'latin1'));
  }

  flush(): void {
    if (this.#at === this.#from) return;
    const { buffer } = this.#buffer;
    this.#lent.set(buffer, (this.#lent.get(buffer) ?? 0) + 1);
    const bytes = this.#buffer.subarray(this.#from, this.#at);
    this.#from = this.#at;
    this.#send(bytes);
  }

  /** Nobody needs these bytes any more, which `send` got. Where that is never said, each buffer is a new one. */
  release({ buffer }: Uint8Array): void {
    const lent = this.#lent.get(buffer)! - 1;
    if (lent > 0) return void this.#lent.set(buffer, lent);
    this.#lent.delete(buffer);
    if (buffer !== this.#buffer.buffer && this.#spare.length < SPARE_BUFFERS) this.#spare.push(Buffer.from(buffer));
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= BUFFER_BYTES) return;
    this.flush();
    // What was released of it already is not lent: it is full, and nobody needs it.
    if (this.#lent.has(this.#buffer.buffer)) this.#buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
    this.#from = 0;
    this.#at = 0;
  }
}
