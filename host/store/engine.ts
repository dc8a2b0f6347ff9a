// What a store has to do so that StoreKeeper can keep blocks there: values under keys that expire. Whoever implements this gets everything else.

/** What became of a value that was to be added. */
export type Added = 'stored' | 'exists' | 'full';

/** Where a value goes to; null: nowhere, for nobody waits for it any more, or it is too long. */
export interface ReadTarget {
  into: Uint8Array | null;
}

/**
 * A connection to a store. Everything is asked anew by itself when the connection breaks, and fails with PEER_GONE only after `close`.
 * What the store refuses fails with NO_ROOM, UNAUTHENTICATED or PEER_ABORTED. Where more than one copy is asked for, 'stored' says that all have it.
 */
export interface Engine {
  /** Copies that it makes of each value by itself, and confirms. */
  readonly copies: number;
  /**
   * Before the first block: whether it may forget, or cannot take a block.
   * @throws {AbdmError} USAGE that says which setting to change.
   */
  check(): Promise<void>;
  /** Room for blocks, in bytes. */
  freeBytes(): Promise<number>;
  /** It is there. @throws {AbdmError} */
  ping(): Promise<void>;
  /** Stores a value, unless there is one. `value` may be overwritten once this has settled. */
  add(key: string, value: Uint8Array, ttlMs: number): Promise<Added>;
  /** Stores `value` if what is there is `expected`; null: removes it. Whether it was. */
  swap(key: string, expected: Uint8Array, value: Uint8Array | null, ttlMs: number): Promise<boolean>;
  /** What is there; null: nothing. */
  get(key: string): Promise<Uint8Array | null>;
  /** Reads a value of up to `target.into.byteLength` bytes; null if there is none. Once `target.into` is null nothing is written any more. */
  read(key: string, target: ReadTarget): Promise<number | null>;
  /** Which of these keys there are; with `ttlMs` they stay for so long from now on. */
  touch(keys: readonly string[], ttlMs: number | null): Promise<boolean[]>;
  /** Until a key expires. */
  ttlMs(key: string): Promise<number>;
  /** How many there were. */
  remove(keys: readonly string[]): Promise<number>;
  /** Ends its connections. */
  close(): void;
}

/** How a store is opened. */
export interface EngineOptions {
  /** How many copies of each value there are to be. If it cannot make them, it makes one. */
  readonly copies: number;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** The connection broke, and why; or stands again. */
  readonly onOpen: (open: boolean, why?: string) => void;
}
