// What Valkey and Redis are asked, and answer, of the protocol RESP2.
//
//   *6 $3 SET $44 abdm:... $264296 <block> $2 PX $6 120000 $2 NX      ->
//                                                                     <-  +OK, $-1, :1, -MOVED 7 10.0.0.8:6379, or $264296 <block>

import type { Line } from '../pipe.js';

/** What was answered: a number, a text, how many bytes came, nothing, or what is wrong. */
export type Reply = number | string | { readonly bytes: number } | null | ReplyError;

/** The server's word for what is wrong, such as `MOVED 7 10.0.0.8:6379`. */
export class ReplyError {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** A command, of which a part may be a block. */
export function command(...parts: readonly (string | Uint8Array)[]): (string | Uint8Array)[] {
  const pieces: (string | Uint8Array)[] = [];
  let text = `*${parts.length}\r\n`;
  for (const part of parts) {
    text += `$${Buffer.byteLength(part)}\r\n`;
    if (typeof part === 'string') text += part;
    else {
      pieces.push(text, part);
      text = '';
    }
    text += '\r\n';
  }
  pieces.push(text);
  return pieces;
}

export function resp(line: string): Line<Reply> {
  const text = line.slice(1);
  if (line[0] === '+') return { reply: text };
  if (line[0] === '-') return { reply: new ReplyError(text) };
  const number = text === '' ? Number.NaN : Number(text);
  if (!Number.isSafeInteger(number)) return null;
  if (line[0] === ':') return { reply: number };
  if (line[0] !== '$') return null;
  return number < 0 ? { reply: null } : { bytes: number, reply: { bytes: number } };
}
