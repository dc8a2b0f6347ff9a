// A byte stream taken apart into the messages of docs/protocol.md. It checks nothing: what is wrong with them is for the ends to say.
import { HEADER_BYTES } from '#abdm/host/wire/messages.js';

/** A whole message, header and body. */
export interface Message {
  readonly type: number;
  readonly id: number;
  readonly bytes: Buffer;
}

export class MessageSplitter {
  #parts: Buffer[] = [];
  #bytes = 0;
  #needed = HEADER_BYTES;

  /** The messages that are whole with this chunk. */
  push(chunk: Buffer): Message[] {
    this.#parts.push(chunk);
    this.#bytes += chunk.length;
    const messages: Message[] = [];
    while (this.#bytes >= this.#needed) {
      const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
      this.#parts = [all];
      const whole = HEADER_BYTES + all.readUInt32LE(4);
      if (this.#bytes >= whole) {
        const bytes = all.subarray(0, whole);
        messages.push({ type: bytes[0]!, id: Number(bytes.readBigUInt64LE(8)), bytes });
        this.#parts = [all.subarray(whole)];
        this.#bytes -= whole;
        this.#needed = HEADER_BYTES;
      } else this.#needed = whole;
    }
    return messages;
  }

  /** What has come of a message that is not whole. */
  rest(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** The message with another body. */
export function withBody({ bytes }: Message, body: Uint8Array): Buffer {
  const made = Buffer.concat([bytes.subarray(0, HEADER_BYTES), body]);
  made.writeUInt32LE(body.byteLength, 4);
  return made;
}

export function bodyOf({ bytes }: Message): Buffer {
  return bytes.subarray(HEADER_BYTES);
}
