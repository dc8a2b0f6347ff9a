// The smallest engine there can be: values in a Map, which forgets them when their time is over. What docs/stores.md sends people to who write another one.
import type { Added, Engine } from '#abdm/host/store/index.js';

interface Value {
  bytes: Uint8Array;
  until: number;
}

/** A store; each connection to it is an engine. */
export class MemoryStore {
  readonly #values = new Map<string, Value>();

  get size(): number {
    return [...this.#values.keys()].filter((key) => this.#get(key)).length;
  }

  /** As somebody does who flushes it. */
  clear(): void {
    this.#values.clear();
  }

  open(): Engine {
    return {
      copies: 1,
      check: async () => {},
      freeBytes: async () => 2 ** 30,
      ping: async () => {},
      add: async (key, value, ttlMs): Promise<Added> => {
        if (this.#get(key)) return 'exists';
        this.#set(key, value, ttlMs);
        return 'stored';
      },
      swap: async (key, expected, value, ttlMs) => {
        const there = this.#get(key);
        if (!there || Buffer.compare(there.bytes, expected) !== 0) return false;
        if (value) this.#set(key, value, ttlMs);
        else this.#values.delete(key);
        return true;
      },
      get: async (key) => this.#get(key)?.bytes ?? null,
      read: async (key, { into }) => {
        const there = this.#get(key);
        if (!there || !into || there.bytes.length > into.length) return null;
        into.set(there.bytes);
        return there.bytes.length;
      },
      touch: async (keys, ttlMs) => {
        return keys.map((key) => {
          const there = this.#get(key);
          if (there && ttlMs !== null) there.until = performance.now() + ttlMs;
          return there !== null;
        });
      },
      ttlMs: async (key) => Math.max(0, (this.#get(key)?.until ?? 0) - performance.now()),
      remove: async (keys) => keys.filter((key) => this.#get(key) && this.#values.delete(key)).length,
      close: () => {},
    };
  }

  #get(key: string): Value | null {
    const value = this.#values.get(key);
    if (value && value.until > performance.now()) return value;
    this.#values.delete(key);
    return null;
  }

  #set(key: string, value: Uint8Array, ttlMs: number): void {
    this.#values.set(key, { bytes: value.slice(), until: performance.now() + ttlMs });
  }
}
