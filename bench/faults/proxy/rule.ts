// What a proxy does to the connections that go through it. Without any of it, bytes pass as they come.

/** From whoever connected to the target, or back. */
export type Direction = 'up' | 'down';

export interface Rule {
  /** Bytes a second in each direction, all connections together. */
  readonly bytesPerS?: number;
  /** This direction's bytes, and its end, are thrown away; the connection stays up. */
  readonly deaf?: Direction;
  /** Nothing passes either way, and nothing is thrown away. */
  readonly frozen?: boolean;
  /** Every connection is reset: those that stand, and those that are made. */
  readonly cut?: boolean;
  /** What is put here is kept in mind, so that other answers than the node's can be made of it. */
  readonly remembered?: boolean;
  /** WELCOME and STORED speak of so many free bytes. */
  readonly freeBytes?: number;
}

/**
 * What becomes of a node's answers to GET:
 * flip    one bit of it is another
 * swap    the bytes of another frame of the same migration, under this frame's id or under their own
 * old     the bytes that this id had in the migration before
 * In each case the checksum, which needs no key, is mended: a node that lies would do no less.
 */
export type Tamper = 'flip' | 'swap' | 'old';

export interface Command {
  readonly call: number;
  readonly add?: { readonly target: string };
  readonly set?: { readonly proxy: number; readonly rule: Rule };
  /** Reset the connection on which the n-th frame from now passes, just behind it; all proxies together. */
  readonly resetAt?: number;
  /** The node that gives the n-th answer to GET from now lies from then on; all others are honest. */
  readonly liar?: { readonly how: Tamper; readonly answer: number };
  readonly counts?: true;
}

export interface Counts {
  /** PUT and FRAME messages that have passed. */
  readonly frames: number;
  /** Answers to GET that were changed. */
  readonly tampered: number;
  readonly resets: number;
}

export interface Answer {
  readonly call: number;
  readonly added?: { readonly proxy: number; readonly address: string };
  readonly counts?: Counts;
  readonly error?: string;
}
