// Tickets: who has come in by TLS is given one, and with it may open one plain connection more, on which sealed blocks travel without being
// encrypted a second time. The client begins that connection with
//
//    0  "ABDT"
//    4  the ticket's id, 16 bytes
//
// and from then on both sides prove each piece that they send (proof.ts) by the ticket's secret, which only went over TLS. To know the id is of no use:
// a ticket is good once and for half a minute, and who takes it without its secret can say nothing.

import { randomBytes } from 'node:crypto';
import { AbdmError } from '../../bindings/errors.js';
import { type JsonObject, need } from './json.js';

/** What the client is told, as JSON carries it. */
export interface Ticket {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** 64 hexadecimal digits. */
  readonly secret: string;
}

/** What the one who issued it gets back when it is used. */
export interface UsedTicket {
  /** What `issue` was given. */
  readonly context: unknown;
  readonly secret: Uint8Array;
}

const MAGIC = Buffer.from('ABDT');
const ID_BYTES = 16;
const SECRET_BYTES = 32;
export const PREAMBLE_BYTES = MAGIC.byteLength + ID_BYTES;
const TICKET_MS = 30_000;
/** Beyond this the oldest is not good any more. */
const MAX_TICKETS = 1024;

/** The tickets of one listener. */
export class Tickets {
  readonly #ticketMs: number;
  /** By id; the oldest first. */
  readonly #open = new Map<string, UsedTicket & { readonly goodUntilMs: number }>();

  constructor(ticketMs = TICKET_MS) {
    this.#ticketMs = ticketMs;
  }

  /** A ticket for one connection, to be sent over TLS. @param context whatever its use is to be tied to, such as a migration. */
  issue(context: unknown): Ticket {
    const id = randomBytes(ID_BYTES).toString('hex');
    const secret = randomBytes(SECRET_BYTES);
    const nowMs = performance.now();
    for (const [oldest, { goodUntilMs }] of this.#open) {
      if (goodUntilMs > nowMs && this.#open.size < MAX_TICKETS) break;
      this.#open.delete(oldest);
    }
    this.#open.set(id, { context, secret, goodUntilMs: nowMs + this.#ticketMs });
    return { id, secret: secret.toString('hex') };
  }

  /** Uses up the ticket with this id; null if there is none: unknown, used before, or too old. */
  use(id: string): UsedTicket | null {
    const ticket = this.#open.get(id);
    this.#open.delete(id);
    return ticket !== undefined && performance.now() < ticket.goodUntilMs ? ticket : null;
  }
}

/** What the client sends first. */
export function preambleOf({ id }: Ticket): Uint8Array {
  return Buffer.concat([MAGIC, Buffer.from(id, 'hex')]);
}

/** The id that a connection's first bytes name; null if they are no preamble; undefined if it takes more of them to tell. */
export function readPreamble(bytes: Uint8Array): string | null | undefined {
  const common = Math.min(bytes.byteLength, MAGIC.byteLength);
  if (MAGIC.compare(bytes, 0, common, 0, common) !== 0) return null;
  if (bytes.byteLength < PREAMBLE_BYTES) return undefined;
  return Buffer.from(bytes.subarray(MAGIC.byteLength, PREAMBLE_BYTES)).toString('hex');
}

/** The ticket in field `name` of a message; null if the field is not there. @throws {AbdmError} `PROTOCOL`. */
export function needTicket(from: JsonObject, name: string, what: string): Ticket | null {
  if (!Object.hasOwn(from, name)) return null;
  const ticket = need.object(from, name, what);
  const hex = (field: 'id' | 'secret', bytes: number) => {
    const text = need.string(ticket, field, what, 2 * bytes);
    if (text.length === 2 * bytes && /^[0-9a-f]*$/.test(text)) return text;
    throw new AbdmError('PROTOCOL', `${what}: \`${name}.${field}\` is not ${2 * bytes} hexadecimal digits`);
  };
  return { id: hex('id', ID_BYTES), secret: hex('secret', SECRET_BYTES) };
}
